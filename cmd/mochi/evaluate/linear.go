package evaluate

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"mochi/model/engine"
	"mochi/model/engine/cpu"
	"mochi/model/eval"
	"mochi/model/probe"
	"mochi/replica/augment"
	"mochi/replica/data"
)

// LinearResult is the JSON object of mochi eval linear for one checkpoint and seed.
type LinearResult struct {
	Checkpoint string  `json:"checkpoint"`
	Protocol   string  `json:"protocol"`
	Feature    string  `json:"feature"`    // backbone or embedding
	Top1       float64 `json:"top1"`       // of the last epoch, on the test images
	Top5       float64 `json:"top5"`       // the class is one of the first five
	Top1Best   float64 `json:"top1_best"`  // of the best epoch, which is chosen on the test images
	BestEpoch  int     `json:"best_epoch"` // counted from 1; 0 of a regression
	LR         float64 `json:"lr,omitempty"`
	L2         float64 `json:"l2,omitempty"` // penalty: l2/2·‖W‖² beside the mean loss
	Epochs     int     `json:"epochs"`
	Views      int     `json:"views"` // augmented ones of each training image that are kept: 0 = none
	Fresh      bool    `json:"fresh"` // new augmented views in every epoch
	Classes    int     `json:"classes"`
	Train      int     `json:"train"`
	Test       int     `json:"test"`
	LeftOut    int     `json:"left_out"`  // images that cannot be decoded
	Unlabeled  int     `json:"unlabeled"` // images without a class of the training images
	Seed       uint64  `json:"seed"`

	HeldOut int           `json:"held_out"` // training images on which was chosen
	Tried   []probe.Trial `json:"tried,omitempty"`

	Rate    float64 `json:"extract_images_per_s"` // 0: all features came from the cache
	Seconds float64 `json:"seconds"`
}

// LinearOptions say how to train a linear classifier, and on what.
type LinearOptions struct {
	Recipe      probe.Recipe
	Feature     eval.Feature
	Views       int // augmented views to keep; 0: none
	Train, Test int // images, evenly spaced; 0 = all
	PerClass    int // training images of each class; 0 = all
	Seed        uint64
	Cache       *Cache // nil: features stay in memory
	Plain       bool   // the training images' plain features are wanted, too
	Progress    io.Writer
	Corrupt     func(*data.CorruptError)
}

// Linear is one evaluation with what a report shows of it.
type Linear struct {
	LinearResult
	Leaks
	set         *data.Set
	train, test *extracted // train: nil, or of the plain view
	dim         int
	logits      []float32 // [test, classes]
}

// linear is an evaluation in hand.
type linear struct {
	*Encoders
	LinearOptions
	set          *data.Set
	x            *extractor
	seen         int // images that went through the encoder
	seenFor      time.Duration
	toldOfFaults bool
}

