package clustertest

import "sync"

// mailbox is a list without limit behind a channel, as a subscription is. What
// it holds is handed on while its process runs.
type mailbox[T any] struct {
	p    *Process
	out  chan T
	wake chan struct{}

	mu    sync.Mutex
	items []T
}

func newMailbox[T any](p *Process, capacity int) *mailbox[T] {
	b := &mailbox[T]{p: p, out: make(chan T, capacity), wake: make(chan struct{}, 1)}
	go b.pump()
	return b
}

func (b *mailbox[T]) put(v T) {
	b.mu.Lock()
	b.items = append(b.items, v)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *mailbox[T]) pump() {
	for {
		b.mu.Lock()
		items := b.items
		b.items = nil
		b.mu.Unlock()
		for _, v := range items {
			if b.p.gate() != nil {
				return
			}
			select {
			case b.out <- v:
			case <-b.p.ctx.Done():
				return
			}
		}
		if len(items) > 0 {
			continue
		}
		select {
		case <-b.wake:
		case <-b.p.ctx.Done():
			return
		}
	}
}
