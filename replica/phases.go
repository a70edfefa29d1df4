package replica

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mochi/replica/checkpoint"
)

// phases measures a step by name: ms of the clock, and ms of processor time of
// what is done only so that the step is a transaction.
type phases struct {
	ms, cpu map[string]float64
	last    time.Time
}

func newPhases() *phases {
	return &phases{ms: make(map[string]float64, 8), cpu: make(map[string]float64, 4), last: time.Now()}
}

// end adds the time since the last end to a phase.
func (p *phases) end(name string) {
	now := time.Now()
	p.ms[name] += milliseconds(now.Sub(p.last))
	p.last = now
}

// work does pieces of a phase, all at the same time, and counts the processor
// time that they take. They start no goroutines of their own.
func (p *phases) work(phase string, pieces ...func()) {
	spent := make([]time.Duration, len(pieces))
	var running sync.WaitGroup
	for i, piece := range pieces {
		running.Go(func() { spent[i] = onThread(piece) })
	}
	running.Wait()
	for _, d := range spent {
		p.cpu[phase] += milliseconds(d)
	}
}

// digests is checkpoint.Digests, as the work of a phase, with other work beside it.
func (p *phases) digests(phase string, vectors [][]float32, beside ...func()) []string {
	digests := make([]string, len(vectors))
	pieces := beside
	for i, v := range vectors {
		pieces = append(pieces, func() { digests[i] = checkpoint.Digest(v) })
	}
	p.work(phase, pieces...)
	return digests
}

// onThread runs f and returns the processor time that it took: that of its
// thread, on which nothing else runs meanwhile.
func onThread(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime()
	f()
	return threadTime() - before
}

// threadTime is the processor time of the calling thread, 0 where the system does
// not tell.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }
