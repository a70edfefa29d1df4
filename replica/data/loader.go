package data

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"mochi/replica/augment"
)

// Errors of Loader.
var (
	ErrNothingSubmitted = errors.New("no request is submitted")
	ErrReset            = errors.New("the request was dropped by Reset")
	ErrClosed           = errors.New("the loader is closed")
)

// LoaderConfig selects how a Loader runs.
type LoaderConfig struct {
	Seed      uint64       // of the augmentation
	Workers   int          // goroutines at most; default GOMAXPROCS
	Depth     int          // requests being prepared or ready at a time; default 2
	Strict    bool         // a corrupt sample is an error of Next
	SameClass bool         // a corrupt sample is replaced by one of its class: for what goes by labels
	Log       *slog.Logger // one line for each corrupt sample, unless the data set reports them itself (Lenient); default none

	// BesideEngine is for a loader on the cores that an engine computes on: no
	// more of the workers load than keep Next from waiting (see crew.go).
	BesideEngine bool
}

// Request says what to load for one step: by what is computed at once (one
// BatchNorm group or several), the samples whose query views and whose key
// views are wanted. The two lists may differ in every way (ShuffleBN); a sample
// in both is decoded once. The loader keeps the lists.
type Request struct {
	Step       int64
	Query, Key [][]Ref
}

// Batch is a loaded request: in its order, views [samples, 3, S, S] of each list.
type Batch struct {
	Step       int64
	Query, Key [][]float32

	loader *Loader
}

// Release gives the batch's memory back for coming ones; Query and Key must
// not be used any more. A second Release does nothing, nor does that of a batch
// that no loader made.
func (b *Batch) Release() {
	if b.loader == nil {
		return
	}
	b.loader.mu.Lock()
	defer b.loader.mu.Unlock()
	b.loader.recycle(b)
}

// Loader prepares requests ahead of the engine, in the order of Submit. Its
// memory is bounded: Depth batches, those that were handed out and not yet
// released, and one decoded image a worker. What it delivers depends on the
// data, the recipe, the seed and the request only, not on Workers, Depth or
// timing. The workers take from one list, oldest request first, so that none is
// idle while another has a backlog. Submit, Reset, Stats and Close may be
// called from any goroutine, Next from one at a time.
type Loader struct {
	data   *Lenient
	recipe augment.Recipe
	config LoaderConfig

	workers sync.WaitGroup
	wanted  context.Context // of the workers: what they load is
	unwant  context.CancelFunc

	mu     sync.Mutex
	work   sync.Cond // a worker may find something to do, or the loader closed
	crew   crew
	jobs   []*job              // submitted and not yet taken by Next
	free   map[int][][]float32 // buffers for reuse, by length
	closed bool
	stats  LoaderStats
}

// LoaderStats are counts since NewLoader.
type LoaderStats struct {
	Decoded int           // images
	Views   int           // two for a sample with both views here
	Corrupt int           // different samples that could not be decoded
	Paths   []string      // of those
	Wait    time.Duration // that Next spent waiting
	Active  int           // workers that load while nobody waits
}

// NewLoader starts the workers. Close ends them.
func NewLoader(d Dataset, recipe augment.Recipe, config LoaderConfig) *Loader {
	if config.Workers < 1 {
		config.Workers = runtime.GOMAXPROCS(0)
	}
	if config.Depth < 1 {
		config.Depth = 2
	}
	l := &Loader{recipe: recipe, config: config, free: make(map[int][][]float32), crew: newCrew(config.Workers, config.BesideEngine)}
	if reporting, ok := d.(*Lenient); ok {
		l.data = reporting
	} else {
		l.data = NewLenient(d, func(e *CorruptError) {
			if config.Log != nil {
				config.Log.Warn("image cannot be decoded, another takes its place", "path", e.Path, "cause", e.Err)
			}
		})
	}
	if config.Strict {
		l.data.SetStrict()
	}
	if config.SameClass {
		l.data.SameClass()
	}
	l.wanted, l.unwant = context.WithCancel(context.Background())
	l.work.L = &l.mu
	for range config.Workers {
		l.workers.Go(l.worker)
	}
	return l
}

