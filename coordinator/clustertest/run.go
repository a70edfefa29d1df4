package clustertest

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Result is how a history went.
type Result struct {
	Violations []string
	Trace      string         // its last lines
	Sum        uint64         // of all that happened: the same for the same seed
	Points     []Point        // that were passed
	Took       time.Duration  // of virtual time
	Steps      int64          // committed
	Events     map[string]int // how often people were told what
}

// hangs is how much real time a history may take before it counts as one in
// which virtual time no longer passes.
const hangs = 5 * time.Minute

// Simulate runs a history in a bubble of its own and says how it went. lines is
// how much of the trace is kept.
func Simulate(t *testing.T, cfg Config, lines int, history func(w *World)) (r Result) {
	t.Helper()
	if cfg.Seed == 0 {
		cfg.Seed = 1
	}
	if cfg.Steps == 0 {
		cfg.Steps = 12
	}
	if cfg.Pace == 0 {
		cfg.Pace = 10 * time.Millisecond
	}
	job := Job(cfg.Steps)
	if cfg.Change != nil {
		cfg.Change(&job)
	}
	reference := unbroken(t, cfg, job)
	r, _ = simulate(t, cfg, job, reference, lines, history)
	return r
}

func simulate(t *testing.T, cfg Config, job job, reference []truth, lines int, history func(w *World)) (r Result, learned []truth) {
	stuck := time.AfterFunc(hangs, func() {
		stacks := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%s\n", stacks[:runtime.Stack(stacks, true)])
		panic(fmt.Sprintf("seed %d of %s: virtual time does not pass", cfg.Seed, t.Name()))
	})
	defer stuck.Stop()
	synctest.Test(t, func(*testing.T) {
		w := newWorld(cfg, job, reference, lines)
		history(w)
		w.mu.Lock()
		r = Result{Violations: slices.Clone(w.failed), Trace: w.trace.String(), Sum: w.trace.sum(), Took: w.now(), Steps: w.disk.head(), Events: map[string]int{}}
		for _, e := range w.check.events {
			r.Events[e.EventName()]++
		}
		w.mu.Unlock()
		w.close()
		learned = w.reference
	})
	return r, learned
}

func newWorld(cfg Config, job job, reference []truth, lines int) *World {
	w := &World{
		cfg: cfg, job: job, began: time.Now(), draws: map[string]uint64{}, ends: map[seat]*end{},
		reference: reference, learning: reference == nil, points: map[Point]int{}, addresses: map[string]string{}, copies: map[string]*disk{}, changed: make(chan struct{}),
		trace: trace{keep: lines, hash: map[string]uint64{}},
		check: checks{hellos: map[string]int{}, evil: map[string]bool{}, stood: map[*Process]int64{}, held: map[*Process]held{}, lost: map[string]time.Duration{}, here: map[string]*Process{}},
	}
	w.links = &links{w: w, away: map[string]span{}, flips: map[string]bool{}, cut: map[way]bool{}, slow: map[way]time.Duration{}, stalled: map[way]time.Duration{}, uplinks: map[string]time.Duration{}}
	w.disk = w.newDisk()
	return w
}

// close kills what still runs and waits for it.
func (w *World) close() {
	w.mu.Lock()
	all := slices.Clone(w.processes)
	for _, p := range all {
		w.kill(p)
	}
	w.mu.Unlock()
	for _, p := range all {
		<-p.done
	}
}

var references struct {
	sync.Mutex
	of map[string][]truth
}

// unbroken is what a run of one replica comes to, in which nothing happens.
func unbroken(t *testing.T, cfg Config, job job) []truth {
	t.Helper()
	job.Pairs = job.Drawn() // which would follow QueueCopies
	job.CheckpointEvery, job.QueueCopies, job.MinReplicas = 1, "all", 1
	key := fmt.Sprint(cfg.Steps, job)
	references.Lock()
	defer references.Unlock()
	if r := references.of[key]; r != nil {
		return r
	}
	quiet := Config{Seed: 1, Steps: cfg.Steps, Pace: time.Millisecond}
	r, learned := simulate(t, quiet, job, nil, 1000, func(w *World) {
		w.StartCoordinator(nil)
		w.Start("a", Engine{})
		w.Ends(time.Hour)
	})
	if r.Steps != cfg.Steps { // other faults will be found where the histories look for them
		t.Fatalf("the unbroken run: %s\n%s", strings.Join(r.Violations, "\n"), r.Trace)
	}
	if references.of == nil {
		references.of = map[string][]truth{}
	}
	references.of[key] = learned
	return learned
}

// Run runs a history and fails the test when a property is violated, with the
// end of the trace.
func Run(t *testing.T, cfg Config, history func(w *World)) Result {
	t.Helper()
	r := Simulate(t, cfg, 400, history)
	if len(r.Violations) > 0 {
		t.Errorf("%s\n%s", strings.Join(r.Violations, "\n"), r.Trace)
	}
	return r
}
