package relay

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// link holds the conditions. Its methods may be called from any goroutine.
type link struct {
	mu      sync.Mutex
	now     Conditions
	changed chan struct{} // closed when now is replaced
	random  *rand.Rand
}

func newLink(seed uint64) *link {
	return &link{changed: make(chan struct{}), random: rand.New(rand.NewPCG(seed, 1))}
}

func (l *link) set(c Conditions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = c
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) get() (Conditions, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

// lost draws whether a chunk is lost.
func (l *link) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now.Loss > 0 && l.random.Float64() < l.now.Loss
}

// pass copies one direction under the conditions until its stream ends (nil), a
// side fails, or ctx is done. The goroutine that reads ends with its side: after
// an error the caller closes both.
func (l *link) pass(ctx context.Context, to io.Writer, from io.Reader, up bool) error {
	ctx, cancel := context.WithCancel(ctx)
	chunks := make(chan chunk, 64) // up to 1 MiB are under way, as in a socket's buffers
	done := make(chan error, 1)
	go func() { done <- read(ctx, from, chunks) }()
	defer cancel()
	if err := l.write(ctx, to, chunks, up); err != nil {
		return err // the caller closes both sides, which ends the reader
	}
	return <-done
}

func (l *link) write(ctx context.Context, to io.Writer, chunks <-chan chunk, up bool) error {
	for c := range chunks {
		now, _ := l.get()
		if err := sleep(ctx, time.Until(c.at.Add(now.Delay))); err != nil {
			return err
		}
		if l.lost() {
			if err := sleep(ctx, Stall); err != nil {
				return err
			}
		}
		if now.BytesPerSecond > 0 {
			took := time.Duration(float64(len(c.bytes)) / float64(now.BytesPerSecond) * float64(time.Second))
			if err := sleep(ctx, took); err != nil {
				return err
			}
		}
		if err := l.open(ctx, up); err != nil {
			return err
		}
		if _, err := to.Write(c.bytes); err != nil {
			return err
		}
	}
	return l.open(ctx, up) // a cut hides the end of a connection too
}

// open returns when a direction is not cut.
func (l *link) open(ctx context.Context, up bool) error {
	for {
		now, changed := l.get()
		if up && !now.CutUp || !up && !now.CutDown {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
