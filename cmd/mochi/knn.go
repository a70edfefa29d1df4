package main

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

// knnResult is the JSON object of mochi eval knn.
type knnResult struct {
	Top1    float64 `json:"knn_top1"`
	Top5    float64 `json:"knn_top5"`
	Train   int     `json:"train"`
	Test    int     `json:"test"`
	Feature string  `json:"feature"`
}

type knnOptions struct {
	k           int
	temperature float64
	feature     string
	train, test int // 0 = all
	progress    io.Writer
	corrupt     func(*data.CorruptError)
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

// knn evaluates the query encoder of state on a labelled data set with a test
// split.
func knn(ctx context.Context, eng engine.Engine, state engine.State, set *data.Set, o knnOptions) (knnResult, error) {
	r := knnResult{Feature: o.feature}
	feature := eval.Feature(o.feature)
	net := state.Network()
	dim, err := feature.Len(net)
	if err != nil {
		return r, err
	}
	prog, err := state.Compile(engine.Spec{Encoder: engine.Query, Batch: evalBatch, Mode: engine.Eval})
	if err != nil {
		return r, err
	}
	defer prog.Close()
	worker := augment.NewWorker(augment.Eval(net.ImageSize))
	decoder := data.NewDecoder()
	defer decoder.Close()
	extract := func(name string, ds data.Dataset) ([]float32, []int32, error) {
		start, last := time.Now(), time.Now()
		size := 3 * net.ImageSize * net.ImageSize
		images := func(first, count int, dst []float32) error {
			for i := range count {
				img, err := ds.Decode(first+i, decoder)
				if err != nil {
					return err
				}
				worker.View(img, nil, dst[i*size:(i+1)*size])
			}
			return nil
		}
		f, err := eval.Features(ctx, prog, net, feature, ds.Len(), images, func(done int) {
			if o.progress != nil && (time.Since(last) > 2*time.Second || done == ds.Len()) {
				last = time.Now()
				fmt.Fprintf(o.progress, "features of the %s images: %d/%d, %.0f images/s\n", name, done, ds.Len(), float64(done)/time.Since(start).Seconds())
			}
		})
		if err != nil {
			return nil, nil, fmt.Errorf("features of the %s images: %w", name, err)
		}
		labels := make([]int32, ds.Len())
		for i := range labels {
			labels[i] = ds.Label(i)
		}
		return f, labels, nil
	}
	train, test := limit(set.Train, o.train, o.corrupt), limit(set.Test, o.test, o.corrupt)
	trainF, trainL, err := extract("training", train)
	if err != nil {
		return r, err
	}
	testF, testL, err := extract("test", test)
	if err != nil {
		return r, err
	}
	r.Train, r.Test = train.Len(), test.Len()
	r.Top1, r.Top5 = eval.KNN(eng.Products(), trainF, trainL, testF, testL, dim, set.Train.Classes(), o.k, o.temperature)
	return r, nil
}
