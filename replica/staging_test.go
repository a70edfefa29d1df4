package replica_test

import (
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"unsafe"

	"mochi/model/engine"
	"mochi/model/engine/enginetest"
	"mochi/model/engine/gorgonia"
	"mochi/model/network"
	"mochi/replica"
	"mochi/replica/replicatest"
)

// staging is an engine that takes images beforehand, as one with a device does:
// a goroutine reads them some time between Stage and the Forward that they are
// for. All of this package's tests run on it; under the race detector they
// would see memory that is given away too early.
type staging struct{ engine.Engine }

func openTestEngine(p engine.Precision) (engine.Engine, error) {
	e, err := gorgonia.New(engine.Config{Precision: p, Threads: 1})
	return staging{e}, err
}

func (e staging) NewState(net *network.Network) (engine.State, error) {
	s, err := e.Engine.NewState(net)
	return stagingState{s}, err
}

type stagingState struct{ engine.State }

func (s stagingState) Compile(spec engine.Spec) (engine.Program, error) {
	p, err := s.State.Compile(spec)
	return &stagingProgram{Program: p}, err
}

// together is staging with programs of several groups: those of one group each.
// With rounds, their results depend on how many there are, as those of a library
// do that takes another algorithm for another batch size.
type together struct {
	staging
	rounds bool
}

// openTogether opens such an engine.
func openTogether(rounds bool) replica.OpenEngine {
	return func(p engine.Precision) (engine.Engine, error) {
		e, err := openTestEngine(p)
		return together{e.(staging), rounds}, err
	}
}

func (e together) NewState(net *network.Network) (engine.State, error) {
	s, err := e.Engine.NewState(net)
	return togetherState{stagingState{s}, e.rounds}, err
}

type togetherState struct {
	stagingState
	rounds bool
}

func (s togetherState) CompileGroups(spec engine.Spec, n int) (engine.Program, error) {
	p := &togetherProgram{net: s.Network()}
	if s.rounds {
		p.factor = 1 + float32(n)/1024
	}
	for range n {
		one, err := s.State.Compile(spec)
		if err != nil {
			return nil, err
		}
		p.Groups = append(p.Groups, one)
	}
	return &stagingProgram{Program: p}, nil
}

type togetherProgram struct {
	enginetest.Together
	net    *network.Network
	factor float32 // of gradients and statistics; 0: none
}

func (p *togetherProgram) scale(x []float32) {
	for i := range x {
		if p.factor != 0 {
			x[i] *= p.factor
		}
	}
}

func (p *togetherProgram) Statistics(dst []float32) {
	p.Together.Statistics(dst)
	p.scale(dst)
}

// Backward has a parameter's gradients of all groups when the last group's is
// there, and no number where they are not final.
func (p *togetherProgram) Backward(d, grads []float32, ready func(param int)) (err error) {
	for i := range grads {
		grads[i] = float32(math.NaN())
	}
	parts := make([]float32, len(grads))
	for j, one := range p.Groups {
		last := j == len(p.Groups)-1
		err = errors.Join(err, one.Backward(p.Row(d, j), p.Row(parts, j), func(param int) {
			if !last {
				return
			}
			t := p.net.Params[param]
			for g := range p.Groups {
				to := p.Row(grads, g)[t.Offset : t.Offset+t.Size]
				copy(to, p.Row(parts, g)[t.Offset:])
				p.scale(to)
			}
			if ready != nil {
				ready(param)
			}
		}))
	}
	return err
}

type stagingProgram struct {
	engine.Program
	images, copied []float32
	done           chan struct{}
}

// counts of all programs: Forwards, those whose images were staged, and those
// whose images had changed since.
var stagedCounts struct{ forwards, found, changed atomic.Int64 }

func (p *stagingProgram) Stage(images []float32) error {
	if p.images != nil {
		<-p.done
	}
	p.images = images
	done := make(chan struct{})
	p.done = done
	go func() { p.copied = append(p.copied[:0], images...); close(done) }()
	return nil
}

func (p *stagingProgram) Unstage() error {
	if p.images != nil {
		<-p.done
	}
	p.images = nil
	return nil
}

func (p *stagingProgram) Forward(images, dst []float32) error {
	stagedCounts.forwards.Add(1)
	if p.images != nil && unsafe.SliceData(p.images) == unsafe.SliceData(images) {
		<-p.done
		stagedCounts.found.Add(1)
		if !slices.Equal(p.copied, images) {
			stagedCounts.changed.Add(1)
		}
		images = slices.Clone(p.copied) // a device has no other
	}
	if err := p.Unstage(); err != nil {
		return err
	}
	return p.Program.Forward(images, dst)
}

func (p *stagingProgram) Close() error { p.Unstage(); return p.Program.Close() }

// All queries but a key's own are on their way before they are asked for, and
// the first keys of a step when the loader has been quick enough; what is found
// staged is what was to be computed on.
func TestImagesAreStaged(t *testing.T) {
	before := [3]int64{stagedCounts.forwards.Load(), stagedCounts.found.Load(), stagedCounts.changed.Load()}
	cfg := testConfig()
	const steps = 6
	train(t, replicatest.NewScript(cfg, steps), replicatest.Pictures{N: 30, Size: 12})
	forwards, found, changed := stagedCounts.forwards.Load()-before[0], stagedCounts.found.Load()-before[1], stagedCounts.changed.Load()-before[2]
	queries := int64(steps * cfg.Groups())
	if forwards != 2*queries || found < queries || changed != 0 {
		t.Errorf("%d forwards, %d on staged images, %d of which had changed; want at least the %d of queries", forwards, found, changed, queries)
	}
	t.Logf("%d of %d forwards on staged images", found, forwards)
}
