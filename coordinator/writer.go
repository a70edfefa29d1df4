package coordinator

import (
	"context"
	"errors"
	"sync"
	"time"
)

// How long the writer waits before it tries again what failed, and how long an
// attempt may take. A log that cannot be interrupted (files) takes as long as it takes.
const (
	againAfter   = 100 * time.Millisecond // doubled each time
	againAtMost  = 5 * time.Second
	attemptLimit = 10 * time.Second
)

// logSlow is from when on people are told that the log is waited for.
const logSlow = 2 * time.Second

// write is something that must be durable.
type write struct {
	what string // in words: "commit 12"
	do   func(ctx context.Context) error
	then func(err error) *Finish // on the server's goroutine, with nil or ErrFenced
}

// writer makes things durable one after the other, on a goroutine of its own: a disk
// may take minutes, and meanwhile the server must hear. It tries as long as it takes.
type writer struct {
	done chan written // what is finished

	mu    sync.Mutex
	queue []write
	wake  chan struct{} // capacity 1
	delay delay
}

// written is a write that is finished: durable, or, with ErrFenced, never.
type written struct {
	write
	err error
}

// delay is what the writer is held up by.
type delay struct {
	since time.Time // of the write in hand; zero: there is none
	what  string
	err   error // of the last attempt, nil when it has not ended
}

func newWriter() *writer {
	return &writer{done: make(chan written), wake: make(chan struct{}, 1)}
}

// put queues a write.
func (w *writer) put(what write) {
	w.mu.Lock()
	w.queue = append(w.queue, what)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// held is what the writer waits for, false when it is not held up for long.
func (w *writer) held(now time.Time) (delay, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.delay
	return d, !d.since.IsZero() && now.Sub(d.since) >= logSlow
}

// run works until ctx ends.
func (w *writer) run(ctx context.Context) {
	for {
		w.mu.Lock()
		var next *write
		if len(w.queue) > 0 {
			next = &w.queue[0]
			w.queue = w.queue[1:]
			w.delay = delay{since: time.Now(), what: next.what}
		} else {
			w.delay = delay{}
		}
		w.mu.Unlock()
		if next == nil {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			}
			continue
		}
		err := persist(ctx, next.do, func(err error) {
			w.mu.Lock()
			w.delay.err = err
			w.mu.Unlock()
		})
		if ctx.Err() != nil {
			return // dying: whether it was written, the next coordinator will see
		}
		select {
		case w.done <- written{*next, err}:
		case <-ctx.Done():
			return
		}
	}
}

// persist tries until it succeeds, is fenced, or ctx ends. It tells of each failure.
func persist(ctx context.Context, do func(context.Context) error, failed func(error)) error {
	for wait := againAfter; ; wait = min(2*wait, againAtMost) {
		attempt, cancel := context.WithTimeout(ctx, attemptLimit)
		err := do(attempt)
		cancel()
		if err == nil || errors.Is(err, ErrFenced) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed(err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}
