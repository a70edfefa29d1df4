package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"mochi/coordinator/protocol"
	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/model/network"
	"mochi/replica/augment"
	"mochi/replica/checkpoint"
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

func runEvalKNN(args []string, out, errs io.Writer) error {
	fs := newFlags("eval knn", "weighted k-nearest-neighbour accuracy of frozen features (Wu et al. 2018)",
		"mochi eval knn --checkpoint runs/first/checkpoints/latest.safetensors --data fashion-mnist --json\n  mochi eval knn --checkpoint random:resnet20 --data fashion-mnist --image-size 28", out)
	path := fs.String("checkpoint", "", "`FILE`, or random:ARCH for an untrained encoder")
	dataPath := fs.String("data", "", "labelled data set with a test split (see mochi train --help)")
	k := fs.Int("k", 200, "neighbours")
	temp := fs.Float64("kernel-temperature", 0.1, "votes weigh exp(similarity/`T`)")
	feature := fs.String("feature", "backbone", "backbone (after global pooling) or embedding (after the head)")
	size := fs.Int("image-size", 0, "pixels, for random:ARCH; 0 = the data set's own size, at most 224")
	head := fs.String("head", "linear", "head, for random:ARCH")
	seed := fs.Uint64("seed", 1, "seed, for random:ARCH")
	limitTrain := fs.Int("limit-train", 0, "use only `N` evenly spaced training images; 0 = all")
	limitTest := fs.Int("limit-test", 0, "use only `N` evenly spaced test images; 0 = all")
	engineName := fs.String("engine", "auto", "`E`: auto, gorgonia, onednn, cuda")
	threads := fs.Int("threads", 0, "compute threads; 0 = all cores")
	asJSON := fs.Bool("json", false, "print one JSON object")
	if _, err := parse(fs, args, 0); err != nil {
		return err
	}
	var faults protocol.Faults
	if *path == "" {
		faults = append(faults, protocol.Fault{Field: "checkpoint", Problem: "missing: a FILE or random:ARCH"})
	}
	if *dataPath == "" {
		faults = append(faults, protocol.Fault{Field: "data", Problem: "missing: a path or fashion-mnist"})
	}
	if *k < 1 {
		faults = append(faults, protocol.Fault{Field: "k", Problem: "must be at least 1"})
	}
	if !(*temp > 0) {
		faults = append(faults, protocol.Fault{Field: "kernel-temperature", Problem: "must be above 0"})
	}
	if *feature != "backbone" && *feature != "embedding" {
		faults = append(faults, protocol.Fault{Field: "feature", Problem: fmt.Sprintf("%q: one of backbone, embedding", *feature)})
	}
	if len(faults) > 0 {
		return usageError{faults}
	}
	set, err := data.Open(*dataPath)
	if err != nil {
		return err
	}
	fmt.Fprintln(errs, set.Announce)

	var st *checkpoint.State
	var net *network.Network
	arch, random := strings.CutPrefix(*path, "random:")
	if random {
		if *size == 0 {
			if *size, err = naturalSize(set.Train); err != nil {
				return err
			}
		}
		net, err = network.Build(arch, network.Options{Channels: 3, ImageSize: *size, Dim: 128, Head: *head})
		if err != nil {
			return usageError{err}
		}
	} else {
		if st, net, err = loadCheckpoint(*path); err != nil {
			return err
		}
	}
	eng, why, err := openEngine(*engineName, engine.Config{Precision: engine.FP32, Threads: *threads})
	if err != nil {
		return err
	}
	defer eng.Close()
	fmt.Fprintln(errs, why)
	state, err := eng.NewState(net)
	if err != nil {
		return err
	}
	defer state.Close()
	if random {
		params, buffers := net.Init(*seed)
		state.Set(engine.QueryParams, params)
		state.Set(engine.QueryBuffers, buffers)
	} else {
		state.Set(engine.QueryParams, st.QueryParams)
		state.Set(engine.QueryBuffers, st.QueryBuffers)
	}
	result, err := knn(context.Background(), eng, state, set, knnOptions{
		k: *k, temperature: *temp, feature: *feature, train: *limitTrain, test: *limitTest, progress: errs,
		corrupt: func(e *data.CorruptError) { fmt.Fprintf(errs, "replaced a corrupt image: %v\n", e) },
	})
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(out, result)
	}
	fmt.Fprintf(out, "kNN top-1 %.2f %%, top-5 %.2f %% (k=%d, %s features, %d train, %d test images)\n",
		100*result.Top1, 100*result.Top5, *k, result.Feature, result.Train, result.Test)
	return nil
}

// loadCheckpoint reads a checkpoint and builds its network from the
// configuration it carries.
func loadCheckpoint(path string) (*checkpoint.State, *network.Network, error) {
	st, err := checkpoint.Load(path)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := protocol.ParseConfig([]byte(st.Config))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: its config: %w", path, err)
	}
	net, err := network.Build(cfg.Arch, network.Options{Channels: 3, ImageSize: cfg.ImageSize, Dim: cfg.Dim, Head: cfg.Head})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := st.Matches(net, cfg.Queue, cfg.Dim); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return st, net, nil
}

// naturalSize is the height of the first image, at most 224.
func naturalSize(ds data.Dataset) (int, error) {
	img, err := ds.Decode(0)
	if err != nil {
		return 0, err
	}
	return min(img.W, img.H, 224), nil
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

// knn evaluates the query encoder of state.
func knn(ctx context.Context, eng engine.Engine, state engine.State, set *data.Set, o knnOptions) (knnResult, error) {
	r := knnResult{Feature: o.feature}
	if set.Test == nil {
		return r, fmt.Errorf("the data set has no test split (a val or test folder beside train): kNN needs one")
	}
	if set.Train.Classes() == 0 {
		return r, fmt.Errorf("the data set has no labels: kNN needs them")
	}
	feature := eval.Feature(o.feature)
	net := state.Network()
	dim, err := feature.Len(net)
	if err != nil {
		return r, usageError{err}
	}
	prog, err := state.Compile(engine.Spec{Encoder: engine.Query, Batch: evalBatch, Mode: engine.Eval})
	if err != nil {
		return r, err
	}
	defer prog.Close()
	worker := augment.NewWorker(augment.Eval(net.ImageSize))
	extract := func(name string, ds data.Dataset) ([]float32, []int32, error) {
		start, last := time.Now(), time.Now()
		size := 3 * net.ImageSize * net.ImageSize
		images := func(first, count int, dst []float32) error {
			for i := range count {
				img, err := ds.Decode(first + i)
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
