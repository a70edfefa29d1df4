package gorgonia

import "mochi/model/engine/cpu"

// linear is network.OpLinear.
type linear struct {
	team           *cpu.Team
	batch, in, out int
}

func (l linear) forward(x, w [][]float32, y []float32) {
	l.team.LinearForward(l.batch, l.in, l.out, x[0], w[0], w[1], y)
}

func (l linear) reads() (x, y bool) { return true, false }

func (l linear) backward(x, w [][]float32, _, dy, dx []float32, dw [][]float32) {
	l.team.LinearBackward(l.batch, l.in, l.out, x[0], w[0], dy, dx, dw[0], dw[1])
}

// normalize is network.OpL2Normalize.
type normalize struct {
	team        *cpu.Team
	batch, size int
	norms       []float32
}

func newNormalize(team *cpu.Team, batch, size int) normalize {
	return normalize{team, batch, size, make([]float32, batch)}
}

func (l normalize) forward(x, _ [][]float32, y []float32) {
	l.team.L2NormalizeForward(l.batch, l.size, x[0], y, l.norms)
}

func (l normalize) reads() (x, y bool) { return false, true }

func (l normalize) backward(_, _ [][]float32, y, dy, dx []float32, _ [][]float32) {
	l.team.L2NormalizeBackward(l.batch, l.size, y, l.norms, dy, dx)
}
