package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/model/limits"
	"mochi/replica/augment"
	"mochi/replica/data"
)

func benchInputCommand() *cli.Command {
	c := cli.NewCommand("bench input", cli.Text{
		Short:   "time decoding and augmentation",
		About:   "time decoding and augmentation; every image gives two views",
		Example: "mochi bench input --data ~/images --recipe moco-v2 --size 224 --workers 2 --seconds 5 --json",
	})
	sources := cli.AddData(c, "`PATH` of the data set (see mochi train --help)")
	cache := cli.AddCache(c, engines.BuildIdentity)
	recipeName := c.String("recipe", "moco-v2", "`R`: "+cli.Words("recipe"))
	size := c.Int("size", 224, "height and width of a view, pixels")
	workers := c.Int("workers", runtime.NumCPU(), "goroutines")
	seconds := c.Float64("seconds", 5, "duration of the measurement: two thirds with augmentation, one third decoding alone")
	asJSON := c.Bool("json", false, "print one JSON object")
	limit := cli.LimitImages(c)
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		f.AtLeast(1, "workers", *workers)
		limits.Range("above 0").Number("seconds", *seconds, f.Add)
		recipe, err := augment.New(*recipeName, *size)
		f.AddErr("recipe, size", err)
		set := cli.OpenData(&f, *sources, errs, cache)
		limit(&f, set)
		if err := f.Err(); err != nil {
			return err
		}
		fmt.Fprintln(errs, set.Announce)
		r, err := data.Bench(context.Background(), set.Train, recipe, *workers, time.Duration(*seconds*float64(time.Second)))
		if err != nil {
			return err
		}
		if *asJSON {
			return cli.PrintJSON(out, r)
		}
		fmt.Fprintf(out, "%.0f images/s (two views each), decoding alone %.0f images/s, %d corrupt\n", r.ImagesPerS, r.DecodeOnlyImagesPerS, r.Corrupt)
		return nil
	}
	return c
}
