package natsbus

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/coordinator/protocol"
)

// Checkpoints travel as requests, one piece at a time, with these headers:
//
//	put: Op, From, Step, Offset, Size, Sum → Want (the next offset), Done, or Error
//	get: Op, Name, Offset                  → Size, Sum and data, or Error
//
// The receiver decides what comes next, so a piece that was lost, damaged or
// sent twice costs one more request, and a coordinator that restarted simply
// asks for offset 0.
const (
	headerOp     = "Op"
	headerFrom   = "From"
	headerStep   = "Step"
	headerOffset = "Offset"
	headerSize   = "Size"
	headerSum    = "Sum"
	headerName   = "Name"
	headerWant   = "Want"
	headerDone   = "Done"
	headerError  = "Error"
)

// pieceBytes is the size of a piece; a message with its headers stays below
// the server's 1 MiB.
const pieceBytes = 512 << 10

const (
	pieceTimeout = 2 * time.Second  // until a piece is sent again
	stallTimeout = 60 * time.Second // without progress: give up
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(data []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(data, castagnoli)), 16)
}

func number(h nats.Header, name string) (int64, error) {
	n, err := strconv.ParseInt(h.Get(name), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("header %s: %q is not a number", name, h.Get(name))
	}
	return n, nil
}

// Upload stores the state after a step (a checkpoint file) at the
// coordinator. It returns once the coordinator has it safe, with the
// coordinator's error when it could not store it, or when ctx ends.
func (r *Replica) Upload(ctx context.Context, step int64, state []byte) error {
	if len(state) == 0 {
		return fmt.Errorf("upload the checkpoint of step %d: it is empty", step)
	}
	size := int64(len(state))
	progress := stall{limit: stallTimeout}
	for offset := int64(0); ; {
		piece := state[offset:min(offset+pieceBytes, size)]
		reply, err := r.request(ctx, &progress, nats.Header{
			headerOp:     {"put"},
			headerFrom:   {r.opts.ID},
			headerStep:   {strconv.FormatInt(step, 10)},
			headerOffset: {strconv.FormatInt(offset, 10)},
			headerSize:   {strconv.FormatInt(size, 10)},
			headerSum:    {sum(piece)},
		}, piece)
		if err != nil {
			return fmt.Errorf("upload the checkpoint of step %d (%d of %d bytes done): %w", step, offset, size, err)
		}
		if reply.Header.Get(headerDone) != "" {
			return nil
		}
		want, err := number(reply.Header, headerWant)
		if err != nil || want >= size {
			return fmt.Errorf("upload the checkpoint of step %d: the coordinator asked for offset %q of %d", step, reply.Header.Get(headerWant), size)
		}
		if want > offset {
			progress.reset()
		}
		offset = want
	}
}

// Download reads the checkpoint that a Round named.
func (r *Replica) Download(ctx context.Context, name string) ([]byte, error) {
	var state []byte
	progress := stall{limit: stallTimeout}
	for size := int64(-1); size != int64(len(state)); {
		reply, err := r.request(ctx, &progress, nats.Header{
			headerOp:     {"get"},
			headerName:   {name},
			headerOffset: {strconv.Itoa(len(state))},
		}, nil)
		if err != nil {
			return nil, fmt.Errorf("download checkpoint %s (%d bytes done): %w", name, len(state), err)
		}
		now, err := number(reply.Header, headerSize)
		if err != nil || size >= 0 && now != size || int64(len(state)+len(reply.Data)) > now {
			return nil, fmt.Errorf("download checkpoint %s: it changed on the way (%d bytes, then %q)", name, size, reply.Header.Get(headerSize))
		}
		size = now
		if reply.Header.Get(headerSum) != sum(reply.Data) || len(reply.Data) == 0 {
			if progress.exceeded() {
				return nil, fmt.Errorf("download checkpoint %s: pieces arrive damaged at offset %d", name, len(state))
			}
			continue
		}
		if state == nil {
			state = make([]byte, 0, size)
		}
		state = append(state, reply.Data...)
		progress.reset()
	}
	return state, nil
}

// request sends one piece until it is answered, nothing has moved for too
// long, or ctx ends. The answer's Error header becomes the error.
func (r *Replica) request(ctx context.Context, progress *stall, h nats.Header, data []byte) (*nats.Msg, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, pieceTimeout)
		reply, err := r.nc.RequestMsgWithContext(attempt, &nats.Msg{
			Subject: protocol.CheckpointSubject(r.opts.Job), Header: h, Data: data,
		})
		cancel()
		switch {
		case err == nil && reply.Header.Get(headerError) != "":
			return nil, errors.New(reply.Header.Get(headerError))
		case err == nil:
			return reply, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, nats.ErrConnectionClosed), progress.exceeded():
			return nil, fmt.Errorf("no answer from the coordinator: %w", err)
		}
		select { // the coordinator may be restarting
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryEvery):
		}
	}
}

// stall measures the time without progress.
type stall struct {
	limit time.Duration
	since time.Time
}

func (s *stall) reset() { s.since = time.Time{} }

func (s *stall) exceeded() bool {
	if s.since.IsZero() {
		s.since = time.Now()
	}
	return time.Since(s.since) > s.limit
}
