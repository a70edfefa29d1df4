package replica

import (
	"context"
	"slices"
	"sync"

	"mochi/coordinator/protocol"
)

// inbox queues the coordinator's messages in order. A message that makes the
// round in hand pointless (interrupts) also cancels it at once, wherever it is. Of
// the coordinator's requests to say Hello only the last one waits: each costs a
// digest of the whole state, and one answer is enough.
type inbox struct {
	mu     sync.Mutex
	queue  []protocol.Message
	cancel context.CancelFunc // of the round in hand
	err    error              // after close
	wake   chan struct{}      // capacity 1
}

// poke wakes the reader with an empty message.
func (b *inbox) poke() { b.put(protocol.Message{}) }

func (b *inbox) put(m protocol.Message) {
	b.mu.Lock()
	if m.Again != nil {
		b.queue = slices.DeleteFunc(b.queue, func(old protocol.Message) bool { return old.Again != nil })
	}
	b.queue = append(b.queue, m)
	if interrupts(m) && b.cancel != nil {
		b.cancel()
	}
	b.mu.Unlock()
	b.signal()
}

func (b *inbox) close(err error) {
	b.mu.Lock()
	b.err = err
	b.mu.Unlock()
	b.signal()
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// next waits for the next message.
func (b *inbox) next(ctx context.Context) (protocol.Message, error) {
	for {
		b.mu.Lock()
		if len(b.queue) > 0 {
			m := b.queue[0]
			b.queue = b.queue[1:]
			b.mu.Unlock()
			return m, nil
		}
		err := b.err
		b.mu.Unlock()
		if err != nil {
			return protocol.Message{}, err
		}
		select {
		case <-ctx.Done():
			return protocol.Message{}, ctx.Err()
		case <-b.wake:
		}
	}
}

// unread puts a message back at the front, for the caller's caller.
func (b *inbox) unread(m protocol.Message) {
	b.mu.Lock()
	b.queue = append([]protocol.Message{m}, b.queue...)
	b.mu.Unlock()
	b.signal()
}

// attempt makes the context of one attempt at a round: cancelled as soon as a
// message that ends it is, or already was, received.
func (b *inbox) attempt(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cancel = cancel
	if slices.ContainsFunc(b.queue, interrupts) {
		cancel()
	}
	return ctx, func() {
		b.mu.Lock()
		b.cancel = nil
		b.mu.Unlock()
		cancel()
	}
}