// Linear trains a linear classifier on frozen features of the query encoder, in
// evaluation mode, and tests it.
func (e *Encoders) Linear(ctx context.Context, set *data.Set, o LinearOptions) (*Linear, error) {
	start := time.Now()
	x, err := e.extractor(engine.Query, o.Feature)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	l := linear{Encoders: e, LinearOptions: o, set: set, x: x}
	team := cpu.NewTeam(e.Threads())
	defer team.Close()

	trainOf, without := labelled(all(set.Train, o.Train).perClass(o.PerClass, o.Seed))
	testOf, withoutTest := labelled(all(set.Test, o.Test))
	r := &Linear{set: set, dim: x.lengths[0], LinearResult: LinearResult{
		Protocol: o.Recipe.Name, Feature: string(o.Feature), Epochs: o.Recipe.Epochs, Views: o.Views, Seed: o.Seed,
		Classes: set.Train.Classes(), Unlabeled: without + withoutTest,
	}}
	if r.test, err = l.features(ctx, "test", testOf, plain(x.net.image)); err != nil {
		return nil, err
	}
	r.Test, r.LeftOut = len(r.test.samples), r.test.leftOut
	task := probe.Task{Team: team, Seed: o.Seed, Test: l.data(r.test, r.Classes), Progress: l.heads()}

	r.Fresh = o.Recipe.Augmented && o.Views == 0
	if o.Plain || o.Recipe.Regression || len(o.Recipe.Rates) > 1 || !r.Fresh && o.Views == 0 {
		if r.train, err = l.features(ctx, "training", trainOf, plain(x.net.image)); err != nil {
			return nil, err
		}
		held := l.data(r.train, r.Classes)
		task.Held = &held
	}
	var outcome *probe.Outcome
	switch {
	case o.Recipe.Regression:
		outcome, err = probe.Regress(ctx, task)
		r.Train = len(r.train.samples)
		r.LeftOut += r.train.leftOut
	case r.Fresh:
		task.Epoch = l.fresh(trainOf, &r.LinearResult)
		outcome, err = o.Recipe.Train(ctx, task)
	default:
		views, left, problem := l.views(ctx, trainOf, r.train, r.Classes)
		if problem != nil {
			return nil, problem
		}
		r.Train, r.LeftOut = views[0].Len(), r.LeftOut+left
		task.Epoch = probe.Cached(views, o.Seed)
		outcome, err = o.Recipe.Train(ctx, task)
	}
	if err != nil {
		return nil, err
	}
	r.Top1, r.Top5, r.Top1Best, r.BestEpoch = outcome.Final.Top1, outcome.Final.Top5, outcome.Best.Top1, outcome.BestEpoch
	r.LR, r.L2, r.Tried, r.HeldOut, r.logits = outcome.Rate, outcome.L2, outcome.Tried, outcome.HeldOut, outcome.Logits
	if r.train != nil {
		r.Leaks = leaks(set, r.train, r.test)
	}
	if l.seen > 0 {
		r.Rate = float64(l.seen) / l.seenFor.Seconds()
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

// labelled drops the samples without a class, and counts them.
func labelled(s samples) (samples, int) {
	kept := samples{of: s.of}
	for _, i := range s.at {
		if s.of.Label(i) >= 0 {
			kept.at = append(kept.at, i)
		}
	}
	return kept, len(s.at) - len(kept.at)
}

// data is features as a classifier takes them.
func (l *linear) data(e *extracted, classes int) probe.Data {
	return probe.Data{X: e.features[0], Labels: e.labels, Dim: l.x.lengths[0], Classes: classes}
}

// watch counts what goes through the encoder. Images that cannot be decoded are told
// of once, not again for each view.
func (l *linear) watch(name string, once bool) watch {
	w := watch{progress: told(l.Progress, name)}
	if !once {
		w.corrupt = l.Corrupt
	}
	return w
}

// features are those of a view, from an evaluation with another seed where that had
// the same.
func (l *linear) features(ctx context.Context, name string, s samples, v view) (*extracted, error) {
	if v.draw != nil {
		return l.extract(ctx, name, s, v)
	}
	h := fnv.New64a()
	for _, i := range s.at {
		h.Write([]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)})
	}
	of := fmt.Sprintf("%s %s %p %x", v.name, l.x.features[0], l.set, h.Sum64())
	if k := l.kept[name]; k.of == of {
		return k.extracted, nil
	}
	e, err := l.extract(ctx, name, s, v)
	if err == nil {
		l.kept[name] = keptFeatures{of, e}
	}
	return e, err
}

// extract gives the features of a view, from the cache as far as they are there.
func (l *linear) extract(ctx context.Context, name string, s samples, v view) (*extracted, error) {
	e := &extracted{features: [][]float32{make([]float32, 0, len(s.at)*l.x.lengths[0])}}
	done := 0
	keep := func(r rows) error { return nil }
	var st *store
	if l.Cache != nil {
		o, err := l.originOf(l.x, s, v, l.set.Info.JPEG, l.Cache)
		if err != nil {
			return nil, err
		}
		if st, done, err = l.Cache.open(o, e); err != nil {
			return nil, err
		}
		defer st.Close()
		keep = st.add
		if done > 0 && l.Progress != nil {
			fmt.Fprintf(l.Progress, "features of %d of %d %s images are in the cache\n", done, len(s.at), name)
		}
	}
	start := time.Now()
	err := l.x.run(ctx, samples{s.of, s.at[done:]}, v, l.watch(name, l.toldOfFaults && name == "training"), func(r rows) error {
		if err := keep(r); err != nil {
			return err
		}
		e.features[0] = append(e.features[0], r.features[0]...)
		e.samples, e.hashes = append(e.samples, r.samples...), append(e.hashes, r.hashes...)
		e.leftOut += r.tried - len(r.samples)
		l.seen += r.tried
		return nil
	})
	l.seenFor += time.Since(start)
	if err == nil && st != nil {
		err = st.finish()
	}
	if err == nil && len(e.samples) == 0 {
		err = fmt.Errorf("none of %d can be decoded", len(s.at))
	}
	if err != nil {
		return nil, fmt.Errorf("features of the %s images: %w", name, err)
	}
	for _, i := range e.samples {
		e.labels = append(e.labels, s.of.Label(i))
	}
	l.toldOfFaults = l.toldOfFaults || name == "training"
	return e, nil
}

