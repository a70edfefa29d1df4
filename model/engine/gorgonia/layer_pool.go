package gorgonia

import (
	"mochi/model/engine/cpu"
	"mochi/model/network"
)

// maxPool is network.OpMaxPool.
type maxPool struct {
	team   *cpu.Team
	shape  cpu.MaxPool
	batch  int
	argmax []int32
}

func newMaxPool(team *cpu.Team, batch int, in []int, n *network.Node) *maxPool {
	return &maxPool{team: team, batch: batch, argmax: make([]int32, batch*volume(n.Out)), shape: cpu.MaxPool{
		C: in[0], H: in[1], W: in[2], Kernel: n.Kernel, Stride: n.Stride, Pad: n.Pad,
	}}
}

func (l *maxPool) forward(x, _ [][]float32, y []float32) {
	l.team.MaxPoolForward(l.shape, l.batch, x[0], y, l.argmax)
}

func (l *maxPool) reads() (x, y bool) { return false, false }

func (l *maxPool) backward(_, _ [][]float32, _, dy, dx []float32, _ [][]float32) {
	l.team.MaxPoolBackward(l.shape, l.batch, dy, l.argmax, dx)
}

// avgPool is network.OpGlobalAvgPool.
type avgPool struct {
	team         *cpu.Team
	rows, pixels int
}

func (l avgPool) forward(x, _ [][]float32, y []float32) {
	l.team.GlobalAvgPoolForward(l.rows, l.pixels, x[0], y)
}

func (l avgPool) reads() (x, y bool) { return false, false }

func (l avgPool) backward(_, _ [][]float32, _, dy, dx []float32, _ [][]float32) {
	l.team.GlobalAvgPoolBackward(l.rows, l.pixels, dy, dx)
}
