package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
	"mochi/replica/checkpoint"
)

// load replaces the state by a checkpoint's.
func (s *session) load(blob []byte) error {
	c, err := checkpoint.Read(bytes.NewReader(blob))
	if err != nil {
		return err
	}
	return s.restore(c)
}

// recoveryPiece is how much of the state travels in one broadcast.
const recoveryPiece = 16 << 20

// head goes before a state that travels: its length in bytes, and the position
// of the donor's queue.
type head struct {
	Length uint64
	Ptr    uint64
	Filled uint64
}

// recover streams the donor's state (in the checkpoint format) around the
// ring; members that are current pass it on and ignore it. A spread queue is
// not part of it, but for its position: shards travel on their own.
func (s *session) recover(ctx context.Context, p *party) error {
	start := time.Now()
	blob, h, err := s.receive(ctx, p)
	if err != nil {
		return err
	}
	if p.self().State != protocol.FromPeer {
		return nil
	}
	c, err := checkpoint.Read(bytes.NewReader(blob))
	switch {
	case err != nil:
	case p.Spread():
		err = s.restoreWithoutQueue(c, int(h.Ptr), int64(h.Filled))
	default:
		err = s.restore(c)
	}
	if err != nil {
		return fmt.Errorf("the state received from %s (%d bytes in %v): %w", p.Members[p.Donor].Name, len(blob), time.Since(start).Round(time.Millisecond), err)
	}
	return nil
}

// receive passes the donor's state around the ring and returns it.
func (s *session) receive(ctx context.Context, p *party) (blob []byte, h head, err error) {
	if p.rank == p.Donor {
		if blob, err = s.donate(p.Spread()); err != nil {
			return nil, h, fmt.Errorf("write the state for a joiner: %w", err)
		}
		h = head{uint64(len(blob)), uint64(s.queue.Ptr()), uint64(s.queue.Filled())}
	}
	tag := allreduce.Tag{Step: uint64(p.Step), Bucket: recoveryTag}
	broadcast := func(piece []byte) error {
		if err := p.ring.Broadcast(ctx, tag, p.Donor, piece); err != nil {
			return fmt.Errorf("receive the state from %s: %w", p.Members[p.Donor].Name, err)
		}
		tag.Bucket++
		return nil
	}
	first := make([]byte, binary.Size(h))
	if _, err := binary.Encode(first, binary.LittleEndian, h); err != nil {
		return nil, h, err
	}
	if err := broadcast(first); err != nil {
		return nil, h, err
	}
	if _, err := binary.Decode(first, binary.LittleEndian, &h); err != nil {
		return nil, h, err
	}
	if p.rank != p.Donor {
		if most := checkpoint.SizeAtMost(s.model.net, s.job.Queue, s.job.Dim, s.job.Labels).File; h.Length > uint64(most) {
			return nil, h, &givenError{fmt.Errorf("the state of %s would take %d bytes: the limit for this network is %d", p.Members[p.Donor].Name, h.Length, most)}
		}
		blob = make([]byte, h.Length)
	}
	for lo := 0; lo < len(blob); lo += recoveryPiece {
		if err := broadcast(blob[lo:min(lo+recoveryPiece, len(blob))]); err != nil {
			return nil, h, err
		}
	}
	return blob, h, nil
}

// donate is the state for a joiner, without the queue where that is spread.
func (s *session) donate(spread bool) ([]byte, error) {
	var state *checkpoint.State
	if spread {
		state = s.withoutQueue()
	} else {
		state = s.snapshot(s.queue.Keys(), s.queue.Labels())
	}
	var buf bytes.Buffer
	err := checkpoint.Write(&buf, state)
	return buf.Bytes(), err
}
