package replica

import (
	"context"
	"fmt"
	"slices"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
	"mochi/replica/queue"
)

// Tags of what moves shards of the queue.
const (
	transferTag = 1<<25 + 1<<24
	gatherTag   = 1<<25 + 1<<23
)

// auditBytes is how much of the queue is read again after each commit: all of
// it up to K = 32768 at d = 128, in a few ms, longer queues in turns.
const auditBytes = 16 << 20

// place makes room for the shards that this member holds in a round. What it
// held before and gives up stays until the round's first commit: until then
// somebody may still need it.
func (s *session) place(m *membership) {
	s.hold = queue.AllShards(s.cfg.QueueShards)
	if m.Holders != nil {
		s.hold = nil
	}
	for v, holders := range m.Holders {
		if slices.Contains(holders, m.rank) {
			s.hold = append(s.hold, v)
		}
	}
	if m.Members[m.rank].State != protocol.FromSelf {
		s.queue.Hold(s.hold)
		return
	}
	keep := slices.Clone(s.hold)
	for _, h := range s.queue.Held() {
		if !slices.Contains(keep, h.Index) {
			keep = append(keep, h.Index)
		}
	}
	s.queue.Hold(keep)
}

// release drops what place kept.
func (s *session) release() {
	if len(s.queue.Held()) != len(s.hold) {
		s.queue.Hold(s.hold)
	}
}

// damagedError is a shard that cannot be sent: its keys changed by themselves.
type damagedError struct{ shard int }

func (e *damagedError) Error() string {
	return fmt.Sprintf("shard %d of the queue no longer matches its checksum; another copy is needed", e.shard)
}

// transfer makes the copies that a round begins with. Every member passes them
// on around the ring.
func (s *session) transfer(ctx context.Context, m *membership) error {
	tag := allreduce.Tag{Step: uint64(m.Step), Bucket: transferTag}
	for _, t := range m.Transfers {
		blob := make([]byte, s.queue.ExportSize(t.Shard))
		if t.From == m.rank {
			if !s.queue.Holds(t.Shard) {
				return &stateError{fmt.Sprintf("round %d wants shard %d of the queue from this replica, which does not hold it", m.Round.Round, t.Shard)}
			}
			if !s.queue.AuditShard(t.Shard) {
				return &damagedError{t.Shard}
			}
			s.queue.Export(t.Shard, blob)
		}
		if err := m.ring.Broadcast(ctx, tag, t.From, blob); err != nil {
			return fmt.Errorf("receive shard %d of the queue from %s: %w", t.Shard, m.Members[t.From].Name, err)
		}
		tag.Bucket++
		if !slices.Contains(t.To, m.rank) {
			continue
		}
		if err := s.queue.Import(t.Shard, blob); err != nil {
			return err
		}
		if got := s.queue.Digests()[t.Shard]; t.Digest != "" && got != t.Digest {
			return &ringError{fmt.Errorf("shard %d of the queue from %s has the digest %s, not %s", t.Shard, m.Members[t.From].Name, got, t.Digest)}
		}
	}
	return nil
}

// whole puts the queue together at rank 0, keys [K, d] and labels [K]: the
// owners send the shards that rank 0 does not hold. Other ranks get nil.
func (s *session) whole(ctx context.Context, m *membership) (keys []float32, labels []int32, err error) {
	if m == nil || m.rank == 0 {
		keys, labels = s.queue.Keys(), s.queue.Labels()
	}
	if m == nil {
		return keys, labels, nil
	}
	tag := allreduce.Tag{Step: uint64(s.step), Bucket: gatherTag}
	for v, holders := range m.Holders {
		if slices.Contains(holders, 0) {
			continue
		}
		blob := make([]byte, s.queue.ExportSize(v))
		if holders[0] == m.rank {
			s.queue.Export(v, blob)
		}
		if err := m.ring.Broadcast(ctx, tag, holders[0], blob); err != nil {
			return nil, nil, fmt.Errorf("gather shard %d of the queue from %s: %w", v, m.Members[holders[0]].Name, err)
		}
		tag.Bucket++
		if m.rank == 0 {
			s.queue.Unpack(v, blob, keys, labels)
		}
	}
	return keys, labels, nil
}

// save stores the state of a round that has no step as a checkpoint.
func (r *Replica) save(ctx context.Context, m *membership) error {
	r.setPhase(m.Round.Round, m.Step, "saving")
	return r.uploadCheckpoint(ctx, m)
}
