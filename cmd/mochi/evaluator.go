package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"mochi/coordinator/protocol"
	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/model/network"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
)

// evaluator measures kNN accuracy during a run, with an engine of its own.
type evaluator struct {
	cfg    protocol.Config
	set    *data.Set
	rec    *recorder
	engine string

	busy sync.Mutex // one evaluation at a time
	wg   sync.WaitGroup
}

// newEvaluator returns nil where there is nothing to evaluate on.
func newEvaluator(cfg protocol.Config, set *data.Set, engineName string, rec *recorder) *evaluator {
	if cfg.KNNEvery == 0 || notEvaluated(set) != "" {
		return nil
	}
	return &evaluator{cfg: cfg, set: set, rec: rec, engine: engineName}
}

// notEvaluated says why kNN accuracy cannot be measured on a data set, "" when
// it can.
func notEvaluated(set *data.Set) string {
	switch {
	case set == nil:
		return "no data set here (--data)"
	case set.Test == nil:
		return "the data set has no test split (a val or test folder beside train)"
	case set.Train.Classes() == 0:
		return "the data set has no labels"
	case set.Train.Classes() == 1:
		return "the data set has one class only"
	}
	return ""
}

// untrained evaluates the initial encoder, on all cores.
func (e *evaluator) untrained(ctx context.Context) error {
	if e == nil {
		return nil
	}
	return e.evaluate(ctx, "before training", 0, runtime.NumCPU(), nil)
}

// trained evaluates the newest checkpoint of a run that is over, on all cores.
func (e *evaluator) trained(ctx context.Context, s *store) error {
	if e == nil {
		return nil
	}
	found, err := checkpoint.Latest(s.dir)
	if err != nil {
		return err
	}
	return e.evaluate(ctx, "after training", found.State.Step, runtime.NumCPU(), found.State)
}

// saved returns what a store calls for every new checkpoint: the first one
// after each multiple of --knn-every epochs, from the one that the run goes on
// from (nil: the start), is evaluated beside the training, on one thread. The
// last one is left to trained.
func (e *evaluator) saved(ctx context.Context, from *checkpoint.State) func(st *checkpoint.State) {
	if e == nil {
		return nil
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
			if err := e.evaluate(ctx, when, st.Step, 1, st); err != nil && ctx.Err() == nil {
				e.rec.progress.say("kNN %s not measured: %v", when, err)
			}
		})
	}
}

func (e *evaluator) wait() {
	if e != nil {
		e.wg.Wait()
	}
}

// evaluate measures the query encoder of a checkpoint, nil for the initial one.
func (e *evaluator) evaluate(ctx context.Context, when string, step int64, threads int, st *checkpoint.State) error {
	e.busy.Lock()
	defer e.busy.Unlock()
	net, err := network.Build(e.cfg.Arch, network.Options{Channels: 3, ImageSize: e.cfg.ImageSize, Dim: e.cfg.Dim, Head: e.cfg.Head})
	if err != nil {
		return err
	}
	eng, _, err := openEngine(e.engine, engine.Config{Precision: engine.FP32, Threads: threads})
	if err != nil {
		return err
	}
	defer eng.Close()
	state, err := eng.NewState(net)
	if err != nil {
		return err
	}
	defer state.Close()
	if st == nil {
		params, buffers := net.Init(e.cfg.Seed)
		st = &checkpoint.State{QueryParams: params, QueryBuffers: buffers}
	}
	state.Set(engine.QueryParams, st.QueryParams)
	state.Set(engine.QueryBuffers, st.QueryBuffers)
	r, err := knn(ctx, eng, state, e.set, knnOptions{k: eval.DefaultK, temperature: eval.DefaultTemperature, feature: string(eval.Backbone)})
	if err != nil {
		return err
	}
	e.rec.progress.say("kNN %s (step %d): top-1 %.2f %%, top-5 %.2f %%  (k=%d, backbone features, %d train and %d test images)",
		when, step, 100*r.Top1, 100*r.Top5, min(eval.DefaultK, r.Train), r.Train, r.Test)
	return e.rec.dir.event("knn", map[string]any{
		"step": step, "when": when, "knn_top1": r.Top1, "knn_top5": r.Top5, "train": r.Train, "test": r.Test, "feature": r.Feature,
	})
}
