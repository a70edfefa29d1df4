package main

import (
	"fmt"
	"io"
	"strings"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/convert"
	"mochi/replica/checkpoint"
)

func exportCommand() *cli.Command {
	c := cli.NewCommand("export CHECKPOINT", cli.Text{
		Short:   "write a checkpoint for another program",
		About:   "write the encoder of CHECKPOINT as other programs read it (docs/export.md)",
		Example: "mochi export runs/first/checkpoints/latest.safetensors --format torchvision --out backbone.pth\nmochi export runs/first/checkpoints/latest.safetensors --format timm --out my-resnet50",
	})
	format := c.String("format", "", "`F`: "+strings.Join(convert.Formats(), ", "))
	c.Complete("format", convert.Formats()...)
	path := c.String("out", "", "`PATH` of the file, or of the folder that timm takes")
	encoder := c.String("encoder", "query", "which `E`: query, or key, its moving average")
	c.Complete("encoder", "query", "key")
	fold := c.Bool("fold-bn", false, "onnx: make BatchNorms part of the convolutions (smaller; rounds otherwise than training does)")
	asJSON := c.Bool("json", false, "print one JSON object")
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		if *format == "" {
			f.Add("format", "missing: one of %s", strings.Join(convert.Formats(), ", "))
		} else {
			f.OneOf("format", *format, convert.Formats()...)
		}
		if *path == "" {
			f.Add("out", "missing: where to write")
		}
		f.OneOf("encoder", *encoder, "query", "key")
		if *fold && *format != convert.ONNX {
			f.Add("fold-bn", "is for --format onnx only")
		}
		if *format == convert.MoCo && c.Given("encoder") {
			f.Add("encoder", "a file of MoCo holds both encoders")
		}
		if err := f.Err(); err != nil {
			return err
		}
		c, report, err := convert.Load(checkpoint.Within(args[0]), convert.LoadOptions{})
		if err != nil {
			return err
		}
		if report != nil {
			report.Say(errs)
		}
		done, err := convert.Export(c, *path, convert.ExportOptions{Format: *format, Key: *encoder == "key", FoldBN: *fold})
		if err != nil {
			return fmt.Errorf("export %s: %w", args[0], err)
		}
		for _, note := range done.Notes {
			fmt.Fprintf(errs, "note: %s\n", note)
		}
		if *asJSON {
			return cli.PrintJSON(out, done)
		}
		fmt.Fprintf(out, "%s: %s of step %d for %s, %d bytes\n", done.Path, done.Arch, done.Step, done.Format, done.Bytes)
		return nil
	}
	return c
}
