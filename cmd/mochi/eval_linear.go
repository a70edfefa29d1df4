package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/cmd/mochi/evaluate"
	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/model/probe"
	"mochi/replica/data"
)

// linearResult is the JSON object of mochi eval linear of one checkpoint and seed.
type linearResult struct {
	evaluate.LinearResult
	evaluate.Leaks
	ClassList string `json:"classes_sha256,omitempty"` // of --classes
}

// linearResults is that of several.
type linearResults struct {
	Protocol string         `json:"protocol"`
	Runs     []linearResult `json:"runs"`
	Mean     float64        `json:"top1_mean"`
	SD       float64        `json:"top1_sd"` // of the sample: n − 1
}

// linearFlags are those of mochi eval linear.
type linearFlags struct {
	encoderFlags
	checkpoints, protocol, feature, classes string
	sources                                 *cli.Sources
	kept                                    *cli.Cache
	cache, format, report                   string
	engine, precision                       string
	views, epochs, seeds, threads           int
	perClass, limitTrain, limitTest         int
	json                                    bool
}

func evalLinearCommand() *cli.Command {
	c := cli.NewCommand("eval linear", cli.Text{
		Short: "train a linear classifier on a checkpoint's frozen features: the figure of the papers' tables",
		About: "linear evaluation: a linear classifier on frozen features, the backbone in evaluation mode (docs/evaluation.md)",
		Example: "mochi eval linear --checkpoint runs/first/checkpoints/latest.safetensors --data fashion-mnist\n" +
			"mochi eval linear --checkpoint moco_v2_800ep.pth.tar --data ~/imagenet --classes imagenet100 --protocol moco --json\n" +
			"mochi eval linear --checkpoint a.safetensors,b.safetensors --data ~/images --cache ~/features --report report",
	})
	var l linearFlags
	c.StringVar(&l.checkpoints, "checkpoint", "", "`FILE` (also one that mochi import takes), several with commas between them, or random:ARCH")
	l.sources = cli.AddData(c, "`PATH` of a labelled data set with a test split (see mochi train --help)")
	l.kept = cli.AddCache(c, engines.BuildIdentity)
	c.StringVar(&l.classes, "classes", "", cli.ClassesFlag)
	c.StringVar(&l.protocol, "protocol", probe.Sweep, "`P`: "+strings.Join(probe.Names(), ", "))
	c.Complete("protocol", probe.Names()...)
	c.StringVar(&l.feature, "feature", string(eval.Backbone), "`F`: backbone (after global pooling) or embedding (after the head)")
	c.Complete("feature", string(eval.Backbone), string(eval.Embedding))
	c.IntVar(&l.views, "views", 0, "train on `A` augmented views (crop and flip) of each image, computed once; 0 = what the protocol says")
	c.IntVar(&l.epochs, "epochs", 0, "instead of the protocol's; the schedule keeps its shape")
	c.IntVar(&l.seeds, "seeds", 1, "evaluate so many times, with --seed and those after it")
	c.StringVar(&l.cache, "cache", "", "keep features in `DIR` (one file a checkpoint, split and view); without it they stay in memory")
	c.StringVar(&l.format, "cache-format", "fp32", "`F` of the cache: fp32, or fp16 (half as large, rounded)")
	c.Complete("cache-format", "fp32", "fp16")
	c.StringVar(&l.report, "report", "", "write `DIR`/index.html: accuracy by class, confusions, the most confident mistakes")
	l.addUntrained(c)
	c.IntVar(&l.perClass, "images-per-class", 0, "use only so many training images of each class, drawn with --seed; 0 = all")
	c.IntVar(&l.limitTrain, "limit-train", 0, "use only so many training images, evenly spaced; 0 = all")
	c.IntVar(&l.limitTest, "limit-test", 0, "use only so many test images, evenly spaced; 0 = all")
	engines.AddFlag(c, &l.engine, "")
	c.StringVar(&l.precision, "precision", string(engine.FP32), "`P` of the encoder: fp32, or bf16 where the engine has it (twice as fast)")
	c.IntVar(&l.threads, "threads", 0, "compute threads; 0 = all cores")
	c.BoolVar(&l.json, "json", false, "print one JSON object")
	c.Run = func(args []string, out, errs io.Writer) error { return l.run(out, errs) }
	return c
}

