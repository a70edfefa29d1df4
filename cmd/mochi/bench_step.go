package main

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/coordinator/protocol/config"
	"mochi/model"
	"mochi/model/engine"
	"mochi/model/loss"
	"mochi/model/network"
	"mochi/replica"
	"mochi/replica/queue"
)

// stepBench is the JSON object of mochi bench step.
type stepBench struct {
	StepP50  float64            `json:"step_ms_p50"`
	StepP99  float64            `json:"step_ms_p99"`
	ImagesPS float64            `json:"images_per_s"`
	KernelMS float64            `json:"kernel_ms"` // convolutions and matrix products alone, median
	Phases   map[string]float64 `json:"phases"`    // medians, ms; those of a device by its own clock too
	PeakRSS  float64            `json:"peak_rss_mb"`
	Allocs   float64            `json:"allocs_per_step"`
	Engine   string             `json:"engine"`
	Device   string             `json:"device"`
	Versions map[string]string  `json:"versions"` // of driver and libraries
	Steps    int                `json:"steps"`
	AtOnce   int                `json:"groups_at_once"` // that the engine computed; 1 where it cannot do more
}

// kernelTimer is implemented by engines that can say how long their
// convolutions and matrix products took, since they were made.
type kernelTimer interface{ KernelTime() time.Duration }

// deviceTimer is implemented by engines that time their device by its own clock,
// by phase, since they were made.
type deviceTimer interface {
	DeviceTime() map[string]time.Duration
}

func benchStepCommand() *cli.Command {
	c := cli.NewCommand("bench step", cli.Text{
		Short:   "time a training step of one replica",
		About:   "time the whole step of one replica on random images in memory",
		Example: "mochi bench step --arch resnet20 --batch 128 --bn-group 32 --queue 4096 --mochi 256,256,32 --steps 10 --json",
	})
	steps := c.Int("steps", 10, "timed steps")
	warmup := c.Int("warmup", 2, "steps before the first timed one")
	var engineName string
	engines.AddFlag(c, &engineName, "")
	threads := c.Int("threads", 0, "compute threads; 0 = all cores")
	tune := c.Bool("tune", false, engines.TuneHelp)
	asJSON := c.Bool("json", false, "print one JSON object")
	training := cli.AddTraining(c, func(name string) bool { return slices.Contains(stepSettings(), name) })
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		cfg := training.Job(c, &f, func(c *config.Job) { fitStep(training, c) })
		f.AtLeast(1, "steps", *steps)
		f.AtLeast(0, "warmup", *warmup)
		f.AtLeast(0, "threads", *threads)
		needs := engines.ConfigOf(cfg, *threads, 0)
		needs.Tune = *tune
		engines.Check(&f, engineName, engine.Config{Precision: needs.Precision, Threads: 1, Tune: *tune})
		if err := f.Err(); err != nil {
			return err
		}
		eng, why, err := engines.Open(engineName, needs)
		if err != nil {
			return err
		}
		defer eng.Close()
		fmt.Fprintln(errs, why)
		fmt.Fprintf(errs, "%s, %d×%d pixels, batch %d in groups of %d, queue %d, MoCHi %s, %s\n",
			cfg.Arch, cfg.ImageSize, cfg.ImageSize, cfg.Batch, cfg.BNGroup, cfg.Queue, cfg.MoCHi, cfg.Precision)
		b, err := newStepBencher(eng, cfg)
		if err != nil {
			return err
		}
		defer b.close()
		r, err := b.run(*warmup, *steps, errs)
		if err != nil {
			return err
		}
		if *asJSON {
			return cli.PrintJSON(out, r)
		}
		fmt.Fprintf(out, "step %.1f ms (p99 %.1f), %.1f images/s, kernels %.1f ms, peak %.0f MB, %.0f allocations a step\n",
			r.StepP50, r.StepP99, r.ImagesPS, r.KernelMS, r.PeakRSS, r.Allocs)
		for _, name := range slices.Sorted(maps.Keys(r.Phases)) {
			fmt.Fprintf(out, "  %-14s %8.2f ms\n", name, r.Phases[name])
		}
		return nil
	}
	return c
}

// stepSettings are the settings that change how long a step takes.
func stepSettings() []string {
	return []string{"arch", "head", "image-size", "batch", "bn-group", "groups-at-once", "queue", "queue-shards", "queue-storage", "dim", "temperature", "momentum", "mochi", "precision", "seed"}
}

