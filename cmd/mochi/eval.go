package main

import (
	"fmt"
	"io"
	"strings"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/convert"
	"mochi/cmd/mochi/evaluate"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/network"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
)

// encoderFlags name the encoder to evaluate.
type encoderFlags struct {
	path, head string
	size       int
	seed       uint64
	given      func(flag string) bool
}

// addUntrained adds the flags that say what random:ARCH is.
func (e *encoderFlags) addUntrained(c *cli.Command) {
	e.given = c.Given
	c.IntVar(&e.size, "image-size", 0, "pixels, for random:ARCH (0 = the data set's own size, at most 224) and for files of other programs (0 = 224 or 32)")
	c.StringVar(&e.head, "head", network.HeadLinear, "head `H`, for random:ARCH: "+cli.Words("head"))
	c.Uint64Var(&e.seed, "seed", 1, "seed of random:ARCH, and of whatever else is drawn")
}

// check adds what is wrong with the flags to f; size 0 becomes the data's.
func (e *encoderFlags) check(f *cli.Faults, set *data.Set) {
	e.effective(f, e.path)
	e.checkEncoder(f, set)
}

// effective refuses flags that none of these encoders takes.
func (e *encoderFlags) effective(f *cli.Faults, paths ...string) {
	random, sized := false, false
	for _, path := range paths {
		untrained := strings.HasPrefix(path, "random:")
		random = random || untrained
		sized = sized || untrained || path == "" || convert.IsForeign(checkpoint.Within(path))
	}
	if e.given("image-size") && !sized {
		f.Add("image-size", "has no effect: a checkpoint is evaluated at the size that it was trained with. It is for random:ARCH and for files of other programs")
	}
	if e.given("head") && !random && paths[0] != "" {
		f.Add("head", "has no effect: a checkpoint has its own. It is for random:ARCH")
	}
}

// checkEncoder is check of the encoder alone.
func (e *encoderFlags) checkEncoder(f *cli.Faults, set *data.Set) {
	if e.path == "" {
		f.Add("checkpoint", "missing: a FILE or random:ARCH")
	}
	f.AtLeast(0, "image-size", e.size)
	arch, random := strings.CutPrefix(e.path, "random:")
	if !random {
		return
	}
	if e.size == 0 && set != nil {
		size, err := naturalSize(set.Train)
		if err != nil {
			f.Add("image-size", "the first image says nothing (%v); give it", err)
			return
		}
		e.size = size
	}
	probe := e.size
	if probe == 0 {
		probe = 224 // the data's fault is said already
	}
	if _, err := e.untrained(arch, probe); err != nil {
		f.Add("checkpoint", "%v", err)
	}
}

func (e *encoderFlags) untrained(arch string, size int) (*network.Network, error) {
	return network.Build(arch, network.Options{Channels: 3, ImageSize: size, Dim: 128, Head: e.head})
}

// load reads or makes the encoder. Of another program's file it says what was
// taken.
func (e *encoderFlags) load(errs io.Writer) (*checkpoint.State, *network.Network, error) {
	arch, random := strings.CutPrefix(e.path, "random:")
	if !random {
		c, report, err := convert.Load(checkpoint.Within(e.path), convert.LoadOptions{ImageSize: e.size})
		if report != nil {
			report.Say(errs)
		}
		return c.State, c.Net, err
	}
	net, err := e.untrained(arch, e.size)
	if err != nil {
		return nil, nil, err
	}
	return evaluate.InitialState(e.config(net), net), net, nil
}

// open loads the encoder and opens an engine with it. It says what the data is, which
// engine, and the size of images.
func (e *encoderFlags) open(set *data.Set, engineName string, cfg engine.Config, errs io.Writer) (*evaluate.Encoders, *network.Network, error) {
	fmt.Fprintln(errs, set.Announce)
	st, net, err := e.load(errs)
	if err != nil {
		return nil, nil, err
	}
	enc, err := evaluate.OpenEncoders(engineName, cfg, net, st)
	if err != nil {
		return nil, nil, err
	}
	fmt.Fprintln(errs, enc.Why)
	fmt.Fprintf(errs, "%s, images of %d×%d pixels\n", net.Arch, net.ImageSize, net.ImageSize)
	return enc, net, nil
}

// config is what an untrained encoder would be trained with.
func (e *encoderFlags) config(net *network.Network) config.Job {
	cfg := config.Default()
	cfg.Arch, cfg.Head, cfg.ImageSize, cfg.Dim, cfg.Seed = net.Arch, e.head, net.ImageSize, net.Dim, e.seed
	return cfg
}

// naturalSize is the height of the first image, at most 224.
func naturalSize(ds data.Dataset) (int, error) {
	d := data.NewDecoder()
	defer d.Close()
	img, err := ds.Decode(0, d)
	if err != nil {
		return 0, err
	}
	return min(img.W, img.H, 224), nil
}
