package gorgonia

import (
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"mochi/model/engine/cpu"
)

// add is network.OpAdd. Without the ReLU its gradient is dy itself, which the
// graph passes on without calling backward.
type add struct {
	team *cpu.Team
	relu bool
}

func (l add) forward(x, _ [][]float32, y []float32) {
	if l.relu {
		l.team.AddReLU(x[0], x[1], y)
	} else {
		l.team.Add(x[0], x[1], y)
	}
}

func (l add) reads() (x, y bool) { return false, true }

func (l add) backward(_, _ [][]float32, y, dy, dx []float32, _ [][]float32) {
	l.team.ReLUBackward(y, dy, dx)
}

// relu is network.OpReLU. It adds zeros because the kernels' plain ReLU turns
// NaN into 0, which would hide a diverged network; their AddReLU keeps it.
type relu struct {
	team  *cpu.Team
	zeros []float32
}

func (l relu) forward(x, _ [][]float32, y []float32) { l.team.AddReLU(x[0], l.zeros, y) }

func (l relu) reads() (x, y bool) { return false, true }

func (l relu) backward(_, _ [][]float32, y, dy, dx []float32, _ [][]float32) {
	l.team.ReLUBackward(y, dy, dx)
}

// accumulator is the tensor engine of the tape machine: gorgonia's own, except
// that the one operation gorgonia adds by itself, the sum of the gradients of
// a value with several readers, runs on the kernels. The machine offers the
// first term's memory for the sum once nothing else reads it; then nothing is
// allocated.
type accumulator struct {
	gorgonia.StandardEngine
	team *cpu.Team
}

// Add implements tensor.Adder.
func (a *accumulator) Add(x, y tensor.Tensor, opts ...tensor.FuncOpt) (tensor.Tensor, error) {
	p, isDense := x.(*tensor.Dense)
	q, _ := y.(*tensor.Dense)
	sum, reuse := tensor.ParseFuncOpts(opts...).Reuse().(*tensor.Dense)
	if !isDense || q == nil || !p.Shape().Eq(q.Shape()) || p.Dtype() != tensor.Float32 {
		return a.StandardEngine.Add(x, y, opts...)
	}
	if !reuse || !sum.Shape().Eq(p.Shape()) {
		sum = dense(p.Shape().Clone(), make([]float32, p.Shape().TotalSize()))
	}
	a.team.Add(p.Float32s(), q.Float32s(), sum.Float32s())
	return sum, nil
}
