package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/replica/augment"
	"mochi/replica/data"
	"mochi/replica/data/shards"
)

// packResult is the JSON object of mochi data pack.
type packResult struct {
	Images  int      `json:"images"`
	Shards  []string `json:"shards"`
	Bytes   int64    `json:"bytes"`
	LeftOut []string `json:"left_out"` // could not be read
}

func dataPackCommand() *cli.Command {
	c := cli.NewCommand("data pack DIR OUT", cli.Text{
		Short:   "write a data set to WebDataset tar shards",
		About:   "write the images of the data set DIR to WebDataset shards OUT, a pattern such as train-{000..}.tar",
		Example: "mochi data pack ~/images 'shards/train-{000..}.tar'     (with a test split: shards/val-{000..}.tar too)\nmochi data pack ~/images 'val-{00..}.tar' --split test --shard-size 100M\nmochi data pack --data ~/photos --data ~/more --out 'shards/train-{000..}.tar'",
	})
	sources := cli.AddData(c, "`PATH` of the data instead of the argument DIR")
	cache := cli.AddCache(c, engines.BuildIdentity)
	c.Instead("DIR", "data")
	target := c.String("out", "", "`PATTERN` of the shards instead of the argument OUT")
	c.Instead("OUT", "out")
	splitName := c.String("split", "", "`SPLIT` to pack: train or test; by default both where OUT has train in its name, else train")
	c.Complete("split", "train", "test")
	size := byteSize(256 << 20)
	c.Var(&size, "shard-size", "`BYTES` of a shard, about; k, M, G are powers of 1024")
	strict := c.Bool("strict-data", false, "an image that cannot be read is an error; else it is left out and reported")
	asJSON := c.Bool("json", false, "print one JSON object")
	limit := cli.LimitImages(c)
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		if args[0] != "" {
			*sources = append(*sources, args[0])
		}
		if args[1] != "" {
			*target = args[1]
		}
		set := cli.OpenData(&f, *sources, errs, cache)
		limit(&f, set)
		type part struct {
			split   data.Dataset
			pattern string
		}
		var parts []part
		if set != nil {
			dir, base := filepath.Split(*target)
			at := strings.LastIndex(base, "train")
			switch {
			case *splitName == "test" && set.Test == nil:
				f.Add("split", "%s has no test split", strings.Join(*sources, " with "))
			case *splitName == "test":
				parts = []part{{set.Test, *target}}
			case *splitName == "train" || *splitName == "" && (set.Test == nil || at < 0):
				parts = []part{{set.Train, *target}}
			case *splitName == "":
				parts = []part{{set.Train, *target}, {set.Test, dir + base[:at] + "val" + base[at+len("train"):]}}
			default:
				f.Add("split", "%q is neither train nor test", *splitName)
			}
		}
		var packers []*shards.Packer
		for _, p := range parts {
			packer, err := shards.NewPacker(p.pattern, int64(size))
			f.AddErr("OUT", err)
			if err == nil {
				packers = append(packers, packer)
				defer packer.Abandon()
			}
		}
		if err := f.Err(); err != nil {
			return err
		}
		fmt.Fprintln(errs, set.Announce)
		if *strict {
			if err := set.Strict(); err != nil {
				return err
			}
		}
		if *splitName == "" && len(parts) == 1 && set.Test != nil {
			fmt.Fprintf(errs, "note: the %s are not packed; --split test does that\n", cli.Count(set.Test.Len(), "test image"))
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		result := packResult{Shards: []string{}, LeftOut: []string{}}
		say := cli.Occasionally(errs)
		for i, p := range parts {
			err := pack(ctx, p.split, packers[i], say, func(e *data.CorruptError) error {
				if *strict {
					return fmt.Errorf("%w (--strict-data)", e)
				}
				fmt.Fprintf(errs, "left out: %v\n", e)
				result.LeftOut = append(result.LeftOut, e.Path)
				return nil
			})
			if errors.Is(err, context.Canceled) {
				return cli.ErrInterrupted
			}
			if err != nil {
				return err
			}
		}
		for _, packer := range packers { // all is written: give it its names
			names, err := packer.Finish()
			if err != nil {
				return err
			}
			result.Images += packer.Items()
			result.Shards = append(result.Shards, names...)
			for _, name := range names {
				if info, err := os.Stat(name); err == nil {
					result.Bytes += info.Size()
				}
			}
		}
		if *asJSON {
			return cli.PrintJSON(out, result)
		}
		fmt.Fprintf(out, "%s in %s, %s: %s … %s\n", cli.Count(result.Images, "image"), cli.Count(len(result.Shards), "shard"), data.Bytes(result.Bytes), result.Shards[0], result.Shards[len(result.Shards)-1])
		if n := len(result.LeftOut); n > 0 {
			fmt.Fprintf(out, "%s could not be read and were left out\n", cli.Count(n, "image"))
		}
		return nil
	}
	return c
}

