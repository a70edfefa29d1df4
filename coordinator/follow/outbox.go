package follow

import (
	"context"
	"sync"
)

// Outbox is what a leader has said without waiting, until it is written: one goroutine
// drains it, any may put and flush. Its zero value is not ready; see NewOutbox.
type Outbox[T any] struct {
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	queue   []T
	put     int           // in all
	written int           // of them
	changed chan struct{} // closed and made anew when written changes
}

// NewOutbox makes an empty one.
func NewOutbox[T any]() *Outbox[T] {
	return &Outbox[T]{wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// Put adds something. It does not wait; the order is that of the calls.
func (o *Outbox[T]) Put(t T) {
	o.mu.Lock()
	o.queue = append(o.queue, t)
	o.put++
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Wake says that something may have been put since the last Drain.
func (o *Outbox[T]) Wake() <-chan struct{} { return o.wake }

// Drain gives write all that waits, oldest first, until nothing does. write says how many
// of it, from the first on, are written now; after 0 Drain ends with false. It must not
// change or keep what it is given.
func (o *Outbox[T]) Drain(write func(queue []T) int) bool {
	for {
		o.mu.Lock()
		queue := o.queue
		o.mu.Unlock()
		if len(queue) == 0 {
			return true
		}
		n := write(queue)
		if n == 0 {
			return false
		}
		o.mu.Lock()
		o.queue = o.queue[n:]
		o.written += n
		close(o.changed)
		o.changed = make(chan struct{})
		o.mu.Unlock()
	}
}

// Flush returns when all that was put before is written; with the error why when ended is
// closed before that, or with ctx's.
func (o *Outbox[T]) Flush(ctx context.Context, ended <-chan struct{}, why error) error {
	o.mu.Lock()
	until := o.put
	o.mu.Unlock()
	for {
		o.mu.Lock()
		written, changed := o.written, o.changed
		o.mu.Unlock()
		if written >= until {
			return nil
		}
		select {
		case <-changed:
		case <-ended:
			return why
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