// check finds all faults, and opens the data.
func (l *linearFlags) check(errs io.Writer) (recipe probe.Recipe, set *data.Set, err error) {
	var f cli.Faults
	recipe, err = probe.Find(l.protocol)
	f.AddErr("protocol", err)
	f.OneOf("feature", l.feature, string(eval.Backbone), string(eval.Embedding))
	f.OneOf("cache-format", l.format, "fp32", "fp16")
	f.AtLeast(0, "views", l.views)
	f.AtLeast(0, "epochs", l.epochs)
	f.AtLeast(1, "seeds", l.seeds)
	f.AtLeast(0, "images-per-class", l.perClass)
	f.AtLeast(0, "limit-train", l.limitTrain)
	f.AtLeast(0, "limit-test", l.limitTest)
	f.AtLeast(0, "threads", l.threads)
	if recipe.Regression && l.views > 0 {
		f.Add("views", "%s takes the centre crop alone", recipe.Name)
	}
	if recipe.Regression && l.epochs > 0 {
		f.Add("epochs", "%s has none: it goes on until it is done", recipe.Name)
	}
	if l.report != "" {
		if entries, err := os.ReadDir(l.report); err == nil && len(entries) > 0 {
			f.Add("report", "%s is there and not empty: choose another folder, or remove it", l.report)
		}
		if l.seeds > 1 || strings.Contains(l.checkpoints, ",") {
			f.Add("report", "is of one checkpoint and one seed")
		}
	}
	engines.Check(&f, l.engine, engine.Config{Precision: engine.Precision(l.precision), Threads: 1})
	set = cli.OpenClasses(&f, *l.sources, l.classes, errs, l.kept)
	if set != nil {
		if why := set.NoKNN(); why != "" {
			f.Add("data", "%s: linear evaluation needs two classes and a labelled test split", why)
		}
	}
	paths := strings.Split(l.checkpoints, ",")
	l.effective(&f, paths...)
	for _, path := range paths {
		l.path = path
		l.checkEncoder(&f, set)
	}
	return recipe.For(l.epochs), set, f.Err()
}

func (l *linearFlags) run(out, errs io.Writer) error {
	recipe, set, err := l.check(errs)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fmt.Fprintf(errs, "protocol %s: %s\n", recipe.Name, recipe.About)
	all := linearResults{Protocol: recipe.Name}
	for _, path := range strings.Split(l.checkpoints, ",") {
		l.path = path
		if err := l.each(ctx, recipe, set, &all, out, errs); err != nil {
			if ctx.Err() != nil && errors.Is(err, context.Canceled) {
				if l.cache != "" {
					fmt.Fprintf(errs, "what was computed is in %s and will be used\n", l.cache)
				}
				return cli.ErrInterrupted
			}
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if len(all.Runs) == 1 {
		if l.json {
			return cli.PrintJSON(out, all.Runs[0])
		}
		return nil
	}
	for _, r := range all.Runs {
		all.Mean += r.Top1 / float64(len(all.Runs))
	}
	for _, r := range all.Runs {
		all.SD += (r.Top1 - all.Mean) * (r.Top1 - all.Mean) / float64(len(all.Runs)-1)
	}
	all.SD = math.Sqrt(all.SD)
	if l.json {
		return cli.PrintJSON(out, all)
	}
	fmt.Fprintf(out, "top-1 %.2f ± %.2f %% (mean and standard deviation of %d)\n", 100*all.Mean, 100*all.SD, len(all.Runs))
	return nil
}

// each evaluates one checkpoint with all seeds.
func (l *linearFlags) each(ctx context.Context, recipe probe.Recipe, set *data.Set, all *linearResults, out, errs io.Writer) error {
	enc, net, err := l.open(set, l.engine, engine.Config{Precision: engine.Precision(l.precision), Threads: l.threads}, errs)
	if err != nil {
		return err
	}
	defer enc.Close()
	fmt.Fprintf(errs, "views of %d×%d pixels; the test images' and, where nothing is drawn, the training images' are their centre\n", net.ImageSize, net.ImageSize)
	o := evaluate.LinearOptions{
		Recipe: recipe, Feature: eval.Feature(l.feature), Views: l.views, Train: l.limitTrain, Test: l.limitTest, PerClass: l.perClass,
		Plain: l.report != "", Progress: errs, Corrupt: leftOut(errs),
	}
	if l.cache != "" {
		o.Cache = &evaluate.Cache{Dir: l.cache, Half: l.format == "fp16"}
	}
	for i := range l.seeds {
		o.Seed = l.seed + uint64(i)
		r, err := enc.Linear(ctx, set, o)
		if err != nil {
			return err
		}
		r.Checkpoint = l.path
		all.Runs = append(all.Runs, linearResult{r.LinearResult, r.Leaks, set.Info.ClassList})
		if r.Leaked > 0 {
			fmt.Fprintf(errs, "%s among the training images too, byte for byte: accuracy on them says little\n", cli.Plural(r.Leaked, "test image is", "test images are"))
		}
		if l.report != "" {
			if err := r.Report(l.report); err != nil {
				return err
			}
			fmt.Fprintf(errs, "the report is %s\n", filepath.Join(l.report, "index.html"))
		}
		if !l.json {
			l.say(out, r.LinearResult)
		}
	}
	return nil
}

// say prints a result for people.
func (l *linearFlags) say(out io.Writer, r evaluate.LinearResult) {
	how := fmt.Sprintf("lr %g, %d epochs", r.LR, r.Epochs)
	if r.BestEpoch == 0 {
		how = fmt.Sprintf("l2 %.3g", r.L2)
	}
	fmt.Fprintf(out, "linear top-1 %.2f %%, top-5 %.2f %% (%s: %s, %s features, %d train and %d test images, %d left out; %s)\n",
		100*r.Top1, 100*r.Top5, r.Protocol, how, r.Feature, r.Train, r.Test, r.LeftOut, l.path)
	if r.BestEpoch > 0 {
		fmt.Fprintf(out, "  best epoch %d, chosen on the test images: top-1 %.2f %%\n", r.BestEpoch, 100*r.Top1Best)
	}
}
