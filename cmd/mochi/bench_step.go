package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/network"
)

// stepBench is the JSON object of mochi bench step.
type stepBench struct {
	StepP50  float64            `json:"step_ms_p50"`
	StepP99  float64            `json:"step_ms_p99"`
	ImagesPS float64            `json:"images_per_s"`
	KernelMS float64            `json:"kernel_ms"` // convolutions and matrix products alone, median
	Phases   map[string]float64 `json:"phases"`    // medians, ms, as log.jsonl names them; rest is what none of them counts; those of a device by its own clock too
	CPU      map[string]float64 `json:"cpu"`       // medians, ms of processor time of the phases that make a step a transaction, as log.jsonl names them
	PeakRSS  float64            `json:"peak_rss_mb"`
	Allocs   float64            `json:"allocs_per_step"`
	Engine   string             `json:"engine"`
	Device   string             `json:"device"`
	Versions map[string]string  `json:"versions"` // of driver and libraries
	Steps    int                `json:"steps"`
	AtOnce   int                `json:"groups_at_once"` // that the engine computed; 1 where it cannot do more
}

func benchStepCommand() *cli.Command {
	c := cli.NewCommand("bench step", cli.Text{
		Short:   "time a training step of one replica",
		About:   "time the whole step of one replica on random images in memory",
		Example: "mochi bench step --arch resnet20 --batch 128 --bn-group 32 --queue 4096 --mochi 256,256,32 --steps 10 --json",
	})
	steps := c.Int("steps", 10, "timed steps")
	warmup := c.Int("warmup", 2, "steps before the first timed one")
	var engineName string
	engines.AddFlag(c, &engineName, "")
	threads := c.Int("threads", 0, "compute threads; 0 = all cores")
	tune := c.Bool("tune", false, engines.TuneHelp)
	asJSON := c.Bool("json", false, "print one JSON object")
	training := cli.AddTraining(c, func(name string) bool { return slices.Contains(stepSettings(), name) })
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		cfg := training.Job(c, &f, func(c *config.Job) { fitStep(training, c) })
		if done, err := training.Printed(out, cfg, &f); done {
			return err
		}
		f.AtLeast(1, "steps", *steps)
		f.AtLeast(0, "warmup", *warmup)
		f.AtLeast(0, "threads", *threads)
		needs := engines.ConfigOf(cfg, *threads, 0)
		needs.Tune = *tune
		engines.Check(&f, engineName, engine.Config{Precision: needs.Precision, Threads: 1, Tune: *tune})
		if err := f.Err(); err != nil {
			return err
		}
		eng, why, err := engines.Open(engineName, needs)
		if err != nil {
			return err
		}
		fmt.Fprintln(errs, why)
		fmt.Fprintf(errs, "%s, %d×%d pixels, batch %d in groups of %d, queue %d, MoCHi %s, %s\n",
			cfg.Arch, cfg.ImageSize, cfg.ImageSize, cfg.Batch, cfg.BNGroup, cfg.Queue, cfg.MoCHi, cfg.Precision)
		r, err := benchStep(context.Background(), eng, cfg, *warmup, *steps, errs)
		if err != nil {
			return err
		}
		if *asJSON {
			return cli.PrintJSON(out, r)
		}
		fmt.Fprintf(out, "step %.1f ms (p99 %.1f), %.1f images/s, kernels %.1f ms, peak %.0f MB, %.0f allocations a step\n",
			r.StepP50, r.StepP99, r.ImagesPS, r.KernelMS, r.PeakRSS, r.Allocs)
		for _, name := range slices.Sorted(maps.Keys(r.Phases)) {
			fmt.Fprintf(out, "  %-14s %8.2f ms", name, r.Phases[name])
			if cpu, measured := r.CPU[name]; measured {
				fmt.Fprintf(out, "  %8.2f ms of processor time", cpu)
			}
			fmt.Fprintln(out)
		}
		return nil
	}
	return c
}

// stepSettings are the settings that change how long a step takes.
func stepSettings() []string {
	return []string{"arch", "head", "image-size", "batch", "bn-group", "groups-at-once", "queue", "queue-shards", "queue-storage", "dim", "temperature", "momentum", "mochi", "precision", "seed"}
}

// fitStep lets what was not given follow what was, where neither a preset nor
// a file says: images of the size the network is made for, no group larger
// than the batch, no more hard negatives than the queue holds.
func fitStep(t *cli.Training, c *config.Job) {
	c.MinReplicas, c.MaxReplicas = 1, 0
	c.Audit = 0 // few steps are timed, and one in hundreds would be another
	if t.Based() {
		return
	}
	free := func(name string) bool { return !t.Given(name) }
	if !network.LargeImages(c.Arch) {
		if free("image-size") {
			c.ImageSize = 32
		}
		if free("head") {
			c.Head = network.HeadLinear
		}
	}
	if free("bn-group") {
		c.BNGroup = max(2, min(c.BNGroup, c.Batch))
	}
	if free("queue") {
		c.Queue = max(c.Queue, c.Batch)
	}
	if free("queue-shards") {
		c.QueueShards = min(c.QueueShards, c.Queue)
	}
	if free("mochi") {
		c.MoCHi.N = min(c.MoCHi.N, c.Queue)
	}
}
