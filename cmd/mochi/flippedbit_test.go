package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"testing"

	"mochi/cmd/mochi/engines"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/network"
	"mochi/replica"
	memory "mochi/replica/replicatest/cluster"
)

// flipper is an engine that flips the lowest bit of one gradient of one of its
// groups, in every step.
type flipper struct {
	engine.Engine
	at   func(net *network.Network) int // which gradient
	last bool                           // of the last of its groups, not of the first
}

func (e flipper) NewState(net *network.Network) (engine.State, error) {
	s, err := e.Engine.NewState(net)
	return &flippedState{State: s, e: e, at: e.at(net), first: true}, err
}

type flippedState struct {
	engine.State
	e     flipper
	at    int
	first bool // the next group is the first of a step
}

func (s *flippedState) Compile(spec engine.Spec) (engine.Program, error) {
	p, err := s.State.Compile(spec)
	return flippedProgram{p, s}, err
}

type flippedProgram struct {
	engine.Program
	s *flippedState
}

// Backward of the last group of a step says which parameters are final; so the
// next group is the first of a step, or one that is audited.
func (p flippedProgram) Backward(d, grads []float32, ready func(param int)) error {
	var final []int
	hold := ready
	if ready != nil {
		hold = func(param int) { final = append(final, param) }
	}
	if err := p.Program.Backward(d, grads, hold); err != nil {
		return err
	}
	if p.s.e.last && ready != nil || !p.s.e.last && p.s.first {
		grads[p.s.at] = math.Float32frombits(math.Float32bits(grads[p.s.at]) ^ 1)
	}
	p.s.first = ready != nil
	for _, param := range final {
		ready(param)
	}
	return nil
}

// gradients are places to flip a bit at.
var gradients = []struct {
	name string
	at   func(net *network.Network) int
}{
	{"the first weight", func(*network.Network) int { return 0 }},
	{"a bias in the middle", func(net *network.Network) int { return net.Params[len(net.Params)/2].Offset }},
	{"the largest layer", func(net *network.Network) int {
		at := slices.MaxFunc(net.Params, func(a, b network.Tensor) int { return a.Size - b.Size })
		return at.Offset + at.Size/3
	}},
	{"the last of all", func(net *network.Network) int { return net.NumParams() - 1 }},
}

// flipped runs a job of three, one of which flips a bit, and checks that it alone
// is named, in time.
func flipped(t *testing.T, engineName string, audit float64, bad flipper, steps int64, seed uint64) *memory.Cluster {
	t.Helper()
	open := func(p engine.Precision) (engine.Engine, error) {
		e, _, err := engines.Open(engineName, engine.Config{Precision: p, Threads: 1})
		return e, err
	}
	wrong := func(p engine.Precision) (engine.Engine, error) {
		e, err := open(p)
		f := bad
		f.Engine = e
		return f, err
	}
	c := config.Default()
	c.Arch, c.Head, c.ImageSize, c.Recipe = "resnet8", "linear", 12, "cifar"
	c.Batch, c.BNGroup, c.Queue, c.QueueShards, c.Dim, c.MoCHi = 12, 2, 48, 4, 16, config.MoCHi{N: 9, S: 12, S2: 5}
	c.LR, c.Steps, c.CheckpointEvery, c.KNNEvery, c.Audit = 0.01, steps, 0, 0, audit
	c.Seed = seed // it draws when each is audited
	got := memory.RunEngines(t, []replica.OpenEngine{open, wrong, open}, c, nil)
	if got.Failure != "" || len(got.Failed) != 1 || got.Failed[0].Name != "r1" || got.Refused["r1"] == nil {
		t.Errorf("%s: named are %+v, refused %v", got.Failure, got.Failed, got.Refused)
	}
	return got
}

// A member that flips the lowest bit of one gradient in every step is named, in
// whatever layer and group it is, on every engine of this build, within the steps
// that its audits take. MOCHI_LONG=1: at the default share, within 999 steps.
func TestFlippedBitIsNamedOnEveryEngine(t *testing.T) {
	audit, steps := 0.25, int64(7)
	if os.Getenv("MOCHI_LONG") != "" {
		audit, steps = config.Default().Audit, 999
	}
	for _, name := range engines.BuiltIn() {
		if name == "cuda" {
			continue // its states hold no gradients that a test could reach
		}
		for i, g := range gradients {
			for _, last := range []bool{false, true} {
				if testing.Short() && (i%2 == 0) == last {
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, last group %v", name, g.name, last), func(t *testing.T) {
					got := flipped(t, name, audit, flipper{at: g.at, last: last}, steps, uint64(i))
					if len(got.Failed) == 1 {
						t.Logf("named in step %d", got.Failed[0].Step)
					}
				})
			}
		}
	}
}
