// Command mochi pre-trains image encoders with MoCHi (Hard Negative Mixing
// for Contrastive Learning, Kalantidis et al., NeurIPS 2020) on MoCo-v2, on
// one machine or on a cluster whose members come and go.
//
// One file a subcommand; this package is the only place that wires the parts
// together. Exit status: 0 done, 1 failed, 2 wrong usage or configuration,
// 130 interrupted after an orderly stop.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/replica/data"
)

// version is set by the build (-X main.version=…).
var version = "dev"

// command is one subcommand.
type command struct {
	name  string // "eval knn"
	short string
	run   func(args []string, out, errs io.Writer) error
}

func commands() []command {
	return []command{
		{"train", "train on this machine: coordinator, NATS and N replicas in one process", runTrain},
		{"coordinator", "run the coordinator of a cluster", runCoordinator},
		{"replica", "join a cluster as a replica", runReplica},
		{"status", "show what a job is doing", runStatus},
		{"eval knn", "evaluate a checkpoint with a k-nearest-neighbour classifier", runEvalKNN},
		{"eval geometry", "measure alignment, uniformity, proxy-task accuracy and spread of a checkpoint", runEvalGeometry},
		{"inspect", "show what a checkpoint holds", runInspect},
		{"diff", "compare two checkpoints", runDiff},
		{"data inspect", "show what a data set holds: counts, classes, sizes, corrupt and duplicate images", runDataInspect},
		{"data pack", "write a data set to WebDataset tar shards", runDataPack},
		{"data preview", "draw a contact sheet: images and the two views of each", runDataPreview},
		{"bench step", "time a training step of one replica", runBenchStep},
		{"bench loss", "time the MoCHi loss", runBenchLoss},
		{"bench allreduce", "time the ring all-reduce", runBenchAllreduce},
		{"bench input", "time decoding and augmentation", runBenchInput},
		{"version", "print the version", runVersion},
	}
}

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }

func execute(args []string, out, errs io.Writer) int {
	err := dispatch(args, out, errs)
	var usage cli.UsageError
	switch {
	case err == nil, errors.Is(err, cli.ErrHelp):
		return 0
	case errors.Is(err, cli.ErrInterrupted):
		return 130
	case errors.As(err, &usage):
		fmt.Fprintf(errs, "mochi: %v\n", err)
		return 2
	}
	fmt.Fprintf(errs, "mochi: %v\n", err)
	return 1
}

func dispatch(args []string, out, errs io.Writer) error {
	if len(args) == 0 {
		help(errs)
		return cli.Usagef("which command? (mochi --help lists them)")
	}
	if args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		help(out)
		return cli.ErrHelp
	}
	var near []string
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if words[0] == args[0] {
			near = append(near, "mochi "+c.name)
		}
		if len(args) >= len(words) && strings.Join(args[:len(words)], " ") == c.name {
			return c.run(args[len(words):], out, errs)
		}
	}
	if len(near) > 0 {
		if len(args) > 1 && (args[1] == "-h" || args[1] == "--help") {
			fmt.Fprintln(out, "One of:\n  "+strings.Join(near, "\n  "))
			return cli.ErrHelp
		}
		return cli.Usagef("%s needs one of: %s", args[0], strings.Join(near, ", "))
	}
	return cli.Usagef("unknown command %q (mochi --help lists them)", args[0])
}

func help(w io.Writer) {
	fmt.Fprint(w, `mochi pre-trains image encoders with MoCHi on MoCo-v2.

Usage: mochi COMMAND [flags]     (mochi COMMAND --help explains one, with an example)

`)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-16s %s\n", c.name, c.short)
	}
	fmt.Fprint(w, `
Example:
  mochi train --preset demo --data fashion-mnist --replicas 2 --out runs/first
`)
}

func runVersion(args []string, out, errs io.Writer) error {
	fs := cli.NewFlags("version", "print the version, the digest that replicas of one job share, the engines and the JPEG decoder", "mochi version", out)
	if _, err := fs.ReadArgs(args); err != nil {
		return err
	}
	fmt.Fprintf(out, "mochi %s (build %s, engines %s, JPEG by %s)\n", version, engines.BuildIdentity(), strings.Join(engines.BuiltIn(), " "), data.JPEGDecoder())
	return nil
}