// Submit appends a request. It never blocks: images are decoded for the first
// Depth requests only, the others wait as lists of indices.
func (l *Loader) Submit(r Request) error {
	for _, refs := range slices.Concat(r.Query, r.Key) {
		for _, ref := range refs {
			if ref.Sample < 0 || ref.Sample >= l.data.Len() {
				return fmt.Errorf("load step %d: sample %d of a data set of %d", r.Step, ref.Sample, l.data.Len())
			}
		}
	}
	j := &job{request: r, tasks: plan(r), done: make(chan struct{})}
	j.left = len(j.tasks)
	if j.left == 0 {
		close(j.done)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.jobs = append(l.jobs, j)
	l.work.Broadcast()
	return nil
}

// Next returns the oldest request's batch and how long it waited for it.
// Release the batch after use. A failed request (more than a corrupt sample)
// is taken off the list and its error returned.
func (l *Loader) Next(ctx context.Context) (*Batch, time.Duration, error) {
	start := time.Now()
	l.mu.Lock()
	if l.closed || len(l.jobs) == 0 {
		defer l.mu.Unlock()
		if l.closed {
			return nil, 0, ErrClosed
		}
		return nil, 0, ErrNothingSubmitted
	}
	j := l.jobs[0]
	l.mu.Unlock()

	var cause error
	select {
	case <-j.done:
	default:
		l.allHands(true)
		select {
		case <-j.done:
		case <-ctx.Done():
			cause = ctx.Err()
		}
		l.allHands(false)
	}
	wait := time.Since(start)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Wait += wait
	l.crew.taken(time.Now(), wait)
	if cause != nil {
		return nil, wait, cause
	}
	if len(l.jobs) > 0 && l.jobs[0] == j {
		l.jobs = slices.Delete(l.jobs, 0, 1)
		l.work.Broadcast() // the next one enters the window
	}
	if j.err != nil {
		return nil, wait, fmt.Errorf("load step %d: %w", j.request.Step, j.err)
	}
	l.start(j) // for a request without a sample
	return j.batch, wait, nil
}

// allHands lets every worker load while somebody waits for the result.
func (l *Loader) allHands(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.crew.waiting = on; on {
		l.work.Broadcast()
	}
}

// Ready is the batch that the next Next will return, if it is there already,
// else nil. It is still the loader's: its views are valid until Reset, or until
// the Release that follows its Next.
func (l *Loader) Ready() *Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.jobs) == 0 {
		return nil
	}
	j := l.jobs[0]
	select {
	case <-j.done:
		if j.err == nil {
			return j.batch
		}
	default:
	}
	return nil
}

// Reset drops all that was submitted; a Next in progress returns ErrReset.
func (l *Loader) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.crew.pause()
	for _, j := range l.jobs {
		l.fail(j, ErrReset)
	}
	l.jobs = nil
}

// Close drops everything and waits for the workers. Batches that were handed
// out stay valid.
func (l *Loader) Close() {
	l.mu.Lock()
	for _, j := range l.jobs {
		l.fail(j, ErrClosed)
	}
	l.jobs, l.closed = nil, true
	l.unwant()
	l.work.Broadcast()
	l.mu.Unlock()
	l.workers.Wait()
}

// Stats returns the counts so far.
func (l *Loader) Stats() LoaderStats {
	paths := l.data.Corrupt()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Corrupt, s.Paths, s.Active = l.data.CorruptSamples(), paths, l.crew.active
	return s
}

func (l *Loader) worker() {
	v := newViewer(l.data, l.recipe, l.config.Seed)
	v.decoder.Wanted = l.wanted
	defer v.decoder.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		j := l.claim()
		if j == nil {
			if l.closed {
				return
			}
			l.work.Wait()
			continue
		}
		t := j.tasks[j.next]
		j.next++
		l.crew.busy++
		start := time.Now()
		l.mu.Unlock()
		views, err := v.load(t, j.batch)
		l.mu.Lock()
		l.crew.busy--
		l.crew.worked += time.Since(start)
		if err == nil {
			l.stats.Decoded++
			l.stats.Views += views
		} else {
			l.fail(j, err)
		}
		l.finish(j, 1)
	}
}
