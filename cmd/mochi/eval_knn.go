package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/cmd/mochi/evaluate"
	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/model/limits"
	"mochi/replica/data"
)

// knnResult is the JSON object of mochi eval knn.
type knnResult struct {
	evaluate.KNNResult
	evaluate.Leaks
	ClassList string `json:"classes_sha256,omitempty"` // of --classes
}

// knnResults is the JSON object where k or the temperature is a list.
type knnResults struct {
	Results []evaluate.KNNResult `json:"results"`
	evaluate.Leaks
	ClassList string `json:"classes_sha256,omitempty"`
}

func evalKNNCommand() *cli.Command {
	c := cli.NewCommand("eval knn", cli.Text{
		Short: "evaluate a checkpoint with a k-nearest-neighbour classifier",
		About: "weighted k-nearest-neighbour accuracy of frozen features (Wu et al. 2018)",
		Example: "mochi eval knn --checkpoint runs/first/checkpoints/latest.safetensors --data fashion-mnist --json\n" +
			"mochi eval knn --checkpoint random:resnet20 --data fashion-mnist --image-size 28\n" +
			"mochi eval knn --checkpoint moco_v2_800ep.pth.tar --data ~/imagenet --k 10,20,100,200 --kernel-temperature 0.07,0.1",
	})
	var e encoderFlags
	c.StringVar(&e.path, "checkpoint", "", "`FILE` (also one that mochi import takes), or random:ARCH for an untrained encoder")
	sources := cli.AddData(c, "`PATH` of a labelled data set with a test split (see mochi train --help)")
	cache := cli.AddCache(c, engines.BuildIdentity)
	classes := c.String("classes", "", cli.ClassesFlag)
	k := c.IntSlice("k", []int{eval.DefaultK}, "neighbours that vote; several `N,…` are evaluated in one pass. Without it no more than the smallest class has, but at least 5")
	temp := c.Float64Slice("kernel-temperature", []float64{eval.DefaultTemperature}, "`T,…`: votes weigh exp(similarity/T)")
	feature := c.String("feature", string(eval.Backbone), "`F`: backbone (after global pooling) or embedding (after the head)")
	c.Complete("feature", string(eval.Backbone), string(eval.Embedding))
	e.addUntrained(c)
	perClass := c.Int("images-per-class", 0, "use only so many training images of each class, drawn with --seed; 0 = all")
	limitTrain := c.Int("limit-train", 0, "use only so many training images, evenly spaced; 0 = all")
	limitTest := c.Int("limit-test", 0, "use only so many test images, evenly spaced; 0 = all")
	var engineName string
	engines.AddFlag(c, &engineName, "")
	precision := c.String("precision", string(engine.FP32), "`P` of the encoder: fp32, or bf16 where the engine has it (twice as fast)")
	threads := c.Int("threads", 0, "compute threads; 0 = all cores")
	asJSON := c.Bool("json", false, "print one JSON object")
	limit := cli.LimitImages(c)
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		for _, k := range *k {
			f.AtLeast(1, "k", k)
		}
		for _, t := range *temp {
			limits.Range("above 0").Number("kernel-temperature", t, f.Add)
		}
		for _, n := range []struct {
			flag  string
			empty bool
		}{{"k", len(*k) == 0}, {"kernel-temperature", len(*temp) == 0}} {
			if n.empty {
				f.Add(n.flag, "is empty: a number, or several with commas between them")
			}
		}
		f.OneOf("feature", *feature, string(eval.Backbone), string(eval.Embedding))
		f.AtLeast(0, "images-per-class", *perClass)
		f.AtLeast(0, "limit-train", *limitTrain)
		f.AtLeast(0, "limit-test", *limitTest)
		f.AtLeast(0, "threads", *threads)
		engines.Check(&f, engineName, engine.Config{Precision: engine.Precision(*precision), Threads: 1})
		set := cli.OpenClasses(&f, *sources, *classes, errs, cache)
		limit(&f, set)
		if set != nil {
			if why := set.NoKNN(); why != "" {
				f.Add("data", "%s: kNN needs labels of two classes and a test split", why)
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
		results, leaks, err := enc.KNN(context.Background(), set, evaluate.KNNOptions{
			K: *k, Temperature: *temp, Features: []eval.Feature{eval.Feature(*feature)}, Train: *limitTrain, Test: *limitTest,
			Free: !c.Given("k"), PerClass: *perClass, Seed: e.seed, Progress: errs, Corrupt: leftOut(errs),
		})
		if err != nil {
			return err
		}
		result := results[0]
		if !c.Given("k") && result.K < eval.DefaultK {
			fmt.Fprintf(errs, "k is %d, not %d: no more than the smallest class has of the %d training images, at least 5; --k decides otherwise\n", result.K, eval.DefaultK, result.Train)
		}
		if most := slices.Max(*k); most > result.Train && c.Given("k") {
			fmt.Fprintf(errs, "k of %d is more than the training images: all %d vote\n", most, result.Train)
		}
		if result.ImagesPerClass > 0 {
			fmt.Fprintf(errs, "at most %d training images of each class, drawn with seed %d\n", result.ImagesPerClass, e.seed)
		}
		if result.Unlabeled > 0 {
			fmt.Fprintf(errs, "%s no class of the training images and not counted\n", cli.Plural(result.Unlabeled, "test image is of", "test images are of"))
		}
		if n := leaks.Leaked; n > 0 {
			fmt.Fprintf(errs, "%s among the training images too, byte for byte: accuracy on them says little\n", cli.Plural(n, "test image is", "test images are"))
			for i, path := range leaks.Paths {
				if more(errs, i, n, listed) {
					break
				}
				fmt.Fprintf(errs, "  %s\n", path)
			}
		}
		if *asJSON && len(results) == 1 {
			return cli.PrintJSON(out, knnResult{result, leaks, set.Info.ClassList})
		}
		if *asJSON {
			return cli.PrintJSON(out, knnResults{results, leaks, set.Info.ClassList})
		}
		for _, r := range results {
			fmt.Fprintf(out, "kNN top-1 %.2f %%, top-5 %.2f %% (k=%d, T=%g, %s features, %d×%d pixels, %d train and %s, %d left out)\n",
				100*r.Top1, 100*r.Top5, r.K, r.Temperature, r.Feature, r.ImageSize, r.ImageSize, r.Train, cli.Count(r.Test, "test image"), r.LeftOut)
		}
		return nil
	}
	return c
}

// leftOut says which image is.
func leftOut(errs io.Writer) func(*data.CorruptError) {
	return func(e *data.CorruptError) {
		fmt.Fprintf(errs, "%s cannot be decoded (%v); it is left out\n", e.Path, e.Err)
	}
}