// pack writes a split in its order. Encoded images are copied as they are,
// others become PNG.
func pack(ctx context.Context, d data.Dataset, p *shards.Packer, say func(string), leaveOut func(*data.CorruptError) error) error {
	decoder := data.NewDecoder()
	defer decoder.Close()
	names, _ := d.(interface{ ClassName(int) string })
	for i := range d.Len() {
		if err := ctx.Err(); err != nil {
			return err
		}
		item, err := packed(d, i, decoder)
		var bad *data.CorruptError
		if errors.As(err, &bad) {
			if err := leaveOut(bad); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if item.Class = d.Label(i); item.Class >= 0 && names != nil {
			item.ClassName = names.ClassName(int(item.Class))
		}
		if err := p.Add(item); err != nil {
			return err
		}
		say(fmt.Sprintf("packed %d of %s", i+1, cli.Count(d.Len(), "image")))
	}
	return nil
}

// packed is sample i without its class.
func packed(d data.Dataset, i int, decoder *data.Decoder) (shards.Item, error) {
	encoded, at, ok := data.File(d, i)
	if !ok {
		img, err := d.Decode(i, decoder)
		if err != nil {
			return shards.Item{}, err
		}
		var b bytes.Buffer
		if err := png.Encode(&b, rgba(img)); err != nil {
			return shards.Item{}, err
		}
		return shards.Item{Content: b.Bytes(), Extension: "png", File: filepath.Base(d.Path(i))}, nil
	}
	content, err := encoded.Content(at, decoder)
	if err != nil {
		return shards.Item{}, err
	}
	head, err := data.ReadHeader(content)
	if err != nil {
		return shards.Item{}, &data.CorruptError{Path: d.Path(i), Err: err}
	}
	return shards.Item{Content: content, Extension: data.Extension(head.Format), File: encoded.Name(at)}, nil
}

func rgba(img *augment.Image) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, img.W, img.H))
	for i := range img.W * img.H {
		copy(m.Pix[4*i:], img.Pix[3*i:3*i+3])
		m.Pix[4*i+3] = 255
	}
	return m
}

// byteSize is a flag in bytes: 1000, 64k, 256M, 1G.
type byteSize int64

// String implements pflag.Value.
func (b *byteSize) String() string {
	if *b >= 1<<20 && *b%(1<<20) == 0 {
		return fmt.Sprintf("%dM", *b>>20)
	}
	return fmt.Sprint(int64(*b))
}

// Type implements pflag.Value.
func (b *byteSize) Type() string { return "bytes" }

// Set implements pflag.Value.
func (b *byteSize) Set(text string) error {
	var n int64
	var unit string
	if k, err := fmt.Sscanf(text+" ", "%d%s", &n, &unit); k < 1 || n < 1 || k == 1 && err != nil && unit != "" {
		return errors.New("not a number of bytes, such as 256M")
	}
	shift, known := map[string]uint{"": 0, "k": 10, "K": 10, "M": 20, "G": 30}[unit]
	if !known || n > 1<<40>>shift {
		return errors.New("not a number of bytes, such as 256M")
	}
	*b = byteSize(n << shift)
	return nil
}
