package main

import (
	"context"
	"fmt"
	"io"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/cmd/mochi/evaluate"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/loss"
	"mochi/model/network"
	"mochi/replica/augment"
)

func evalGeometryCommand() *cli.Command {
	c := cli.NewCommand("eval geometry", cli.Text{
		Short: "measure alignment, uniformity, proxy-task accuracy and spread of a checkpoint",
		About: "alignment and uniformity of the embeddings (Wang & Isola 2020), proxy-task accuracy against the checkpoint's queue, and spread per dimension",
		Example: "mochi eval geometry --checkpoint runs/first/checkpoints/latest.safetensors --data fashion-mnist --json\n" +
			"mochi eval geometry --checkpoint runs/first/checkpoints/latest.safetensors --data fashion-mnist --mochi 1024,1024,128 --oracle",
	})
	var e encoderFlags
	c.StringVar(&e.path, "checkpoint", "", "`FILE`, or random:ARCH for an untrained encoder and a queue of random vectors")
	sources := cli.AddData(c, "`PATH` of a data set (see mochi train --help); its test split is measured, the training split where there is none")
	cache := cli.AddCache(c, engines.BuildIdentity)
	images := c.Int("images", evaluate.GeometryImages, "images to measure on, evenly spaced; 0 = all")
	mix := config.MoCHi{}
	mixed := false
	c.Func("mochi", "`N,s,s2` of proxy_acc_hard (default the checkpoint's)", func(v string) (err error) {
		mix, err = config.ParseMoCHi(v)
		mixed = true
		return err
	})
	oracle := c.Bool("oracle", false, "leave keys of the image's own class out of the proxy task, as a checkpoint trained with --oracle does")
	recipe := c.String("recipe", "", "`R` that draws the two views (default the checkpoint's)")
	e.given = c.Given
	c.IntVar(&e.size, "image-size", 0, "pixels, for random:ARCH; 0 = the data set's own size, at most 224")
	c.StringVar(&e.head, "head", network.HeadLinear, "head `H`, for random:ARCH: "+cli.Words("head"))
	c.Uint64Var(&e.seed, "seed", 1, "seed of the views and of the mixing, and for random:ARCH")
	var engineName string
	engines.AddFlag(c, &engineName, "")
	threads := c.Int("threads", 0, "compute threads; 0 = all cores")
	asJSON := c.Bool("json", false, "print one JSON object")
	limit := cli.LimitImages(c)
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		f.AtLeast(0, "images", *images)
		f.AtLeast(0, "threads", *threads)
		engines.Check(&f, engineName, engine.Config{Precision: engine.FP32, Threads: 1})
		set := cli.OpenData(&f, *sources, errs, cache)
		limit(&f, set)
		e.check(&f, set)
		if err := f.Err(); err != nil {
			return err
		}
		st, net, err := e.load(errs)
		if err != nil {
			return err
		}
		cfg := e.config(net)
		if st.Config != "" {
			if cfg, err = config.Recorded([]byte(st.Config)); err != nil {
				return fmt.Errorf("%s: its config: %w", e.path, err)
			}
		}
		// What depends on the checkpoint's settings.
		if *recipe != "" {
			cfg.Recipe = *recipe
		}
		if !mixed {
			mix = cfg.MoCHi
		}
		cfg.Oracle = cfg.Oracle || *oracle
		f.AddErr("mochi", loss.Config{N: mix.N, S: mix.S, S2: mix.S2, Temperature: 1}.Validate(st.K))
		_, err = augment.New(cfg.Recipe, net.ImageSize)
		f.AddErr("recipe", err)
		checkOracle(&f, cfg, set)
		if err := f.Err(); err != nil {
			return err
		}
		fmt.Fprintln(errs, set.Announce)
		enc, err := evaluate.OpenEncoders(engineName, engine.Config{Precision: engine.FP32, Threads: *threads}, net, st)
		if err != nil {
			return err
		}
		defer enc.Close()
		fmt.Fprintln(errs, enc.Why)
		r, err := enc.Geometry(context.Background(), set, evaluate.GeometryOptions{
			Job:    cfg,
			Images: *images, MoCHi: mix, Oracle: cfg.Oracle, Seed: e.seed,
			Report:  func(text string) { fmt.Fprintln(errs, text) },
			Corrupt: leftOut(errs),
		})
		if err != nil {
			return err
		}
		if *asJSON {
			return cli.PrintJSON(out, r)
		}
		fmt.Fprintf(out, `alignment   %7.4f   mean ‖x−y‖² of two views of an image; 0 = alike, 2 = unrelated
uniformity  %7.4f   log mean e^{−2‖x−x′‖²} over images; 0 = one point, near −4 = evenly on the sphere
proxy task  %6.2f %%   of %d queries find their key among %d of the queue
            %6.2f %%   and among the synthetic negatives of MoCHi (%s)
similarity  %7.4f   with the key, %.4f with negatives, %.4f with the hardest
spread      %7.4f   per dimension %.4f to %.4f; 1 = as on the whole sphere, 0 = unused
`, r.Alignment, r.Uniformity, 100*r.Proxy, r.Images, r.Queue, 100*r.ProxyHard, r.MoCHi, r.PosSim, r.NegSim, r.HardestSim, r.Spread, r.SpreadMin, r.SpreadMax)
		return nil
	}
	return c
}
