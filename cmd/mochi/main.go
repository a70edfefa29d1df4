// Command mochi pre-trains image encoders with MoCHi (Hard Negative Mixing
// for Contrastive Learning, Kalantidis et al., NeurIPS 2020) on MoCo-v2, on
// one machine or on a cluster whose members come and go.
//
// One file a subcommand; this package is the only place that wires the parts
// together. Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 75
// alone for too long (a replica), 130 interrupted after an orderly stop.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/replica"
	"mochi/replica/data"
)

// version is set by the build (-X main.version=…).
var version = "dev"

// program is all commands.
func program() cli.Program {
	return cli.Program{
		About:   "mochi pre-trains image encoders with MoCHi on MoCo-v2.",
		Example: "mochi train --preset demo --data fashion-mnist --replicas 2 --out runs/first",
		Sections: []cli.Section{
			{Title: "Training", Commands: []*cli.Command{trainCommand(), coordinatorCommand(), replicaCommand(), drainCommand(), statusCommand(), tokenShowCommand(), tokenRotateCommand(), tokenKeysCommand()}},
			{Title: "Evaluation and checkpoints", Commands: []*cli.Command{evalKNNCommand(), evalLinearCommand(), evalFinetuneCommand(), evalGeometryCommand(), inspectCommand(), diffCommand(), exportCommand(), importCommand(), embedCommand()}},
			{Title: "Data", Commands: []*cli.Command{dataInspectCommand(), dataPackCommand(), dataPreviewCommand()}},
			{Title: "Benchmarks", Commands: []*cli.Command{benchStepCommand(), benchLossCommand(), benchAllreduceCommand(), benchClusterCommand(), benchInputCommand()}},
			{Title: "This program", Commands: []*cli.Command{versionCommand(), cli.NewCompletion()}},
		},
	}
}

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }

func execute(args []string, out, errs io.Writer) int {
	end := watchVitals(os.Getenv(vitalsVariable), time.Second, errs)
	defer end()
	err := program().Execute(args, out, errs)
	var usage cli.UsageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, cli.ErrInterrupted):
		return 130
	case errors.As(err, &usage):
		fmt.Fprintf(errs, "mochi: %v\n", err)
		return 2
	case errors.Is(err, replica.ErrOrphaned):
		fmt.Fprintf(errs, "mochi: %v\n", err)
		return 75 // EX_TEMPFAIL: it may be worth another try
	}
	fmt.Fprintf(errs, "mochi: %v\n", err)
	return 1
}

func versionCommand() *cli.Command {
	c := cli.NewCommand("version", cli.Text{
		Short:   "print the version",
		About:   "print the version, the digest that replicas of one job share, the engines and the JPEG decoder",
		Example: "mochi version",
	})
	c.Run = func(args []string, out, errs io.Writer) error {
		fmt.Fprintf(out, "mochi %s (build %s, engines %s, JPEG by %s)\n", version, engines.BuildIdentity(), strings.Join(engines.BuiltIn(), " "), data.JPEGDecoder())
		return nil
	}
	return c
}