// fitStep lets what was not given follow what was, where neither a preset nor
// a file says: images of the size the network is made for, no group larger
// than the batch, no more hard negatives than the queue holds.
func fitStep(t *cli.Training, c *config.Job) {
	c.MinReplicas, c.MaxReplicas = 1, 0
	if t.Based() {
		return
	}
	free := func(name string) bool { return !t.Given(name) }
	if !slices.Contains([]string{"resnet18", "resnet34", "resnet50"}, c.Arch) {
		if free("image-size") {
			c.ImageSize = 32
		}
		if free("head") {
			c.Head = network.HeadLinear
		}
	}
	if free("bn-group") {
		c.BNGroup = max(2, min(c.BNGroup, c.Batch))
	}
	if free("queue") {
		c.Queue = max(c.Queue, c.Batch)
	}
	if free("queue-shards") {
		c.QueueShards = min(c.QueueShards, c.Queue)
	}
	if free("mochi") {
		c.MoCHi.N = min(c.MoCHi.N, c.Queue)
	}
}

// stepBencher runs what a replica runs in a step, without input and network.
type stepBencher struct {
	cfg    config.Job
	eng    engine.Engine
	net    *network.Network
	moco   *model.MoCo
	queue  *queue.Queue
	images [][]float32 // two views a run
	keys   []float32
	first  leftovers          // of the first run; its first group's become the sum over all
	others leftovers          // of each other run
	loss   float64            // mean of the last step
	phases map[string]float64 // of the last step, ms

	samples []int
	labels  []int32
	shards  []loss.Shard
}

// leftovers is what a run of a program leaves of its n groups.
type leftovers struct {
	grads      []float32 // [n, NumParams]
	query, key []float32 // [n, NumBuffers]
}

func newStepBencher(eng engine.Engine, cfg config.Job) (*stepBencher, error) {
	net, err := cfg.Network()
	if err != nil {
		return nil, err
	}
	moco, err := model.New(eng, net, replica.ModelConfig(cfg))
	if err != nil {
		return nil, err
	}
	b := &stepBencher{cfg: cfg, eng: eng, net: net, moco: moco, queue: queue.NewStored(cfg.Queue, cfg.Dim, cfg.QueueShards, replica.QueueStorage(cfg))}
	moco.InitState(cfg.Seed)
	b.queue.Init(cfg.Seed)
	rng := rand.New(rand.NewPCG(cfg.Seed, 1))
	n := moco.GroupsAtOnce()
	for range 2 * cfg.Groups() / n {
		v := make([]float32, n*cfg.BNGroup*3*cfg.ImageSize*cfg.ImageSize)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		b.images = append(b.images, v)
	}
	b.keys = make([]float32, cfg.Batch*cfg.Dim)
	for _, l := range []*leftovers{&b.first, &b.others} {
		p, s := n*net.NumParams(), n*net.NumBuffers()
		*l = leftovers{make([]float32, p), make([]float32, s), make([]float32, s)}
		if n == cfg.Groups() {
			break // there are no others
		}
	}
	b.phases = map[string]float64{}
	b.samples = make([]int, n*cfg.BNGroup)
	b.labels = make([]int32, cfg.Batch)
	return b, nil
}

func (b *stepBencher) close() {
	b.moco.Close()
}

