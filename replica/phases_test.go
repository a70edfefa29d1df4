package replica

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Processor time is that of the pieces themselves: all that they compute, on
// whatever threads, nothing for waiting, and nothing of what others compute.
func TestWorkIsProcessorTime(t *testing.T) {
	burn := func() {
		for until := threadTime() + 20*time.Millisecond; threadTime() < until; {
		}
	}
	var stop atomic.Bool
	var other sync.WaitGroup
	other.Go(func() {
		for !stop.Load() {
			burn()
		}
	})
	p := newPhases()
	p.work("computes", burn, burn)
	p.work("waits", func() { var burned sync.WaitGroup; burned.Go(burn); burned.Wait() })
	stop.Store(true)
	other.Wait()
	if ms := p.cpu["computes"]; ms < 40 || ms > 60 {
		t.Errorf("two pieces of 20 ms: %v ms", ms)
	}
	if ms := p.cpu["waits"]; ms > 10 {
		t.Errorf("waiting costs %v ms", ms)
	}
}
