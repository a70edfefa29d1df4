package evaluate

import (
	"context"
	"fmt"
	"io"
	"time"

	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/replica/augment"
	"mochi/replica/data"
)

// KNNResult is the JSON object of mochi eval knn.
type KNNResult struct {
	Top1    float64 `json:"knn_top1"` // accuracy, 0…1
	Top5    float64 `json:"knn_top5"` // the class is one of the first five
	Train   int     `json:"train"`    // training images that vote
	Test    int     `json:"test"`     // test images that are classified
	Feature string  `json:"feature"`  // backbone or embedding
}

// KNNOptions say what to classify, and how.
type KNNOptions struct {
	K           int
	Temperature float64
	Features    []eval.Feature
	Train, Test int // 0 = all
	Progress    io.Writer
	Corrupt     func(*data.CorruptError)
}

// limit takes at most n samples (0 = all), replacing those that cannot be
// decoded as in training.
func limit(ds data.Dataset, n int, corrupt func(*data.CorruptError)) data.Dataset {
	if n > 0 {
		ds = data.Limit(ds, n)
	}
	return data.NewLenient(ds, corrupt)
}

// evalBatch is how many images one evaluation program takes.
const evalBatch = 100

// KNN evaluates the query encoder on a labelled data set with a test
// split: one result for each of the features, all of one pass over the images.
func (e *Encoders) KNN(ctx context.Context, set *data.Set, o KNNOptions) ([]KNNResult, error) {
	net := e.state.Network()
	prog, err := e.state.Compile(engine.Spec{Encoder: engine.Query, Batch: evalBatch, Mode: engine.Eval})
	if err != nil {
		return nil, err
	}
	defer prog.Close()
	extract := func(name string, ds data.Dataset) ([]eval.Labelled, error) {
		start, last := time.Now(), time.Now()
		images, done := viewer(ds, augment.Eval(net.ImageSize), nil)
		defer done()
		f, err := eval.Features(ctx, prog, net, o.Features, eval.Images{N: ds.Len(), Fill: images, Progress: func(done int) {
			if o.Progress != nil && (time.Since(last) > 2*time.Second || done == ds.Len()) {
				last = time.Now()
				fmt.Fprintf(o.Progress, "features of the %s images: %d/%d, %.0f images/s\n", name, done, ds.Len(), float64(done)/time.Since(start).Seconds())
			}
		}})
		if err != nil {
			return nil, fmt.Errorf("features of the %s images: %w", name, err)
		}
		labels := make([]int32, ds.Len())
		for i := range labels {
			labels[i] = ds.Label(i)
		}
		of := make([]eval.Labelled, len(f))
		for i := range f {
			of[i] = eval.Labelled{Features: f[i], Labels: labels}
		}
		return of, nil
	}
	train, test := limit(set.Train, o.Train, o.Corrupt), limit(set.Test, o.Test, o.Corrupt)
	trainOf, err := extract("training", train)
	if err != nil {
		return nil, err
	}
	testOf, err := extract("test", test)
	if err != nil {
		return nil, err
	}
	var results []KNNResult
	for i, feature := range o.Features {
		dim, err := feature.Len(net)
		if err != nil {
			return nil, err
		}
		r := KNNResult{Train: train.Len(), Test: test.Len(), Feature: string(feature)}
		r.Top1, r.Top5 = eval.KNN(e.engine.Products(), dim, trainOf[i], testOf[i], eval.Vote{Classes: set.Train.Classes(), K: o.K, Temperature: o.Temperature})
		results = append(results, r)
	}
	return results, nil
}