func (b *stepBencher) run(warmup, steps int, errs io.Writer) (stepBench, error) {
	r := stepBench{Phases: map[string]float64{}, Engine: b.eng.Info().Name, Device: b.eng.Info().Device, Versions: b.eng.Info().Versions, Steps: steps, AtOnce: b.moco.GroupsAtOnce()}
	timer, _ := b.eng.(kernelTimer)
	device, _ := b.eng.(deviceTimer)
	var spent map[string]time.Duration
	var total, kernel []float64
	phases := map[string][]float64{}
	// Counts the whole process; the embedded server's library samples the
	// process's load once a second, at some six allocations.
	var before, after runtime.MemStats
	for i := range warmup + steps {
		runtime.ReadMemStats(&before)
		var k0 time.Duration
		if timer != nil {
			k0 = timer.KernelTime()
		}
		if device != nil {
			spent = device.DeviceTime()
		}
		start := time.Now()
		if err := b.step(int64(i + 1)); err != nil {
			return r, err
		}
		took := time.Since(start)
		if i < warmup {
			continue
		}
		runtime.ReadMemStats(&after)
		r.Allocs += float64(after.Mallocs-before.Mallocs) / float64(steps)
		total = append(total, took.Seconds()*1e3)
		if timer != nil {
			kernel = append(kernel, (timer.KernelTime()-k0).Seconds()*1e3)
		}
		if device != nil {
			for name, v := range device.DeviceTime() {
				b.phases[name] = (v - spent[name]).Seconds() * 1e3
			}
		}
		for name, v := range b.phases {
			phases[name] = append(phases[name], v)
		}
		fmt.Fprintf(errs, "step %d/%d: %.1f ms\n", i-warmup+1, steps, took.Seconds()*1e3)
	}
	r.StepP50, r.StepP99 = percentile(total, 50), percentile(total, 99)
	r.ImagesPS = float64(b.cfg.Batch) / r.StepP50 * 1e3
	r.KernelMS = percentile(kernel, 50)
	for name, v := range phases {
		r.Phases[name] = percentile(v, 50)
	}
	r.PeakRSS = peakRSS()
	return r, nil
}

// step is one step of one replica that has all groups.
func (b *stepBencher) step(step int64) error {
	ms := b.phases
	clear(ms)
	last := time.Now()
	end := func(name string) {
		now := time.Now()
		ms[name] += now.Sub(last).Seconds() * 1e3
		last = now
	}
	n, d := len(b.samples), b.cfg.Dim
	runs := b.cfg.Batch / n
	p, nb := b.net.NumParams(), b.net.NumBuffers()
	b.loss = 0
	if err := b.moco.StageQueries(b.images[1]); err != nil { // as a replica does
		return err
	}
	for i := range runs {
		into := b.into(i)
		if err := b.moco.Keys(b.images[2*i], b.keys[i*n*d:(i+1)*n*d], into.key); err != nil {
			return err
		}
		gather(b.first.key[:nb], into.key, i == 0)
	}
	end("key_forward")
	b.shards = replica.AppendShards(b.shards[:0], b.queue, false)
	for i := range runs {
		for j := range b.samples {
			b.samples[j] = i*n + j
		}
		in := model.StepInput{
			Images: b.images[2*i+1], Positives: b.keys[i*n*d : (i+1)*n*d], Samples: b.samples,
			Shards: b.shards, Step: step, BatchSize: b.cfg.Batch, Mix: true,
		}
		if i+1 < runs {
			in.Next = b.images[2*i+3]
		} else if err := b.moco.StageKeys(b.images[0]); err != nil {
			return err
		}
		into := b.into(i)
		reports, err := b.moco.Step(in, into.grads, into.query, nil)
		if err != nil {
			return err
		}
		last = time.Now()
		gather(b.first.grads[:p], into.grads, i == 0)
		gather(b.first.query[:nb], into.query, i == 0)
		end("accumulate")
		for _, r := range reports {
			b.loss += r.Loss / float64(b.cfg.Batch)
			ms["query_forward"] += r.Forward.Seconds() * 1e3
			ms["loss"] += r.Criterion.Seconds() * 1e3
			ms["backward"] += r.Backward.Seconds() * 1e3
		}
	}
	last = time.Now()
	for j := range nb { // of statistics, the mean
		b.first.query[j] /= float32(b.cfg.Groups())
		b.first.key[j] /= float32(b.cfg.Groups())
	}
	if err := b.moco.Apply(b.first.grads[:p], b.first.query[:nb], b.first.key[:nb], b.cfg.LR); err != nil {
		return err
	}
	end("update")
	if err := b.queue.Enqueue(b.keys, b.labels); err != nil {
		return err
	}
	end("enqueue")
	return nil
}

// into is where run i's results go.
func (b *stepBencher) into(i int) *leftovers {
	if i == 0 {
		return &b.first
	}
	return &b.others
}

// gather adds the rows of a run to the sum, which is the first row of the first.
func gather(sum, rows []float32, first bool) {
	if first {
		rows = rows[len(sum):]
	}
	for ; len(rows) > 0; rows = rows[len(sum):] {
		for j, x := range rows[:len(sum)] {
			sum[j] += x
		}
	}
}
