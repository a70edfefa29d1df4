package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/evaluate"
	"mochi/cmd/mochi/run"
	"mochi/replica/data"
)

// nearestTo is what mochi embed --neighbours is asked for.
type nearestTo struct {
	image, out string
	count      int
	json       bool
}

// neighbours is the JSON object of mochi embed --neighbours.
type neighbours struct {
	Out        string               `json:"out"`
	Feature    string               `json:"feature"`
	Of         string               `json:"of"` // the image
	LeftOut    int                  `json:"left_out"`
	Neighbours []evaluate.Neighbour `json:"neighbours"`
}

// nearest writes the sheet and lists what is on it. Ctrl-C leaves nothing.
func nearest(enc *evaluate.Encoders, splits map[string]data.Dataset, o evaluate.EmbedOptions, to nearestTo, r *embedded, out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	found, err := enc.Nearest(ctx, to.image, to.count, splits, o)
	if ctx.Err() != nil {
		return cli.ErrInterrupted
	}
	if err != nil {
		return fmt.Errorf("neighbours of %s: %w", to.image, err)
	}
	draw := found.Page
	if filepath.Ext(to.out) == ".png" {
		draw = found.Picture
	}
	sheet, err := draw()
	if err == nil {
		err = run.WriteFile(to.out, sheet)
	}
	if err != nil {
		return err
	}
	if to.json {
		return cli.PrintJSON(out, neighbours{to.out, r.Feature, to.image, r.LeftOut, found.Near})
	}
	for _, n := range found.Near {
		fmt.Fprintf(out, "%.4f %s %s %s\n", n.Cosine, n.Split, n.Class, n.Path)
	}
	fmt.Fprintf(out, "%s: %s, the nearest first, by the cosine of %s features\n", to.out, cli.Count(len(found.Near), "neighbour"), r.Feature)
	return nil
}
