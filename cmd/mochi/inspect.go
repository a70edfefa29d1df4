package main

import (
	"fmt"
	"io"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/convert"
	"mochi/replica/checkpoint"
)

func inspectCommand() *cli.Command {
	c := cli.NewCommand("inspect FILE", cli.Text{
		Short:   "show what a checkpoint holds",
		About:   "show what the checkpoint FILE holds",
		Example: "mochi inspect runs/first/checkpoints/latest.safetensors --json",
	})
	asJSON := c.Bool("json", false, "print one JSON object")
	c.Run = func(args []string, out, errs io.Writer) error {
		info, err := inspected(args[0], errs)
		if err != nil {
			return err
		}
		if *asJSON {
			return cli.PrintJSON(out, info)
		}
		fmt.Fprintf(out, "%s: %s, step %d, epoch %d, %d parameters\n", args[0], info.Arch, info.Step, info.Epoch, info.Parameters)
		fmt.Fprintf(out, "queue: %d keys of %d dimensions, %d filled\n", info.Queue.Length, info.Queue.Dim, info.Queue.Filled)
		if info.NotFinite != "" {
			fmt.Fprintf(out, "%s holds a NaN or an infinity: training had diverged; an earlier checkpoint is of use\n", info.NotFinite)
		}
		fmt.Fprintf(out, "digests: encoder_q %s, encoder_k %s, optimizer %s, queue %s\n", info.Digest.EncoderQ, info.Digest.EncoderK, info.Digest.Optimizer, info.Digest.Queue)
		return nil
	}
	return c
}

// inspected describes a checkpoint, or what would be taken of another program's
// file.
func inspected(path string, errs io.Writer) (checkpoint.Info, error) {
	path = checkpoint.Within(path)
	if !convert.IsForeign(path) {
		return checkpoint.Inspect(path)
	}
	c, report, err := convert.Load(path, convert.LoadOptions{})
	if err != nil {
		return checkpoint.Info{}, err
	}
	report.Say(errs)
	return checkpoint.Describe(path, report.Layout, c.State)
}

func diffCommand() *cli.Command {
	c := cli.NewCommand("diff A B", cli.Text{
		Short:   "compare two checkpoints",
		About:   "compare the checkpoints A and B; fails when tensors or shapes differ",
		Example: "mochi diff a.safetensors b.safetensors --tolerance 1e-3 --json",
	})
	asJSON := c.Bool("json", false, "print one JSON object")
	tolerance := c.Float64("tolerance", -1, "fail when max_rel is above `X`; negative = report only")
	c.Run = func(args []string, out, errs io.Writer) error {
		d, err := checkpoint.Diff(checkpoint.Within(args[0]), checkpoint.Within(args[1]))
		if err != nil {
			return err
		}
		if *asJSON {
			if err := cli.PrintJSON(out, d); err != nil {
				return err
			}
		} else {
			fmt.Fprintf(out, "%d tensors, ", d.Tensors)
			if d.Worst == "" {
				fmt.Fprintln(out, "equal to the bit")
			} else {
				fmt.Fprintf(out, "max_abs %.3g, max_rel %.3g in %s\n", d.MaxAbs, d.MaxRel, d.Worst)
			}
		}
		if len(d.Mismatched) > 0 {
			return fmt.Errorf("the checkpoints hold different tensors: %v", d.Mismatched)
		}
		if *tolerance >= 0 && !(d.MaxRel <= *tolerance) {
			return fmt.Errorf("max_rel %g in %s is above the tolerance %g", d.MaxRel, d.Worst, *tolerance)
		}
		return nil
	}
	return c
}
