package natsbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/coordinator/protocol"
)

// takeoverAfter is how long an upload may bring nothing until one of another
// replica, or of another state, may take its place.
const takeoverAfter = 15 * time.Second

// Downloads are answered beside each other and beside an upload.
const (
	readers    = 8    // that read from the disk at a time
	maxWaiting = 1024 // requests that wait for them; the others are sent again
)

// receiver is the coordinator's side of checkpoint transfers: at most one
// upload at a time, streamed into save as its pieces arrive. One that gets on is
// not given up for another, which is told to come again.
type receiver struct {
	opts  Options
	wants func(from string, step int64) error
	save  func(ctx context.Context, from string, step int64, r io.Reader) error
	open  func(name string) (io.ReadSeekCloser, error)

	cancel context.CancelFunc // of the context that handle is called with
	owned  sync.WaitGroup

	reading chan struct{} // capacity readers
	asked   chan struct{} // capacity maxWaiting: requests for pieces that are being answered

	mu     sync.Mutex
	latest *upload // the current or last upload
}

func newReceiver(o Options, cancel context.CancelFunc) *receiver {
	return &receiver{opts: o, cancel: cancel, reading: make(chan struct{}, readers), asked: make(chan struct{}, maxWaiting)}
}

// upload is one checkpoint on its way in.
type upload struct {
	from       string
	step, size int64
	next       int64     // offset of the next byte
	moved      time.Time // when something of it arrived
	pipe       *io.PipeWriter

	done    bool
	err     error
	waiting []*nats.Msg // requests to answer when save has returned
}

// stop aborts an upload in progress and waits for its save to return.
func (r *receiver) stop() {
	r.cancel()
	r.mu.Lock()
	if u := r.latest; u != nil {
		u.pipe.CloseWithError(context.Canceled)
	}
	r.mu.Unlock()
	r.owned.Wait()
}

// handle answers one request; NATS calls it for one at a time. ctx lasts as
// long as the receiver: an upload that begins here goes on after the answer.
func (r *receiver) handle(ctx context.Context, m *nats.Msg) {
	var err error
	switch op := m.Header.Get(headerOp); op {
	case "put":
		err = r.put(ctx, m)
	case "get":
		select {
		case r.asked <- struct{}{}:
			r.owned.Go(func() {
				defer func() { <-r.asked }()
				select {
				case r.reading <- struct{}{}:
				case <-ctx.Done():
					return
				}
				defer func() { <-r.reading }()
				if err := r.get(m); err != nil {
					r.answer(m, nats.Header{headerError: {err.Error()}}, nil)
				}
			})
		default: // it is asked for again
		}
	default:
		err = fmt.Errorf("operation %q is neither put nor get", op)
	}
	if err != nil {
		r.answer(m, nats.Header{headerError: {err.Error()}}, nil)
	}
}

func (r *receiver) answer(m *nats.Msg, h nats.Header, data []byte) {
	if err := respond(m, h, data); err != nil {
		r.opts.Log.Warn("checkpoint request not answered", "err", err)
	}
}

func (r *receiver) put(ctx context.Context, m *nats.Msg) error {
	from := protocol.Sender(m.Subject)
	step, err := number(m.Header, headerStep)
	offset, err2 := number(m.Header, headerOffset)
	size, err3 := number(m.Header, headerSize)
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	if offset+int64(len(m.Data)) > size {
		return fmt.Errorf("piece %d+%d lies outside of %d bytes", offset, len(m.Data), size)
	}

	r.mu.Lock()
	u := r.latest
	if u == nil || u.from != from || u.step != step || u.done && offset == 0 {
		if offset != 0 {
			busy := u != nil && !u.done
			r.mu.Unlock()
			if busy {
				return protocol.ErrSuperseded
			}
			r.answer(m, nats.Header{headerWant: {"0"}}, nil) // this coordinator has restarted
			return nil
		}
		if err := r.wants(from, step); err != nil {
			r.mu.Unlock()
			if errors.Is(err, protocol.ErrNotYet) {
				r.answer(m, nats.Header{headerBusy: {"1"}}, nil)
				return nil
			}
			return err
		}
		if u != nil && !u.done {
			if u.from == from || time.Since(u.moved) > takeoverAfter { // its sender has given it up, or is gone
				u.pipe.CloseWithError(protocol.ErrSuperseded)
			}
			r.mu.Unlock()
			r.answer(m, nats.Header{headerBusy: {"1"}}, nil) // one at a time works on the folder
			return nil
		}
		u = r.begin(ctx, from, step, size)
	}
	u.moved = time.Now()
	if offset != u.next || u.size != size || sum(m.Data) != m.Header.Get(headerSum) || len(m.Data) == 0 {
		r.reply(u, m)
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()

	// Blocks at the speed of the disk. Only this goroutine moves u.next.
	_, werr := u.pipe.Write(m.Data)
	r.mu.Lock()
	defer r.mu.Unlock()
	if werr == nil {
		u.next += int64(len(m.Data))
		if u.next == u.size {
			u.pipe.Close()
		}
	} else {
		u.next = u.size // save has given up: what is left is to report why
	}
	r.reply(u, m)
	return nil
}

// begin starts an upload; the one before has ended. r.mu is held.
func (r *receiver) begin(ctx context.Context, from string, step, size int64) *upload {
	in, out := io.Pipe()
	u := &upload{from: from, step: step, size: size, pipe: out}
	r.latest = u
	r.owned.Go(func() {
		err := r.save(ctx, from, step, in)
		in.CloseWithError(errors.Join(errors.New("the checkpoint was not stored"), err))
		r.mu.Lock()
		defer r.mu.Unlock()
		u.done, u.err = true, err
		if err == nil && u.next < u.size {
			u.err = fmt.Errorf("stored %d of %d bytes only", u.next, u.size)
		}
		for _, m := range u.waiting {
			r.reply(u, m)
		}
		u.waiting = nil
	})
	return u
}

// reply answers a put as the upload now stands. r.mu is held.
func (r *receiver) reply(u *upload, m *nats.Msg) {
	switch {
	case u.done && u.err != nil:
		r.answer(m, nats.Header{headerError: {u.err.Error()}}, nil)
	case u.done:
		r.answer(m, nats.Header{headerDone: {"1"}}, nil)
	case u.next == u.size:
		u.waiting = append(u.waiting, m)
	default:
		r.answer(m, nats.Header{headerWant: {strconv.FormatInt(u.next, 10)}}, nil)
	}
}

func (r *receiver) get(m *nats.Msg) error {
	offset, err := number(m.Header, headerOffset)
	if err != nil {
		return err
	}
	limit := int64(pieceBytes)
	if m.Header.Get(headerLimit) != "" {
		asked, err := number(m.Header, headerLimit)
		if err != nil || asked == 0 {
			return fmt.Errorf("header %s: %q is no size of a piece", headerLimit, m.Header.Get(headerLimit))
		}
		limit = min(asked, limit)
	}
	file, err := r.open(m.Header.Get(headerName))
	if err != nil {
		return err
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if offset >= size {
		return fmt.Errorf("checkpoint %s has %d bytes, offset %d asked for", m.Header.Get(headerName), size, offset)
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	piece := make([]byte, min(limit, size-offset))
	if _, err := io.ReadFull(file, piece); err != nil {
		return err
	}
	r.answer(m, nats.Header{headerSize: {strconv.FormatInt(size, 10)}, headerSum: {sum(piece)}}, piece)
	return nil
}
