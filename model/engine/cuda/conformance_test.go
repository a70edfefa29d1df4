//go:build gpu

package cuda

import (
	"errors"
	"slices"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/plan"
	"mochi/model/engine/enginetest"
	"mochi/model/engine/schedule"
	"mochi/model/network"
)

// The whole contract, in fp32.
func TestConformance(t *testing.T) { enginetest.Run(t, New) }

// And in bf16, with every stored value held against the float64 layer on the
// engine's own input. As a whole three of the suite's networks are farther than
// a unit of bf16 from a reference that rounds for itself: in one the first
// BatchNorm puts 2 of 12288 values on the other side of a boundary, which move
// 45 behind it and one past a ReLU; in the other two it is a single value.
func TestConformanceBF16(t *testing.T) {
	enginetest.RunPromise(t, func(cfg engine.Config) (engine.Engine, error) {
		e, err := New(cfg)
		if err != nil {
			return nil, err
		}
		return traced{e, t}, nil
	}, enginetest.Promise{Precision: engine.BF16, RoundsWeightGrads: true})
}

// traced makes programs that show what they store (engine.Tracer).
type traced struct {
	engine.Engine
	t *testing.T
}

type tracedState struct {
	engine.State
	t *testing.T
}

type tracedProgram struct {
	*program
	t                  *testing.T
	images, d          []float32
	outputs, gradients map[int][]float32 // by node
}

func (e traced) NewState(net *network.Network) (engine.State, error) {
	s, err := e.Engine.NewState(net)
	if err != nil {
		return nil, err
	}
	return tracedState{s, e.t}, nil
}

func (s tracedState) Compile(spec engine.Spec) (engine.Program, error) {
	p, err := s.State.Compile(spec)
	if err != nil {
		return nil, err
	}
	return &tracedProgram{program: p.(*program), t: s.t}, nil
}

func (p *tracedProgram) Forward(images, dst []float32) error {
	p.images = slices.Clone(images)
	return p.program.Forward(images, dst)
}

func (p *tracedProgram) Backward(d, grads []float32, ready func(int)) error {
	p.d = slices.Clone(d)
	return p.program.Backward(d, grads, ready)
}

// Trace runs the last step again, operation by operation, and reads what each
// of them stores before the next may use its memory. Its gradients must be
// those of the step as it is trained.
func (p *tracedProgram) Trace() (outputs, gradients map[int][]float32) {
	p.t.Helper()
	p.outputs, p.gradients = map[int][]float32{}, map[int][]float32{}
	r := pair{t: p.t}
	grads := r.floats(p.program, p.program.gradients(), p.grads())
	copy(p.input.Floats(len(p.images)), p.images)
	copy(p.dOutput.Floats(len(p.d)), p.d)
	for _, o := range slices.Concat(p.plan.Forward, p.plan.Backward) {
		r.step(p.program, o)
		p.see(r, o)
	}
	if !slices.Equal(grads, r.floats(p.program, p.program.gradients(), len(grads))) {
		p.t.Error("step by step, gradients are others than in one go")
	}
	return p.outputs, p.gradients
}

// see keeps what an operation has stored under the node whose work it is.
func (p *tracedProgram) see(r pair, o plan.Step) {
	net := p.s.net
	layer := func() int { return p.plan.Layers[o.Layer].Node }
	norm := func() int { return p.plan.Norms[o.Norm[0]].Node }
	switch o.Kind {
	case schedule.Conv:
		if !p.plan.Layers[o.Layer].Linear {
			p.outputs[layer()] = p.nchw(r, o.Out[0])
		}
	case schedule.Apply:
		node := norm()
		if o.In[1] != plan.None { // of an addition, the BatchNorm's only reader
			node = slices.IndexFunc(net.Nodes, func(n network.Node) bool { return slices.Contains(n.Inputs, node) })
		}
		p.outputs[node] = p.nchw(r, o.Out[0])
	case schedule.MaxPool:
		if o.Norm[0] != plan.None {
			p.outputs[norm()] = p.normalised(r, o)
		}
		p.outputs[layer()] = p.nchw(r, o.Out[0])
	case schedule.DataGrad:
		if !p.plan.Layers[o.Layer].Linear {
			p.gradients[layer()] = p.nchw(r, o.Out[0])
		}
	case schedule.GradApply:
		p.gradients[norm()] = p.nchw(r, o.Out[0])
	case schedule.MaxPoolGrad:
		p.gradients[layer()] = p.nchw(r, o.Out[0])
	case schedule.AvgPoolGrad:
		p.gradients[slices.IndexFunc(net.Nodes, func(n network.Node) bool { return n.Op == network.OpGlobalAvgPool })] = p.nchw(r, o.Out[0])
	}
}

// normalised is the input of a max pooling that normalises on the way and
// stores none of it: what BatchNorm's own kernel makes of the same values.
func (p *tracedProgram) normalised(r pair, o plan.Step) []float32 {
	in := p.plan.Tensors[o.In[0]]
	apply := plan.Step{Op: schedule.Op{Kind: schedule.Apply, In: [5]int{o.In[0], plan.None, plan.None, plan.None, plan.None},
		Norm: [2]int{o.Norm[0], plan.None}, ReLU: true}}
	q := *p.program
	copied := *p.plan
	copied.Tensors = append(slices.Clone(copied.Tensors), in)
	q.plan = &copied
	apply.Out = [2]int{len(copied.Tensors) - 1, plan.None}
	var space driver.Memory
	r.do(p.program, func() (err error) {
		space, err = p.s.e.device.Alloc(p.plan.Bytes(o.In[0]))
		return err
	})
	defer r.do(p.program, func() error { return errors.Join(p.s.e.work.Synchronize(), space.Release()) })
	copied.Tensors[apply.Out[0]].Offset = int(space.Pointer - p.arena.Pointer)
	r.step(&q, apply)
	return nchw(r.load(&q, apply.Out[0]), p.calls.Spec.Batch, in)
}

func (p *tracedProgram) nchw(r pair, t int) []float32 {
	return nchw(r.load(p.program, t), p.calls.Spec.Batch, p.plan.Tensors[t])
}

// nchw turns [batch, pixels, channels] around.
func nchw(v []float32, batch int, x plan.Tensor) []float32 {
	pixels := x.H * x.W
	channels := len(v) / (batch * pixels)
	out := make([]float32, len(v))
	for i, value := range v {
		at, c := i/channels, i%channels
		out[(at/pixels*channels+c)*pixels+at%pixels] = value
	}
	return out
}