// cropFlip is augmented view number n.
func cropFlip(size int, seed uint64, n int) view {
	return view{
		name: fmt.Sprintf("crop and flip to %d, seed %d, view %d", size, seed, n), recipe: augment.CropFlip(size),
		draw: func(i int) *rand.Rand { return augment.Seed(seed, n, i, augment.QueryView) },
	}
}

// views are those that epochs go through in turn: the plain one, or augmented ones.
func (l *linear) views(ctx context.Context, s samples, plain *extracted, classes int) (views []probe.Data, leftOut int, err error) {
	if l.Views == 0 {
		return []probe.Data{l.data(plain, classes)}, plain.leftOut, nil
	}
	var first *extracted
	for n := range l.Views {
		e, err := l.features(ctx, "training", s, cropFlip(l.x.net.image, l.Seed, n))
		if err != nil {
			return nil, 0, err
		}
		if first == nil {
			if first = e; plain != nil && !slices.Equal(plain.samples, e.samples) {
				return nil, 0, errors.New("an image could be decoded once and not again: something changes the training images")
			}
		}
		if !slices.Equal(e.samples, first.samples) {
			return nil, 0, errors.New("an image could be decoded once and not again: something changes the training images")
		}
		views = append(views, l.data(e, classes))
	}
	return views, first.leftOut, nil
}

// fresh is an Epoch that decodes, crops and flips every image anew, in the order in
// which the head sees them.
func (l *linear) fresh(s samples, r *LinearResult) func(context.Context, int, func(int) bool, func([]float32, []int32)) error {
	counted := false
	return func(ctx context.Context, epoch int, _ func(int) bool, feed func([]float32, []int32)) error {
		order := probe.Order(len(s.at), l.Seed, epoch)
		at := make([]int, len(order))
		for i, j := range order {
			at[i] = s.at[j]
		}
		start, kept := time.Now(), 0
		labels := make([]int32, 0, evalBatch)
		w := watch{progress: told(l.Progress, fmt.Sprintf("training (epoch %d)", epoch+1))}
		if !l.toldOfFaults {
			w.corrupt = l.Corrupt
		}
		err := l.x.run(ctx, samples{s.of, at}, cropFlip(l.x.net.image, l.Seed, epoch), w, func(b rows) error {
			labels = labels[:0]
			for _, i := range b.samples {
				labels = append(labels, s.of.Label(i))
			}
			kept += len(b.samples)
			feed(b.features[0], labels)
			return nil
		})
		l.seen, l.seenFor, l.toldOfFaults = l.seen+len(at), l.seenFor+time.Since(start), true
		if err == nil && kept == 0 {
			err = fmt.Errorf("none of %d training images can be decoded", len(at))
		}
		if !counted {
			counted, r.Train, r.LeftOut = true, kept, r.LeftOut+len(at)-kept
		}
		return err
	}
}

// heads tells how far the classifiers are, now and then.
func (l *linear) heads() func(epoch, of int, what string) {
	if l.Progress == nil {
		return nil
	}
	last, start, doing := time.Now(), time.Now(), ""
	return func(epoch, of int, what string) {
		if what != doing {
			start, doing = time.Now(), what
		}
		if epoch < of && time.Since(last) < 2*time.Second {
			return
		}
		last = time.Now()
		left := time.Duration(float64(time.Since(start)) / float64(epoch) * float64(of-epoch)).Round(time.Second)
		fmt.Fprintf(l.Progress, "%s: %d/%d, %v left\n", what, epoch, of, left)
	}
}
