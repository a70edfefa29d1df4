package cpu

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Team is a fixed set of workers that executes kernels. Its goroutines start
// with NewTeam, wait between calls and end with Close.
//
// A Team may be shared: calls from several goroutines run one after another,
// each on all workers. A call must not be made from inside a task of the same
// Team.
type Team struct {
	isa     ISA
	set     instructions
	workers []*worker // workers[0] is the calling goroutine

	mu      sync.Mutex // one kernel at a time; guards everything below
	jobs    jobs
	partial []float32 // sums of chunks, see convweights.go
	closed  bool

	// The job in progress.
	current job
	tasks   int64
	next    atomic.Int64
	pending sync.WaitGroup
	ended   sync.WaitGroup
}

// job is a kernel's arguments; task computes the i-th independent part.
type job interface {
	task(w *worker, i int)
}

// jobs holds the arguments of the kernel in progress, here so that a call
// allocates nothing.
type jobs struct {
	gemm           gemm
	correlate      correlate
	flip           flip
	weightGradient weightGradient
	weightSum      weightSum
	batchNorm      batchNorm
	elementwise    elementwise
	maxPool        maxPool
	avgPool        avgPool
	l2Normalize    l2Normalize
}

// worker is one thread of a Team with the memory only it touches.
type worker struct {
	index   int
	set     *instructions
	wake    chan struct{}
	scratch []float32
	offsets []int // multiples of stride, see rows
	stride  int

	// Arguments of assembly, here because what they point to is moved to the
	// heap.
	tile       tile
	lanes      lanes
	projection projection
}

// NewTeam starts a team of the given number of workers, at least 1, on the
// fastest instruction set of this CPU. With one worker everything runs in the
// calling goroutine.
func NewTeam(threads int) *Team { return NewTeamFor(Available()[0], threads) }

// NewTeamFor is NewTeam with a chosen instruction set, for tests and
// comparisons. It panics when this CPU lacks it.
func NewTeamFor(isa ISA, threads int) *Team {
	t := &Team{isa: isa, set: instructionsOf(isa)}
	for i := range max(threads, 1) {
		w := &worker{index: i, set: &t.set, wake: make(chan struct{}, 1)}
		t.workers = append(t.workers, w)
	}
	for _, w := range t.workers[1:] {
		t.ended.Go(func() { t.serve(w) })
	}
	return t
}

// Threads is the number of workers.
func (t *Team) Threads() int { return len(t.workers) }

// ISA is the instruction set in use.
func (t *Team) ISA() ISA { return t.isa }

// Run calls f(task, worker) once for every task in [0, n), spread over the
// workers; worker is in [0, Threads) and two tasks with the same worker never
// overlap. Which worker takes a task is left to chance, so f's result must not
// depend on it. It returns when all tasks are done.
func (t *Team) Run(n int, f func(task, worker int)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.do(n, tasks(f))
}

// tasks is the job of Run.
type tasks func(task, worker int)

func (f tasks) task(w *worker, i int) { f(i, w.index) }

// Close ends the workers; the team must not be used afterwards. A second Close
// does nothing.
func (t *Team) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	for _, w := range t.workers[1:] {
		close(w.wake)
	}
	t.ended.Wait()
}

// do executes the n tasks of j. The caller holds mu.
func (t *Team) do(n int, j job) {
	if t.closed {
		panic("kernel: Team used after Close")
	}
	helpers := min(n, len(t.workers)) - 1
	if helpers <= 0 {
		for i := range n {
			j.task(t.workers[0], i)
		}
		return
	}
	t.current, t.tasks = j, int64(n)
	t.next.Store(0)
	t.pending.Add(helpers)
	for _, w := range t.workers[1 : 1+helpers] {
		w.wake <- struct{}{}
	}
	t.drain(t.workers[0])
	t.pending.Wait()
	t.current = nil
}

// serve is the life of a helper.
func (t *Team) serve(w *worker) {
	for range w.wake {
		t.drain(w)
		t.pending.Done()
	}
}

// drain takes tasks until none is left.
func (t *Team) drain(w *worker) {
	for {
		i := t.next.Add(1) - 1
		if i >= t.tasks {
			return
		}
		t.current.task(w, int(i))
	}
}

// memory returns n floats of the worker's scratch with arbitrary contents.
// They are valid until the end of the task.
func (w *worker) memory(n int) []float32 {
	if len(w.scratch) < n {
		w.scratch = make([]float32, n)
	}
	return w.scratch[:n]
}

// need panics unless a buffer has the length its shape asks for.
func need(op, name string, got, want int) {
	if got != want {
		panic(fmt.Sprintf("kernel: %s: %s has %d elements, want %d", op, name, got, want))
	}
}
