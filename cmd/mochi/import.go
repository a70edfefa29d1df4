package main

import (
	"fmt"
	"io"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/convert"
	"mochi/model/network"
	"mochi/replica/checkpoint"
)

func importCommand() *cli.Command {
	c := cli.NewCommand("import FILE", cli.Text{
		Short:   "make a checkpoint of another program's file",
		About:   "make a checkpoint of an encoder by MoCo, lightly, solo-learn, MMPreTrain, torchvision, timm or transformers (docs/export.md); nothing in FILE is executed",
		Example: "mochi import moco_v2_800ep_pretrain.pth.tar --out moco.safetensors",
	})
	path := c.String("out", "", "`CHECKPOINT` to write")
	arch := c.String("arch", "", "take it for network `A`; empty: the one that fits")
	c.Complete("arch", network.Architectures()...)
	size := c.Int("image-size", 0, "pixels that it was trained with; 0 = 224, or 32 where the stem is made for small images")
	asJSON := c.Bool("json", false, "print one JSON object")
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		if *path == "" {
			f.Add("out", "missing: the checkpoint to write")
		}
		f.AtLeast(0, "image-size", *size)
		if *arch != "" && network.SmallestImage(*arch) == 0 {
			f.Add("arch", "%q is not known; there are %v", *arch, network.Architectures())
		}
		if err := f.Err(); err != nil {
			return err
		}
		made, report, err := convert.Load(args[0], convert.LoadOptions{Arch: *arch, ImageSize: *size})
		if err != nil {
			return err
		}
		if report == nil {
			return fmt.Errorf("%s is a checkpoint of mochi already", args[0])
		}
		if err := checkpoint.Save(*path, made.State); err != nil {
			return err
		}
		if *asJSON {
			return cli.PrintJSON(out, report)
		}
		report.Say(out)
		return nil
	}
	return c
}
