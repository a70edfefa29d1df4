package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/convert"
	"mochi/cmd/mochi/engines"
	"mochi/cmd/mochi/evaluate"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/model/limits"
	"mochi/model/network"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
)

func evalKNNCommand() *cli.Command {
	c := cli.NewCommand("eval knn", cli.Text{
		Short:   "evaluate a checkpoint with a k-nearest-neighbour classifier",
		About:   "weighted k-nearest-neighbour accuracy of frozen features (Wu et al. 2018)",
		Example: "mochi eval knn --checkpoint runs/first/checkpoints/latest.safetensors --data fashion-mnist --json\nmochi eval knn --checkpoint random:resnet20 --data fashion-mnist --image-size 28",
	})
	var e encoderFlags
	c.StringVar(&e.path, "checkpoint", "", "`FILE` (also one that mochi import takes), or random:ARCH for an untrained encoder")
	dataPath := c.String("data", "", "`PATH` of a labelled data set with a test split (see mochi train --help)")
	k := c.Int("k", eval.DefaultK, "neighbours")
	temp := c.Float64("kernel-temperature", eval.DefaultTemperature, "`T`: votes weigh exp(similarity/T)")
	feature := c.String("feature", string(eval.Backbone), "`F`: backbone (after global pooling) or embedding (after the head)")
	c.Complete("feature", string(eval.Backbone), string(eval.Embedding))
	e.addUntrained(c)
	limitTrain := c.Int("limit-train", 0, "use only so many training images, evenly spaced; 0 = all")
	limitTest := c.Int("limit-test", 0, "use only so many test images, evenly spaced; 0 = all")
	var engineName string
	engines.AddFlag(c, &engineName, "")
	precision := c.String("precision", string(engine.FP32), "`P` of the encoder: fp32, or bf16 where the engine has it (twice as fast)")
	threads := c.Int("threads", 0, "compute threads; 0 = all cores")
	asJSON := c.Bool("json", false, "print one JSON object")
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		f.AtLeast(1, "k", *k)
		limits.Range("above 0").Number("kernel-temperature", *temp, f.Add)
		if *feature != string(eval.Backbone) && *feature != string(eval.Embedding) {
			f.Add("feature", "%q is not known; there are backbone, embedding", *feature)
		}
		f.AtLeast(0, "limit-train", *limitTrain)
		f.AtLeast(0, "limit-test", *limitTest)
		f.AtLeast(0, "threads", *threads)
		engines.Check(&f, engineName, engine.Config{Precision: engine.Precision(*precision), Threads: 1})
		set := cli.OpenData(&f, *dataPath, errs)
		if set != nil {
			// One class is no reason to refuse: the figure is what was asked for.
			if why := set.NoKNN(); why != "" && set.Train.Classes() != 1 || set.Test == nil {
				f.Add("data", "%s: kNN needs labels and a test split", why)
			}
		}
		e.check(&f, set)
		if err := f.Err(); err != nil {
			return err
		}
		enc, _, err := e.open(set, engineName, engine.Config{Precision: engine.Precision(*precision), Threads: *threads}, errs)
		if err != nil {
			return err
		}
		defer enc.Close()
		results, err := enc.KNN(context.Background(), set, evaluate.KNNOptions{
			K: *k, Temperature: *temp, Features: []eval.Feature{eval.Feature(*feature)}, Train: *limitTrain, Test: *limitTest, Progress: errs,
			Corrupt: func(e *data.CorruptError) {
				fmt.Fprintf(errs, "%s cannot be decoded (%v); another image takes its place\n", e.Path, e.Err)
			},
		})
		if err != nil {
			return err
		}
		result := results[0]
		if *asJSON {
			return cli.PrintJSON(out, result)
		}
		fmt.Fprintf(out, "kNN top-1 %.2f %%, top-5 %.2f %% (k=%d, %s features, %d train and %d test images)\n",
			100*result.Top1, 100*result.Top5, min(*k, result.Train), result.Feature, result.Train, result.Test)
		return nil
	}
	return c
}

// encoderFlags name the encoder to evaluate.
type encoderFlags struct {
	path, head string
	size       int
	seed       uint64
}

// addUntrained adds the flags that say what random:ARCH is.
func (e *encoderFlags) addUntrained(c *cli.Command) {
	c.IntVar(&e.size, "image-size", 0, "pixels, for random:ARCH (0 = the data set's own size, at most 224) and for files of other programs (0 = 224 or 32)")
	c.StringVar(&e.head, "head", network.HeadLinear, "head `H`, for random:ARCH: "+cli.Words("head"))
	c.Uint64Var(&e.seed, "seed", 1, "seed, for random:ARCH")
}

// check adds what is wrong with the flags to f; size 0 becomes the data's.
func (e *encoderFlags) check(f *cli.Faults, set *data.Set) {
	if e.path == "" {
		f.Add("checkpoint", "missing: a FILE or random:ARCH")
	}
	f.AtLeast(0, "image-size", e.size)
	arch, random := strings.CutPrefix(e.path, "random:")
	if !random {
		return
	}
	if e.size == 0 && set != nil {
		size, err := naturalSize(set.Train)
		if err != nil {
			f.Add("image-size", "the first image says nothing (%v); give it", err)
			return
		}
		e.size = size
	}
	probe := e.size
	if probe == 0 {
		probe = 224 // the data's fault is said already
	}
	if _, err := e.untrained(arch, probe); err != nil {
		f.Add("checkpoint", "%v", err)
	}
}

func (e *encoderFlags) untrained(arch string, size int) (*network.Network, error) {
	return network.Build(arch, network.Options{Channels: 3, ImageSize: size, Dim: 128, Head: e.head})
}

// load reads or makes the encoder. Of another program's file it says what was
// taken.
func (e *encoderFlags) load(errs io.Writer) (*checkpoint.State, *network.Network, error) {
	arch, random := strings.CutPrefix(e.path, "random:")
	if !random {
		c, report, err := convert.Load(e.path, convert.LoadOptions{ImageSize: e.size})
		if report != nil {
			report.Say(errs)
		}
		return c.State, c.Net, err
	}
	net, err := e.untrained(arch, e.size)
	if err != nil {
		return nil, nil, err
	}
	return evaluate.InitialState(e.config(net), net), net, nil
}

// open loads the encoder and opens an engine with it. It says what the data is, and
// which engine.
func (e *encoderFlags) open(set *data.Set, engineName string, cfg engine.Config, errs io.Writer) (*evaluate.Encoders, *network.Network, error) {
	fmt.Fprintln(errs, set.Announce)
	st, net, err := e.load(errs)
	if err != nil {
		return nil, nil, err
	}
	enc, err := evaluate.OpenEncoders(engineName, cfg, net, st)
	if err != nil {
		return nil, nil, err
	}
	fmt.Fprintln(errs, enc.Why)
	return enc, net, nil
}

// config is what an untrained encoder would be trained with.
func (e *encoderFlags) config(net *network.Network) config.Job {
	cfg := config.Default()
	cfg.Arch, cfg.Head, cfg.ImageSize, cfg.Dim, cfg.Seed = net.Arch, e.head, net.ImageSize, net.Dim, e.seed
	return cfg
}

// naturalSize is the height of the first image, at most 224.
func naturalSize(ds data.Dataset) (int, error) {
	d := data.NewDecoder()
	defer d.Close()
	img, err := ds.Decode(0, d)
	if err != nil {
		return 0, err
	}
	return min(img.W, img.H, 224), nil
}
