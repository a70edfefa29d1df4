// Package gorgonia is the pure-Go engine: always there, CGO_ENABLED=0, and the
// reference for the others.
//
// A network becomes an expression graph of gorgonia.org/gorgonia; gorgonia
// differentiates it symbolically and its tape machine runs it. The operations
// are this package's own (see op and layer), because gorgonia's are slow, lack
// gradients, or differ from torch in corners; their numbers come from package
// cpu. Forward and backward are one run of the tape machine, which an op
// interrupts between them to hand out the embeddings and wait for their
// gradient.
//
// Results are bit-identical for any number of threads and from run to run on
// one instruction set. Cost: activations of a training program are kept until
// backward has read them, forward-only programs need little more than their
// two or three largest layers; graph and tape take 1–3 % of a ResNet-20 step
// (28×28, batch 32) on one thread and about 50 kB of garbage, whatever the
// size of the layers.
package gorgonia

import (
	"fmt"
	"runtime"
	"time"

	// gorgonia.org/tensor refuses to start unless this says that the garbage
	// collector of the running Go version does not move objects.
	_ "go4.org/unsafe/assume-no-moving-gc"

	"mochi/model/engine"
	"mochi/model/engine/cpu"
	"mochi/model/network"
)

// Name is what Info and the command line call this engine.
const Name = "gorgonia"

type gorgoniaEngine struct {
	info  engine.Info
	team  *cpu.Team
	clock clock
}

// New starts an engine and its compute threads; Close ends them. Only
// engine.FP32 is supported; Config.Device is ignored.
//
// States of one engine share its threads: their layers run one after another,
// each on all threads.
func New(cfg engine.Config) (engine.Engine, error) {
	if cfg.Precision != "" && cfg.Precision != engine.FP32 {
		return nil, fmt.Errorf("engine gorgonia: precision %q: %w: it computes in %s only; use --precision %s or another engine",
			cfg.Precision, engine.ErrPrecision, engine.FP32, engine.FP32)
	}
	if cfg.Threads < 0 {
		return nil, fmt.Errorf("engine gorgonia: threads: %d; use 0 for all cores, or at least 1", cfg.Threads)
	}
	threads := cfg.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &gorgoniaEngine{
		team: cpu.NewTeam(threads),
		info: engine.Info{Name: Name, Threads: threads, Numerics: Name + " " + cpu.Numerics(),
			Device: fmt.Sprintf("CPU, %d threads, %s kernels", threads, cpu.Describe())},
	}, nil
}

func (e *gorgoniaEngine) Info() engine.Info { return e.info }

func (e *gorgoniaEngine) NewState(net *network.Network) (engine.State, error) {
	return newState(e.team, &e.clock, net), nil
}

func (e *gorgoniaEngine) Products() engine.Products { return products{e.team, &e.clock} }

func (e *gorgoniaEngine) Contrast() engine.Contrast { return cpu.Contrast{} }

// Close ends the compute threads. States and programs of the engine must not
// be used afterwards.
func (e *gorgoniaEngine) Close() error {
	e.team.Close()
	return nil
}

// products are the kernels' matrix products; safe for concurrent use.
type products struct {
	team  *cpu.Team
	clock *clock
}

func (p products) NT(m, n, k int, a, b, c []float32) {
	defer p.clock.since(time.Now())
	p.team.NT(m, n, k, a, b, c, false)
}

func (p products) NN(m, n, k int, a, b, c []float32) {
	defer p.clock.since(time.Now())
	p.team.NN(m, n, k, a, b, c, false)
}
