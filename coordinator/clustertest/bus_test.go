package clustertest

import (
	"testing"
	"testing/synctest"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/bustest"
	"mochi/coordinator/protocol"
	"mochi/replica"
)

// bench is the simulated bus as bustest wants it.
type bench struct{ w *World }

func (b bench) Start(s *bustest.Store) (coordinator.Bus, error) {
	b.w.mu.Lock()
	bus := b.w.startServer(b.w.process(Coordinator, "coordinator"))
	b.w.mu.Unlock()
	close(bus.p.done)
	return bus, bus.Serve(func() protocol.Status { return protocol.Status{} }, s.Wants, s.Save, s.Open)
}

func (b bench) Stop() { b.w.Crash(Coordinator) }

func (b bench) Connect(id string) (replica.Link, error) {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	p := b.w.process(id, id)
	close(p.done)
	return b.w.connect(p), nil
}

func (b bench) Close(id string) {
	p := b.w.Of(id)
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	b.w.connectionsOf(p, true)
	p.dead = true
	p.cancel()
}

func (b bench) Break(id string) { b.w.BreakConnection(id) }

// The simulated bus does what NATS does.
func TestBus(t *testing.T) {
	for _, c := range bustest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(Config{Seed: 1, Steps: 1 << 40}, Job(1), nil, 0)
				w.disk.commits = []entry{{step: 1 << 40}} // messages are of steps that are committed
				if err := c.Run(bench{w}); err != nil {
					t.Error(err)
				}
				w.close()
				time.Sleep(time.Second)
			})
		})
	}
}
