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
//	put: Op, Step, Offset, Size, Sum → Want (the next offset), Done, Busy or Error
//	get: Op, Name, Offset, Limit           → Size, Sum and data, or Error
//
// They have a connection of their own, so that votes and heartbeats do not wait
// behind them; see pace for how large a piece is.
// The receiver decides what comes next, so a piece that was lost, damaged or
// sent twice costs one more request, and a coordinator that restarted simply
// asks for offset 0.
const (
	headerOp     = "Op"
	headerStep   = "Step"
	headerOffset = "Offset"
	headerSize   = "Size"
	headerSum    = "Sum"
	headerName   = "Name"
	headerLimit  = "Limit"
	headerWant   = "Want"
	headerBusy   = "Busy"
	headerDone   = "Done"
	headerError  = "Error"
)

// pieceBytes is the largest size of a piece; a message with its headers stays
// below the server's 1 MiB.
const pieceBytes = 512 << 10

// maxReserved is how much memory a size that was told is worth, before any of it has
// come.
const maxReserved = 1 << 30

const (
	stallTimeout = 60 * time.Second // without progress: give up
	busyEvery    = time.Second      // between attempts while another upload is on its way
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
// coordinator's error when it could not store it, when nothing moves for too
// long, or when ctx ends. While another replica's is on its way it waits.
func (r *Replica) Upload(ctx context.Context, step int64, state []byte) error {
	if len(state) == 0 {
		return fmt.Errorf("upload the checkpoint of step %d: it is empty", step)
	}
	size := int64(len(state))
	progress, pace := stall{limit: stallTimeout}, newPace()
	for offset := int64(0); ; {
		piece := state[offset:min(offset+pace.piece, size)]
		reply, err := r.request(ctx, &progress, pace, nats.Header{
			headerOp:     {"put"},
			headerStep:   {strconv.FormatInt(step, 10)},
			headerOffset: {strconv.FormatInt(offset, 10)},
			headerSize:   {strconv.FormatInt(size, 10)},
			headerSum:    {sum(piece)},
		}, piece)
		switch {
		case err != nil:
			return fmt.Errorf("upload the checkpoint of step %d (%d of %d bytes done): %w", step, offset, size, err)
		case reply == nil: // lost, or slow: again, and less of it
			continue
		case reply.Header.Get(headerDone) != "":
			return nil
		case reply.Header.Get(headerBusy) != "":
			progress.reset()
			offset = 0
			if err := pause(ctx, busyEvery); err != nil {
				return err
			}
			continue
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
	progress, pace := stall{limit: stallTimeout}, newPace()
	for size := int64(-1); size != int64(len(state)); {
		reply, err := r.request(ctx, &progress, pace, nats.Header{
			headerOp:     {"get"},
			headerName:   {name},
			headerOffset: {strconv.Itoa(len(state))},
			headerLimit:  {strconv.FormatInt(pace.piece, 10)},
		}, nil)
		if err != nil {
			return nil, fmt.Errorf("download checkpoint %s (%d bytes done): %w", name, len(state), err)
		}
		if reply == nil {
			continue
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
			state = make([]byte, 0, min(size, maxReserved))
		}
		state = append(state, reply.Data...)
		progress.reset()
	}
	return state, nil
}

// request sends one piece and waits for the answer, for as long as pace says; nil
// when none came. An error: the answer's Error header, nothing has moved for too
// long, or ctx ended.
func (r *Replica) request(ctx context.Context, progress *stall, pace *pace, h nats.Header, data []byte) (*nats.Msg, error) {
	nc, err := r.bulk(ctx)
	if err == nil {
		began := time.Now()
		attempt, cancel := context.WithTimeout(ctx, pace.timeout)
		var reply *nats.Msg
		reply, err = nc.RequestMsgWithContext(attempt, &nats.Msg{
			Subject: protocol.CheckpointSubject(r.opts.Job, r.opts.ID), Header: h, Data: data,
		})
		cancel()
		switch {
		case err == nil && reply.Header.Get(headerError) != "":
			return nil, errors.New(reply.Header.Get(headerError))
		case err == nil:
			pace.answered(time.Since(began), int64(max(len(data), len(reply.Data))))
			return reply, nil
		}
		pace.silent()
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, nats.ErrConnectionClosed), progress.exceeded():
		return nil, fmt.Errorf("no answer from the coordinator: %w", err)
	}
	return nil, pause(ctx, retryEvery) // the coordinator may be restarting
}

// pause waits for a while, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// pace is how large pieces are, and how long an answer may take until a piece is
// sent again. Small pieces keep a slow line free for what else must pass; large
// ones make less of a long way. The time between a piece and its answer says which
// it is: the size doubles while that is short, and halves when it is long or there
// is no answer. A piece that was sent again before it could arrive takes the line
// from the next, so the time-out follows what pieces take.
type pace struct {
	piece   int64
	timeout time.Duration
}

const (
	firstPiece   = 64 << 10
	leastPiece   = 8 << 10
	quickPiece   = 100 * time.Millisecond // a piece that takes less may be larger
	slowPiece    = 300 * time.Millisecond // one that takes more should be smaller
	leastTimeout = 2 * time.Second
	mostTimeout  = 30 * time.Second
)

func newPace() *pace { return &pace{firstPiece, leastTimeout} }

// answered notes that a piece of so many bytes took so long.
func (p *pace) answered(took time.Duration, bytes int64) {
	p.timeout = min(max(leastTimeout, 4*took, p.timeout/2), mostTimeout)
	switch {
	case took > slowPiece:
		p.piece = max(p.piece/2, leastPiece)
	case took < quickPiece && bytes >= p.piece:
		p.piece = min(2*p.piece, pieceBytes)
	}
}

// silent notes that there was no answer.
func (p *pace) silent() {
	p.timeout = min(2*p.timeout, mostTimeout)
	p.piece = max(p.piece/2, leastPiece)
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
