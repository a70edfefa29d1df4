// Package evaluate measures encoders: kNN accuracy (model/eval.KNN), and where
// they put images on the sphere (alignment, uniformity, spread, the proxy task),
// of a checkpoint or, with an Evaluator, of a run while it trains.
package evaluate

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator/event"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
)

// Options say what an Evaluator measures, and where that goes.
type Options struct {
	Job    config.Job
	Set    *data.Set // nil: no data set here, nothing is measured
	Engine string    // --engine
	Device int       // GPU number
	Images int       // training images that vote in kNN at most, 0 = all
	K      int       // neighbours that vote in kNN; 0: the usual number, bounded by the smallest class

	Say   func(format string, args ...any) // shows a line
	Event func(e event.Event) error        // writes one to log.jsonl
}

// Evaluator measures kNN accuracy and geometry during a run, with an engine of
// its own.
type Evaluator struct {
	Options
	off bool // no --knn-every, or no data set here: all methods do nothing

	busy sync.Mutex // one evaluation at a time
	wg   sync.WaitGroup

	mu      sync.Mutex
	waiting []due // of Saved, the oldest first
	running bool  // somebody evaluates them
}

// due is a checkpoint that is to be evaluated. It is open: meanwhile others may take
// its name.
type due struct {
	file *os.File
	when string
}

// mostDue is how many of them may wait; of more the oldest is left out.
const mostDue = 16

// New makes the evaluator of a run.
func New(o Options) *Evaluator {
	return &Evaluator{Options: o, off: o.Job.EvaluateEvery() == 0 || o.Set == nil}
}

// Untrained evaluates the initial encoder, on all cores.
func (e *Evaluator) Untrained(ctx context.Context) error {
	if e.off {
		return nil
	}
	return e.evaluate(ctx, "before training", runtime.NumCPU(), nil)
}

// Trained evaluates the newest checkpoint in the folder of a run that is over,
// on all cores.
func (e *Evaluator) Trained(ctx context.Context, dir string) error {
	if e.off {
		return nil
	}
	found, err := checkpoint.Latest(dir)
	if err != nil {
		return err
	}
	return e.evaluate(ctx, "after training", runtime.NumCPU(), found.State)
}

// Saved returns what a store calls for every new checkpoint: the first one
// after each multiple of --knn-every epochs, from the one that the run goes on
// from (nil: the start), is evaluated beside the training, on one thread. The
// last one is left to Trained.
func (e *Evaluator) Saved(ctx context.Context, from *checkpoint.State) func(path string, step int64, epoch int) {
	if e.off {
		return func(string, int64, int) {}
	}
	every, done := e.Job.EvaluateEvery(), 0 // multiples of it evaluated
	if from != nil {
		done = from.Epoch / every
	}
	return func(path string, step int64, epoch int) {
		n := epoch / every
		if n <= done || epoch >= e.Job.Epochs || e.Job.Steps > 0 && step >= e.Job.Steps {
			return
		}
		done = n
		when := fmt.Sprintf("after epoch %d", epoch)
		f, err := os.Open(path)
		if err != nil {
			e.Say("the encoder %s is not evaluated: %v", when, err)
			return
		}
		e.later(ctx, due{f, when})
	}
}

// later evaluates a checkpoint when those before it have been.
func (e *Evaluator) later(ctx context.Context, d due) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting = append(e.waiting, d); len(e.waiting) > mostDue {
		e.Say("the encoder %s is not evaluated: %d others wait", e.waiting[0].when, mostDue)
		_ = e.waiting[0].file.Close() // it was only to be read
		e.waiting = e.waiting[1:]
	}
	if e.running {
		return
	}
	e.running = true
	e.wg.Go(func() {
		for d, any := e.take(); any; d, any = e.take() {
			if err := e.measure(ctx, d); err != nil && ctx.Err() == nil {
				e.Say("the encoder %s was not evaluated: %v", d.when, err)
			}
		}
	})
}

// take is the checkpoint whose turn it is; false ends the turns.
func (e *Evaluator) take() (d due, any bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running = len(e.waiting) > 0; !e.running {
		return d, false
	}
	d, e.waiting = e.waiting[0], e.waiting[1:]
	return d, true
}

// measure reads a checkpoint only now that it is evaluated: it may be large.
func (e *Evaluator) measure(ctx context.Context, d due) error {
	defer d.file.Close()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	st, err := checkpoint.Read(d.file)
	if err != nil {
		return err
	}
	return e.evaluate(ctx, d.when, 1, st)
}

