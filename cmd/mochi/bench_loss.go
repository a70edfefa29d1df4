package main

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/limits"
	"mochi/model/loss"
	"mochi/replica/criterion"
	"mochi/replica/queue"
)

// lossBench is the JSON object of mochi bench loss.
type lossBench struct {
	LossP50 float64 `json:"loss_ms_p50"`         // MoCHi, loss and gradient
	MoCoP50 float64 `json:"moco_ms_p50"`         // the same without synthetic negatives
	ExtraMB float64 `json:"extra_mb"`            // resident memory of the MoCHi loss beyond the queue and the inputs
	PeakRSS float64 `json:"peak_rss_mb"`         // of all, queue included
	Device  float64 `json:"device_mb,omitempty"` // on a GPU, of the MoCHi loss, its copy of the keys included
	Storage string  `json:"queue_storage"`
	Engine  string  `json:"engine"`
}

// benchShards is the default number of virtual shards.
const benchShards = 16

func benchLossCommand() *cli.Command {
	c := cli.NewCommand("bench loss", cli.Text{
		Short:   "time the MoCHi loss",
		About:   "time the MoCHi loss and its gradient beside MoCo's, interleaved",
		Example: "mochi bench loss --batch 32 --queue 65536 --dim 128 --mochi 1024,1024,128 --iterations 10 --json",
	})
	batch := c.Int("batch", 32, "`B`: queries")
	k := c.Int("queue", 65536, "`K`: queue length")
	dim := c.Int("dim", 128, "`d`: embedding dimension")
	mix := config.MoCHi{N: 1024, S: 1024, S2: 128}
	c.Func("mochi", "`N,s,s2`: hard negatives, synthetic ones from pairs and from the query (default 1024,1024,128)", func(v string) (err error) { mix, err = config.ParseMoCHi(v); return err })
	var engineName string
	engines.AddFlag(c, &engineName, "")
	threads := c.Int("threads", 0, "compute threads; 0 = all cores")
	storage := c.String("queue-storage", "fp32", "fp32 or bf16 `format` of the keys in memory; similarities are fp32 in both")
	c.Complete("queue-storage", "fp32", "bf16")
	iterations := c.Int("iterations", 10, "timed repetitions")
	asJSON := c.Bool("json", false, "print one JSON object")
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		f.AtLeast(1, "batch", *batch)
		f.AtLeast(1, "queue", *k)
		f.AtLeast(1, "dim", *dim)
		f.AtLeast(1, "iterations", *iterations)
		f.AtLeast(0, "threads", *threads)
		limits.MoCHi(mix.N, mix.S, mix.S2, *k, f.Add)
		format, known := map[string]queue.Storage{"fp32": queue.FP32, "bf16": queue.BF16}[*storage]
		if !known {
			f.Add("queue-storage", "%q; use fp32 or bf16", *storage)
		}
		engines.Check(&f, engineName, engine.Config{Precision: engine.FP32, Threads: 1})
		if err := f.Err(); err != nil {
			return err
		}
		eng, why, err := engines.Open(engineName, engine.Config{Precision: engine.FP32, Threads: *threads})
		if err != nil {
			return err
		}
		defer eng.Close()
		fmt.Fprintln(errs, why)

		rng := rand.New(rand.NewPCG(1, 2))
		in := lossInput{q: unitRows(rng, *batch, *dim), pos: unitRows(rng, *batch, *dim), batch: *batch, k: *k, dim: *dim}
		negatives := queue.NewStored(*k, *dim, min(benchShards, *k), format)
		negatives.Init(1)
		in.shards = criterion.AppendShards(nil, negatives, false)
		base := peakRSS()
		l, mochi, err := in.runner(eng, mix)
		if err != nil {
			return err
		}
		defer l.Close()
		if err := mochi(0); err != nil { // touches the memory
			return err
		}
		extra := max(0, peakRSS()-base)
		plain, moco, err := in.runner(eng, config.MoCHi{})
		if err != nil {
			return err
		}
		defer plain.Close()
		if err := moco(0); err != nil {
			return err
		}
		var a, b []float64
		for i := range *iterations {
			for _, side := range []struct {
				run func(step int64) error
				ms  *[]float64
			}{{mochi, &a}, {moco, &b}} {
				start := time.Now()
				if err := side.run(int64(i + 1)); err != nil {
					return err
				}
				*side.ms = append(*side.ms, time.Since(start).Seconds()*1e3)
			}
		}
		r := lossBench{LossP50: percentile(a, 50), MoCoP50: percentile(b, 50), ExtraMB: extra,
			PeakRSS: peakRSS(), Storage: *storage, Engine: eng.Info().Name, Device: float64(l.DeviceBytes()) / 1e6}
		if *asJSON {
			return cli.PrintJSON(out, r)
		}
		fmt.Fprintf(out, "MoCHi %.2f ms, MoCo %.2f ms (%.2f ×), %.1f MB extra (%.0f MB in all, %s queue)", r.LossP50, r.MoCoP50, r.LossP50/r.MoCoP50, r.ExtraMB, r.PeakRSS, r.Storage)
		if r.Device > 0 {
			fmt.Fprintf(out, ", %.1f MB on the GPU", r.Device)
		}
		fmt.Fprintln(out)
		return nil
	}
	return c
}

// lossInput is what both losses are computed of.
type lossInput struct {
	q, pos []float32 // [batch, dim]
	shards []loss.Shard
	batch  int
	k, dim int
}

// runner returns a loss of (N, s, s′) and a function that computes one batch of
// it, with its gradient.
func (in lossInput) runner(eng engine.Engine, mix config.MoCHi) (l *loss.Loss, run func(step int64) error, err error) {
	l, err = loss.New(loss.Config{
		N: mix.N, S: mix.S, S2: mix.S2, Temperature: 0.2, Shards: min(benchShards, in.k), Threads: eng.Info().Threads,
	}, in.dim, in.batch, in.k, eng.Contrast())
	if err != nil {
		return nil, nil, err
	}
	out := loss.Output{DQ: make([]float32, in.batch*in.dim)}
	samples := make([]int, in.batch)
	for i := range samples {
		samples[i] = i
	}
	return l, func(step int64) error {
		return l.Compute(loss.Input{
			Queries: loss.Queries{Q: in.q, Samples: samples, Step: step, Mix: true},
			Pos:     in.pos, Shards: in.shards, Scale: 1 / float64(in.batch),
		}, &out)
	}, nil
}

// unitRows makes n random rows of length 1.
func unitRows(rng *rand.Rand, n, d int) []float32 {
	v := make([]float32, n*d)
	for i := range n {
		row, sum := v[i*d:(i+1)*d], 0.0
		for j := range row {
			row[j] = float32(rng.NormFloat64())
			sum += float64(row[j]) * float64(row[j])
		}
		for j := range row {
			row[j] /= float32(math.Sqrt(sum))
		}
	}
	return v
}
