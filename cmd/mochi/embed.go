package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/convert"
	"mochi/cmd/mochi/engines"
	"mochi/cmd/mochi/evaluate"
	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/model/exchange/npy"
	"mochi/model/exchange/parquet"
	"mochi/replica/data"
)

// embedded is the JSON object of mochi embed.
type embedded struct {
	Out     string  `json:"out"`
	Feature string  `json:"feature"`
	Dim     int     `json:"dim"`
	Images  int     `json:"images"` // rows written
	LeftOut int     `json:"left_out"`
	Rate    float64 `json:"images_per_s"`
}

func embedCommand() *cli.Command {
	c := cli.NewCommand("embed", cli.Text{
		Short: "write the features of images",
		About: "write the features of all images of a data set: X.npy with X.csv beside it (row, split, label, path), or X.parquet; or a sheet of those nearest to one image",
		Example: "mochi embed --checkpoint runs/first/checkpoints/latest.safetensors --data ~/images --out features.npy\n" +
			"mochi embed --checkpoint runs/first/checkpoints/latest.safetensors --data ~/images --neighbours cat.jpg --out near.html",
	})
	var e encoderFlags
	c.StringVar(&e.path, "checkpoint", "", "`FILE` (also one that mochi import takes), or random:ARCH for an untrained encoder")
	sources := cli.AddData(c, "`PATH` of a data set (see mochi train --help)")
	cache := cli.AddCache(c, engines.BuildIdentity)
	classes := c.String("classes", "", cli.ClassesFlag)
	path := c.String("out", "", "`FILE` to write, .npy or .parquet; with --neighbours .html or .png")
	near := c.String("neighbours", "", "write no features but a sheet of the images nearest to `IMAGE`, a JPEG or PNG file")
	count := c.Int("count", 17, "neighbours to show")
	feature := c.String("feature", string(eval.Backbone), "`F`: backbone (after global pooling) or embedding (after the head)")
	c.Complete("feature", string(eval.Backbone), string(eval.Embedding))
	encoder := c.String("encoder", "query", "which `E`: query, or key, its moving average")
	c.Complete("encoder", "query", "key")
	normalize := c.Bool("normalize", false, "scale each feature to length 1")
	split := c.String("split", "all", "`S`: train, test, or all")
	c.Complete("split", "train", "test", "all")
	e.addUntrained(c)
	var engineName string
	engines.AddFlag(c, &engineName, "")
	precision := c.String("precision", string(engine.FP32), "`P` of the encoder: fp32, or bf16 where the engine has it (twice as fast)")
	threads := c.Int("threads", 0, "compute threads; 0 = all cores")
	asJSON := c.Bool("json", false, "print one JSON object")
	limit := cli.LimitImages(c)
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		kinds := []string{".npy", ".parquet"}
		if *near != "" {
			kinds = []string{".html", ".png"}
			if _, err := os.Stat(*near); err != nil {
				f.Add("neighbours", "%v", err)
			}
		}
		if !slices.Contains(kinds, filepath.Ext(*path)) {
			f.Add("out", "%q ends neither in %s nor in %s", *path, kinds[0], kinds[1])
		}
		f.AtLeast(1, "count", *count)
		f.AtLeast(0, "threads", *threads)
		f.OneOf("feature", *feature, string(eval.Backbone), string(eval.Embedding))
		f.OneOf("encoder", *encoder, "query", "key")
		f.OneOf("split", *split, "train", "test", "all")
		engines.Check(&f, engineName, engine.Config{Precision: engine.Precision(*precision), Threads: 1})
		set := cli.OpenClasses(&f, *sources, *classes, errs, cache)
		limit(&f, set)
		if set != nil && set.Test == nil && *split == "test" {
			f.Add("split", "the data set has no test split")
		}
		e.check(&f, set)
		if err := f.Err(); err != nil {
			return err
		}
		enc, net, err := e.open(set, engineName, engine.Config{Precision: engine.Precision(*precision), Threads: *threads}, errs)
		if err != nil {
			return err
		}
		defer enc.Close()
		splits := map[string]data.Dataset{"train": set.Train, "test": set.Test}
		if set.Test == nil || *split == "train" {
			delete(splits, "test")
		}
		if *split == "test" {
			delete(splits, "train")
		}
		r := embedded{Out: *path, Feature: *feature}
		if r.Dim, err = eval.Feature(*feature).Len(net); err != nil {
			return err
		}
		o := evaluate.EmbedOptions{
			Feature: eval.Feature(*feature), Key: *encoder == "key", Normalize: *normalize,
			Progress: func(done, all int, rate float64) {
				r.Rate = rate
				fmt.Fprintf(errs, "%d/%d images, %.0f images/s\n", done, all, rate)
			},
			Corrupt: func(e *data.CorruptError) {
				r.LeftOut++
				fmt.Fprintf(errs, "%s cannot be decoded (%v); it is left out\n", e.Path, e.Err)
			},
		}
		if *near != "" {
			return nearest(enc, splits, o, nearestTo{*near, *path, *count, *asJSON}, &r, out)
		}
		if err := writeFeatures(enc, splits, o, &r); err != nil {
			return err
		}
		if *asJSON {
			return cli.PrintJSON(out, r)
		}
		fmt.Fprintf(out, "%s: %d features of %d values; %d images left out\n", r.Out, r.Images, r.Dim, r.LeftOut)
		return nil
	}
	return c
}

// writeFeatures writes the file, and its list of images where it has none inside.
// Ctrl-C leaves nothing.
func writeFeatures(enc *evaluate.Encoders, splits map[string]data.Dataset, o evaluate.EmbedOptions, r *embedded) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := convert.WriteFile(r.Out, func(file *os.File) error {
		if filepath.Ext(r.Out) == ".parquet" {
			w := parquet.NewWriter(file)
			var err error
			r.Images, err = enc.Embed(ctx, splits, o, func(list []evaluate.Embedded) error {
				rows := make([]parquet.Row, len(list))
				for i, e := range list {
					rows[i] = parquet.Row{Path: e.Path, Split: e.Split, Label: e.Label, Feature: e.Feature}
				}
				return w.Add(rows)
			})
			return errors.Join(err, w.Close())
		}
		w, err := npy.NewWriter(file, r.Dim)
		if err != nil {
			return err
		}
		records := [][]string{{"row", "split", "label", "path"}}
		if r.Images, err = enc.Embed(ctx, splits, o, func(list []evaluate.Embedded) error {
			for _, e := range list {
				records = append(records, []string{strconv.Itoa(len(records) - 1), e.Split, strconv.Itoa(int(e.Label)), e.Path})
				if err := w.Add(e.Feature); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		return convert.WriteFile(strings.TrimSuffix(r.Out, ".npy")+".csv", func(file *os.File) error {
			return csv.NewWriter(file).WriteAll(records)
		})
	})
	if ctx.Err() != nil {
		return cli.ErrInterrupted
	}
	return err
}