// Wait waits for the evaluations that Saved has begun.
func (e *Evaluator) Wait() {
	e.wg.Wait()
}

// evaluate measures the encoders of a checkpoint, nil for the initial ones.
func (e *Evaluator) evaluate(ctx context.Context, when string, threads int, st *checkpoint.State) error {
	e.busy.Lock()
	defer e.busy.Unlock()
	net, err := e.Job.Network()
	if err != nil {
		return err
	}
	if st == nil {
		st = InitialState(e.Job, net)
	}
	enc, err := OpenEncoders(e.Engine, engine.Config{Precision: engine.FP32, Threads: threads, Device: e.Device}, net, st)
	if err != nil {
		return err
	}
	defer enc.Close()
	if e.Job.Supervised {
		return e.accuracy(ctx, enc, when)
	}
	if e.Set.NoKNN() == "" {
		if err := e.knn(ctx, enc, when); err != nil {
			return err
		}
	}
	return e.geometry(ctx, enc, when)
}

// accuracy measures a supervised network and logs it.
func (e *Evaluator) accuracy(ctx context.Context, enc *Encoders, when string) error {
	if e.Set.NoKNN() != "" {
		return nil
	}
	r, err := enc.Accuracy(ctx, e.Set, nil)
	if err != nil {
		return err
	}
	e.Say("accuracy %s (step %d): top-1 %.2f %%, top-5 %.2f %%  (%d test images)", when, enc.from.Step, 100*r.Top1, 100*r.Top5, r.Test)
	return e.Event(accuracyMeasured{state: stateOf(enc.from, when), AccuracyResult: r})
}

// geometry looks where the encoder puts images, and logs it.
func (e *Evaluator) geometry(ctx context.Context, enc *Encoders, when string) error {
	st := enc.from
	r, err := enc.Geometry(ctx, e.Set, GeometryOptions{
		Job: e.Job, Images: GeometryImages, MoCHi: e.Job.MoCHi, Oracle: e.Job.Oracle, Seed: e.Job.Seed,
	})
	if err != nil {
		return err
	}
	r.SpreadOf = nil // too long for a log
	e.Say("geometry %s (step %d): alignment %.3f, uniformity %.3f, proxy %.1f %%, with synthetic negatives %.1f %%, spread %.2f  (%s)",
		when, st.Step, r.Alignment, r.Uniformity, 100*r.Proxy, 100*r.ProxyHard, r.Spread, cli.Count(r.Images, r.Split+" image"))
	return e.Event(geometryMeasured{state: stateOf(st, when), GeometryResult: r})
}

// knn measures both features and logs one event, its unmarked figures those of
// the backbone.
func (e *Evaluator) knn(ctx context.Context, enc *Encoders, when string) error {
	results, leaks, err := enc.KNN(ctx, e.Set, KNNOptions{
		K: []int{cmp.Or(e.K, eval.DefaultK)}, Free: e.K == 0, Temperature: []float64{eval.DefaultTemperature}, Features: []eval.Feature{eval.Backbone, eval.Embedding}, Train: e.Images,
	})
	if err != nil {
		return err
	}
	st, r, head := enc.from, results[0], results[1]
	leaked := ""
	if leaks.Leaked > 0 {
		leaked = fmt.Sprintf("; %s among the training images too, byte for byte", cli.Plural(leaks.Leaked, "test image is", "test images are"))
	}
	e.Say("kNN %s (step %d): top-1 %.2f %%, top-5 %.2f %%  (k=%d, backbone features, %d train and %s); embedding top-1 %.2f %%%s",
		when, st.Step, 100*r.Top1, 100*r.Top5, r.K, r.Train, cli.Count(r.Test, "test image"), 100*head.Top1, leaked)
	measured := knnMeasured{state: stateOf(st, when), KNNResult: r, EmbeddingTop1: head.Top1, EmbeddingTop5: head.Top5}
	if st.Probe != nil {
		if measured.ProbeTop1, err = enc.probeTop1(ctx, e.Set); err != nil {
			return err
		}
		e.Say("probe %s (step %d): top-1 %.2f %%  (%d test images)", when, st.Step, 100*measured.ProbeTop1, r.Test)
	}
	return e.Event(measured)
}
