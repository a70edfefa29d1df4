package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// stream is the bytes of a part of a shard, in order. It asks again from where it
// stands when a request fails, breaks off or stalls, later and later; and gives up when
// nothing has come for as long as the store is patient.
type stream struct {
	o       *Object
	pos, to int64
	body    io.ReadCloser
	left    int64 // of body, −1 where that is not said
	head    meta  // of the last answer
	stop    context.CancelCauseFunc
	watch   *time.Timer

	failures int       // since bytes came
	since    time.Time // when bytes came, or the stream was made
	useless  int       // of the failures, those that a server would repeat for ever
}

// stream begins to read bytes from, to to (not included).
func (o *Object) stream(from, to int64) *stream {
	return &stream{o: o, pos: from, to: to, since: time.Now()}
}

// How often a server may answer with nothing of use, and a host that never answered
// may fail, before that is an error.
const (
	mostUseless = 5
	mostUnheard = 4
)

// fill reads len(b) bytes. The error is an *Error or a *ChangedError, or that of ctx.
func (s *stream) fill(ctx context.Context, b []byte) error {
	begun := time.Now()
	for n := 0; n < len(b); {
		more, err := s.read(ctx, b[n:])
		if n += more; more > 0 {
			s.failures, s.useless, s.since = 0, 0, time.Now()
		}
		if err == nil {
			if took := time.Since(begun); n < len(b) && took > s.o.store.o.Patience {
				s.close()
				return &Error{s.o.Name(), fmt.Errorf("%d bytes came in %v: that is too slow", n, took.Round(time.Second))}
			}
			continue
		}
		s.close()
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.again(ctx, err); err != nil {
			return err
		}
	}
	return nil
}

// again waits before the next request, or says why there is none.
func (s *stream) again(ctx context.Context, err error) error {
	var changed *ChangedError
	if errors.As(err, &changed) {
		return err
	}
	var f *failure
	if !errors.As(err, &f) {
		f = ofTransport(err)
	}
	if s.failures++; f.stuck {
		s.useless++
	}
	store := s.o.store
	silent := time.Since(s.since)
	wait := min(30*time.Second, 250*time.Millisecond<<min(s.failures-1, 10))
	wait += time.Duration(rand.Int64N(int64(wait)/4 + 1))
	why := f.err
	switch {
	case f.final:
		return &Error{s.o.Name(), why}
	case s.useless >= mostUseless:
		return &Error{s.o.Name(), fmt.Errorf("%w (%d times, at byte %d)", why, s.useless, s.pos)}
	case !store.heard.Load() && s.failures >= mostUnheard && f.wait == 0:
		return &Error{s.o.Name(), fmt.Errorf("%w (tried %d times)", why, s.failures)}
	case f.wait > store.o.Patience:
		return &Error{s.o.Name(), fmt.Errorf("%w, and asks to come again in %v", why, f.wait.Round(time.Second))}
	case silent+wait > store.o.Patience && f.wait == 0, silent > 2*store.o.Patience:
		return &Error{s.o.Name(), fmt.Errorf("%w; nothing came for %v, in %d requests", why, silent.Round(time.Second), s.failures)}
	}
	store.trouble(s.o, why)
	return pause(ctx, max(wait, f.wait))
}

// pause lets time pass; the error is that of ctx, where it ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read reads some bytes, of a new request if there is none.
func (s *stream) read(ctx context.Context, b []byte) (int, error) {
	if s.body == nil {
		if err := s.open(ctx); err != nil {
			return 0, err
		}
	}
	if s.left == 0 {
		return 0, s.short(io.ErrUnexpectedEOF)
	}
	if s.left > 0 && int64(len(b)) > s.left {
		b = b[:s.left]
	}
	n, err := s.guarded(b)
	s.pos += int64(n)
	if s.left > 0 {
		s.left -= int64(n)
	}
	if n > 0 {
		s.o.store.came(n)
		return n, nil
	}
	if err == nil {
		return 0, stuck("the server sends nothing")
	}
	return 0, s.short(err)
}

// short is why a body ended too early.
func (s *stream) short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return stuck("the server ends at byte %d of %d", s.pos, s.o.meta.size)
	}
	return err
}

// guarded is one Read that does not last for ever.
func (s *stream) guarded(b []byte) (int, error) {
	s.watch.Reset(s.o.store.o.Stall)
	defer s.watch.Stop()
	n, err := s.body.Read(b)
	if n == 0 && err != nil {
		err = s.stalled(err)
	}
	return n, err
}

// stalled gives the end of a request its cause.
func (s *stream) stalled(err error) error {
	if !s.watch.Stop() { // it has ended the request
		return &failure{err: fmt.Errorf("nothing came for %v", s.o.store.o.Stall)}
	}
	return err
}

// open asks for what is left.
func (s *stream) open(ctx context.Context) error {
	ctx, s.stop = context.WithCancelCause(ctx)
	stop := s.stop
	s.watch = time.AfterFunc(s.o.store.o.Stall, func() { stop(errStalled) })
	r, err := s.o.store.origin.get(ctx, s.o.at, s.pos, s.to)
	if err != nil {
		return s.stalled(err)
	}
	s.o.store.heard.Store(true)
	s.body, s.left, s.head = r.body, r.length, r.meta
	if err := s.o.same(r.meta); err != nil {
		return err
	}
	if !r.whole {
		return nil
	}
	s.o.whole.Store(true)
	for skip := s.pos; skip > 0; { // the server knows no parts: what comes before is of no use
		n, err := s.guarded(make([]byte, min(skip, 64<<10)))
		if skip -= int64(n); n == 0 {
			return s.short(err)
		}
		if s.left > 0 {
			s.left -= int64(n)
		}
	}
	return nil
}

// close ends the request in hand, if there is one.
func (s *stream) close() {
	if s.watch != nil {
		s.watch.Stop()
	}
	if s.body != nil {
		s.body.Close()
	}
	if s.stop != nil {
		s.stop(nil)
	}
	s.body, s.stop, s.watch = nil, nil, nil
}
