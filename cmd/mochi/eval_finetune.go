package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"strings"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/cmd/mochi/evaluate"
	"mochi/model/engine"
	"mochi/replica/data"
)

// finetuned is the JSON object of mochi eval finetune.
type finetuned struct {
	evaluate.FinetuneResult
	Checkpoint string `json:"checkpoint"`
	ClassList  string `json:"classes_sha256,omitempty"` // of --classes
}

func evalFinetuneCommand() *cli.Command {
	c := cli.NewCommand("eval finetune", cli.Text{
		Short: "train the whole network on a part of the labels, from a checkpoint (semi-supervised protocol)",
		About: "train backbone and a new classifier, each with a learning rate of its own, on 1 %, 10 % or all of the labels (docs/evaluation.md)",
		Example: "mochi eval finetune --checkpoint runs/first/checkpoints/latest.safetensors --data ~/imagenet --labels 1%\n" +
			"mochi eval finetune --checkpoint moco_v2_800ep.pth.tar --data ~/imagenet --labels 10percent.txt --lr-backbone 0.02 --json",
	})
	var e encoderFlags
	var o evaluate.FinetuneOptions
	c.StringVar(&e.path, "checkpoint", "", "`FILE` (also one that mochi import takes), or random:ARCH for an untrained encoder")
	sources := cli.AddData(c, "`PATH` of a labelled data set with a test split (see mochi train --help)")
	cache := cli.AddCache(c, engines.BuildIdentity)
	classes := c.String("classes", "", cli.ClassesFlag)
	c.StringVar(&o.Labels, "labels", "", "`PART` of the training images to use: 1%, 10%, 100% or another part, of each class, drawn with --seed; or a file with an image name a line, such as SimCLR's lists")
	c.Complete("labels", "1%", "10%", "100%")
	c.Float64Var(&o.Backbone, "lr-backbone", 0.01, "learning rate of the backbone, for the batch as it is")
	c.Float64Var(&o.Head, "lr-head", 0.5, "learning rate of the classifier")
	c.IntVar(&o.Epochs, "epochs", 0, "over the chosen images; 0 = 60 with up to 5% of the labels, else 30")
	c.IntVar(&o.Batch, "batch", 256, "samples of a step")
	c.IntVar(&o.Group, "bn-group", 32, "samples that share BatchNorm statistics")
	e.addUntrained(c)
	var engineName string
	engines.AddFlag(c, &engineName, "")
	precision := c.String("precision", string(engine.FP32), "`P`: fp32, or bf16 where the engine has it")
	threads := c.Int("threads", 0, "compute threads; 0 = all cores")
	asJSON := c.Bool("json", false, "print one JSON object")
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		e.checkFinetune(&f, &o)
		f.AtLeast(0, "threads", *threads)
		cfg := engine.Config{Precision: engine.Precision(*precision), Threads: *threads}
		engines.Check(&f, engineName, engine.Config{Precision: cfg.Precision, Threads: 1})
		set := cli.OpenClasses(&f, *sources, *classes, errs, cache)
		if set != nil {
			if why := set.NoKNN(); why != "" {
				f.Add("data", "%s: it needs two classes and a labelled test split", why)
			}
		}
		e.check(&f, set)
		if err := f.Err(); err != nil {
			return err
		}
		fmt.Fprintln(errs, set.Announce)
		st, net, err := e.load(errs)
		if err != nil {
			return err
		}
		o.Engine, o.On = engineName, cfg
		o.Seed, o.Progress = e.seed, evaluate.Say(errs)
		o.Corrupt = func(c *data.CorruptError) {
			fmt.Fprintf(errs, "%s cannot be decoded (%v); another image of its class takes its place\n", c.Path, c.Err)
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		r, err := evaluate.Finetune(ctx, net, st, set, o)
		if ctx.Err() != nil {
			return cli.ErrInterrupted
		}
		if err != nil {
			return err
		}
		if *asJSON {
			return cli.PrintJSON(out, finetuned{r, e.path, set.Info.ClassList})
		}
		fmt.Fprintf(out, "finetuned on %s of the labels (%s, %d images): top-1 %.2f %%, top-5 %.2f %% of %d test images\n",
			r.Labels, r.Lists, r.Train, 100*r.Top1, 100*r.Top5, r.Test)
		return nil
	}
	return c
}

// checkFinetune completes o and adds what is wrong with it to f.
func (e *encoderFlags) checkFinetune(f *cli.Faults, o *evaluate.FinetuneOptions) {
	part, share := 0.0, strings.HasSuffix(o.Labels, "%")
	switch _, err := fmt.Sscanf(o.Labels, "%g%%", &part); {
	case o.Labels == "":
		f.Add("labels", "missing: 1%%, 10%%, 100%%, or a file with an image name a line")
	case share && (err != nil || !(part > 0 && part <= 100)):
		f.Add("labels", "%q is no part: above 0%% and at most 100%%", o.Labels)
	case !share:
		if _, err := os.Stat(o.Labels); err != nil {
			f.Add("labels", "%q is neither a part such as 1%% nor a file with an image name a line", o.Labels)
		}
	}
	f.AtLeast(0, "epochs", o.Epochs)
	if o.Epochs == 0 {
		o.Epochs = 30
		if share && part <= 5 {
			o.Epochs = 60
		}
	}
	f.AtLeast(2, "bn-group", o.Group)
	if f.AtLeast(1, "batch", o.Batch); o.Group >= 2 && o.Batch%o.Group != 0 {
		f.Add("batch", "%d is no multiple of --bn-group %d", o.Batch, o.Group)
	}
	if !(o.Backbone >= 0) || math.IsInf(o.Backbone, 0) {
		f.Add("lr-backbone", "%g: at least 0", o.Backbone)
	}
	if !(o.Head > 0) || math.IsInf(o.Head, 0) {
		f.Add("lr-head", "%g: above 0", o.Head)
	}
}
