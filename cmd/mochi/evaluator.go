package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"

	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
)

// evaluatorOptions say what an evaluator measures, and where that goes.
type evaluatorOptions struct {
	cfg    config.Job
	set    *data.Set // nil: no data set here, nothing is measured
	engine string    // --engine
	device int       // GPU number
	images int       // training images that vote in kNN at most, 0 = all

	say   func(format string, args ...any)               // shows a line
	event func(name string, fields map[string]any) error // writes one to log.jsonl
}

// evaluator measures kNN accuracy and geometry during a run, with an engine of
// its own.
type evaluator struct {
	evaluatorOptions
	off bool // no --knn-every, or no data set here: all methods do nothing

	busy sync.Mutex // one evaluation at a time
	wg   sync.WaitGroup
}

func newEvaluator(o evaluatorOptions) *evaluator {
	return &evaluator{evaluatorOptions: o, off: o.cfg.KNNEvery == 0 || o.set == nil}
}

// untrained evaluates the initial encoder, on all cores.
func (e *evaluator) untrained(ctx context.Context) error {
	if e.off {
		return nil
	}
	return e.evaluate(ctx, "before training", runtime.NumCPU(), nil)
}

// trained evaluates the newest checkpoint in the folder of a run that is over,
// on all cores.
func (e *evaluator) trained(ctx context.Context, dir string) error {
	if e.off {
		return nil
	}
	found, err := checkpoint.Latest(dir)
	if err != nil {
		return err
	}
	return e.evaluate(ctx, "after training", runtime.NumCPU(), found.State)
}

// saved returns what a store calls for every new checkpoint: the first one
// after each multiple of --knn-every epochs, from the one that the run goes on
// from (nil: the start), is evaluated beside the training, on one thread. The
// last one is left to trained.
func (e *evaluator) saved(ctx context.Context, from *checkpoint.State) func(st *checkpoint.State) {
	if e.off {
		return func(*checkpoint.State) {}
	}
	done := 0 // multiples of KNNEvery evaluated
	if from != nil {
		done = from.Epoch / e.cfg.KNNEvery
	}
	return func(st *checkpoint.State) {
		due := st.Epoch / e.cfg.KNNEvery
		if due <= done || st.Epoch >= e.cfg.Epochs || e.cfg.Steps > 0 && st.Step >= e.cfg.Steps {
			return
		}
		done = due
		e.wg.Go(func() {
			when := fmt.Sprintf("after epoch %d", st.Epoch)
			if err := e.evaluate(ctx, when, 1, st); err != nil && ctx.Err() == nil {
				e.say("the encoder %s was not evaluated: %v", when, err)
			}
		})
	}
}

// wait waits for the evaluations that saved has begun.
func (e *evaluator) wait() {
	e.wg.Wait()
}

// evaluate measures the encoders of a checkpoint, nil for the initial ones.
func (e *evaluator) evaluate(ctx context.Context, when string, threads int, st *checkpoint.State) error {
	e.busy.Lock()
	defer e.busy.Unlock()
	net, err := e.cfg.Network()
	if err != nil {
		return err
	}
	if st == nil {
		st = initialState(e.cfg, net)
	}
	enc, err := openEncoders(e.engine, engine.Config{Precision: engine.FP32, Threads: threads, Device: e.device}, net, st)
	if err != nil {
		return err
	}
	defer enc.close()
	if e.set.NoKNN() == "" {
		if err := e.knn(ctx, enc.engine, enc.state, st, when); err != nil {
			return err
		}
	}
	r, err := geometry(ctx, enc.engine, enc.state, st, e.cfg, e.set, geometryOptions{
		images: geometryImages, mochi: e.cfg.MoCHi, oracle: e.cfg.Oracle, seed: e.cfg.Seed,
	})
	if err != nil {
		return err
	}
	r.SpreadOf = nil // too long for a log
	e.say("geometry %s (step %d): alignment %.3f, uniformity %.3f, proxy %.1f %%, with synthetic negatives %.1f %%, spread %.2f  (%d %s images)",
		when, st.Step, r.Alignment, r.Uniformity, 100*r.Proxy, 100*r.ProxyHard, r.Spread, r.Images, r.Split)
	return e.log("geometry", when, st, r)
}

// knn measures both features and logs one event, its unmarked figures those of
// the backbone.
func (e *evaluator) knn(ctx context.Context, eng engine.Engine, state engine.State, st *checkpoint.State, when string) error {
	results, err := knn(ctx, eng, state, e.set, knnOptions{
		k: eval.DefaultK, temperature: eval.DefaultTemperature, features: []eval.Feature{eval.Backbone, eval.Embedding}, train: e.images,
	})
	if err != nil {
		return err
	}
	r, head := results[0], results[1]
	e.say("kNN %s (step %d): top-1 %.2f %%, top-5 %.2f %%  (k=%d, backbone features, %d train and %d test images); embedding top-1 %.2f %%",
		when, st.Step, 100*r.Top1, 100*r.Top5, min(eval.DefaultK, r.Train), r.Train, r.Test, 100*head.Top1)
	return e.log("knn", when, st, struct {
		knnResult
		Top1 float64 `json:"knn_top1_embedding"`
		Top5 float64 `json:"knn_top5_embedding"`
	}{r, head.Top1, head.Top5})
}

// log writes a result of the state st to log.jsonl.
func (e *evaluator) log(name, when string, st *checkpoint.State, result any) error {
	text, err := json.Marshal(result)
	if err != nil {
		return err
	}
	fields := map[string]any{"step": st.Step, "epoch": st.Epoch, "when": when}
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	return e.event(name, fields)
}
