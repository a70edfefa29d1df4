package replica

import (
	"context"
	"sync"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
)

// progress is what a replica is doing, as its heartbeats tell the coordinator,
// which has no other way to see that a computation hangs. It is safe for
// concurrent use.
type progress struct {
	mu   sync.Mutex
	beat protocol.Heartbeat
}

// now is the next heartbeat.
func (p *progress) now() protocol.Heartbeat {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.beat
}

// believe notes the coordinator that this replica follows.
func (p *progress) believe(instance string) {
	p.mu.Lock()
	p.beat.Instance = instance
	p.mu.Unlock()
}

// phase begins one (protocol.Phase…).
func (p *progress) phase(round, step int64, phase string) {
	p.mu.Lock()
	p.beat.Round, p.beat.Step, p.beat.Phase, p.beat.Peers = round, step, phase, false
	p.mu.Unlock()
}

// idle notes that there is nothing to do until the coordinator speaks.
func (p *progress) idle() {
	p.mu.Lock()
	p.beat.Phase, p.beat.Peers = protocol.PhaseWaiting, false
	p.mu.Unlock()
}

// did notes that a piece of work is finished.
func (p *progress) did() {
	p.mu.Lock()
	p.beat.Done++
	p.mu.Unlock()
}

// peers notes that the step loop waits for other members, or no longer does.
func (p *progress) peers(wait bool) {
	p.mu.Lock()
	p.beat.Peers = wait
	p.mu.Unlock()
}

// ring makes r note each collective that ends. While one of them runs, whoever
// made it waits for other members; the sums of a step do not count as that: they
// run beside the last backward (background).
func (p *progress) ring(r Ring) *watchedRing { return &watchedRing{r, p, true} }

// watchedRing is a Ring whose collectives are progress.
type watchedRing struct {
	Ring
	progress *progress
	waits    bool // the step loop does, while a collective runs
}

// background is the same ring for a goroutine beside the step loop.
func (w *watchedRing) background() Ring { return &watchedRing{w.Ring, w.progress, false} }

func (w *watchedRing) watch(collective func() error) error {
	if w.waits {
		w.progress.peers(true)
		defer w.progress.peers(false)
	}
	err := collective()
	if err == nil {
		w.progress.did()
	}
	return err
}

// AllReduceSumChecked implements Ring.
func (w *watchedRing) AllReduceSumChecked(ctx context.Context, tag allreduce.Tag, data []float32, check *allreduce.Check) error {
	return w.watch(func() error { return w.Ring.AllReduceSumChecked(ctx, tag, data, check) })
}

// AllReduceMax implements Ring.
func (w *watchedRing) AllReduceMax(ctx context.Context, tag allreduce.Tag, data []float32) error {
	return w.watch(func() error { return w.Ring.AllReduceMax(ctx, tag, data) })
}

// AllGather implements Ring.
func (w *watchedRing) AllGather(ctx context.Context, tag allreduce.Tag, data []float32, counts []int) error {
	return w.watch(func() error { return w.Ring.AllGather(ctx, tag, data, counts) })
}

// Broadcast implements Ring.
func (w *watchedRing) Broadcast(ctx context.Context, tag allreduce.Tag, root int, data []byte) error {
	return w.watch(func() error { return w.Ring.Broadcast(ctx, tag, root, data) })
}
