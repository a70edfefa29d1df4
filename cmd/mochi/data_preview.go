package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"os/signal"
	"syscall"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/cmd/mochi/run"
	"mochi/replica/augment"
	"mochi/replica/data/sheet"
)

func dataPreviewCommand() *cli.Command {
	c := cli.NewCommand("data preview", cli.Text{
		Short:   "draw a contact sheet: images and the two views of each",
		About:   "draw a contact sheet: images with their query view and key view side by side, as the encoders see them",
		Example: "mochi data preview --data ~/images --recipe moco-v2 --out sheet.png",
	})
	sources := cli.AddData(c, "`PATH` of the data set (see mochi train --help)")
	cache := cli.AddCache(c, engines.BuildIdentity)
	recipeName := c.String("recipe", "moco-v2", "`R`: "+cli.Words("recipe"))
	size := c.Int("size", 0, "height and width of a view, pixels; 0 = the first image's own, at most 224")
	path := c.String("out", "", "`FILE` to write, PNG")
	images := c.Int("images", 16, "images to show, spread over the training split")
	columns := c.Int("columns", 2, "images a row")
	seed := c.Uint64("seed", 1, "seed of the views")
	epoch := c.Int("epoch", 0, "epoch whose views to show, from 0")
	limit := cli.LimitImages(c)
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		if *path == "" {
			f.Add("out", "missing: the PNG FILE to write")
		}
		f.AtLeast(0, "size", *size)
		f.AtLeast(1, "images", *images)
		f.AtLeast(1, "columns", *columns)
		f.AtLeast(0, "epoch", *epoch)
		set := cli.OpenData(&f, *sources, errs, cache)
		limit(&f, set)
		if set != nil && *size == 0 {
			var err error
			if *size, err = naturalSize(set.Train); err != nil {
				*size = 224
			}
		}
		recipe, err := augment.New(*recipeName, max(1, *size))
		f.AddErr("recipe, size", err)
		if err := f.Err(); err != nil {
			return err
		}
		fmt.Fprintln(errs, set.Announce)
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		picture, corrupt, err := sheet.Draw(ctx, set.Train, recipe, sheet.Options{Images: *images, Columns: *columns, Seed: *seed, Epoch: *epoch})
		if errors.Is(err, context.Canceled) {
			return cli.ErrInterrupted
		}
		if err != nil {
			return err
		}
		for _, e := range corrupt {
			fmt.Fprintf(errs, "shown red: %v\n", e)
		}
		var sheetPNG bytes.Buffer
		if err := png.Encode(&sheetPNG, picture); err != nil {
			return fmt.Errorf("draw the sheet: %w", err)
		}
		if err := run.WriteFile(*path, sheetPNG.Bytes()); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: %s, each with its query view and its key view (%s, %d×%d pixels)\n", *path, cli.Count(min(*images, set.Train.Len()), "image"), *recipeName, *size, *size)
		return nil
	}
	return c
}
