package gorgonia

import (
	"mochi/model/engine/cpu"
	"mochi/model/network"
)

// norm is network.OpBatchNorm on the statistics of the batch.
type norm struct {
	team           *cpu.Team
	shape          cpu.BatchNorm
	mean, variance []float32 // the program's statistics of this layer
	invStd         []float32
	unwanted       []float32 // dx where nobody asks for it
}

func newNorm(team *cpu.Team, batch int, n *network.Node, mean, variance []float32) *norm {
	return &norm{team: team, shape: normShape(batch, n), mean: mean, variance: variance, invStd: make([]float32, len(mean))}
}

func normShape(batch int, n *network.Node) cpu.BatchNorm {
	return cpu.BatchNorm{Batch: batch, Channels: n.Out[0], Pixels: n.Out[1] * n.Out[2], ReLU: n.ReLU}
}

func (l *norm) forward(x, w [][]float32, y []float32) {
	l.team.BatchNormForward(l.shape, x[0], w[0], w[1], y, l.mean, l.invStd, l.variance)
}

func (l *norm) reads() (x, y bool) { return true, l.shape.ReLU }

func (l *norm) backward(x, w [][]float32, y, dy, dx []float32, dw [][]float32) {
	if dx == nil {
		if l.unwanted == nil {
			l.unwanted = make([]float32, len(dy))
		}
		dx = l.unwanted
	}
	l.team.BatchNormBackward(l.shape, x[0], y, dy, w[0], l.mean, l.invStd, dx, dw[0], dw[1])
}

// evalNorm is network.OpBatchNorm on the running statistics.
type evalNorm struct {
	team  *cpu.Team
	shape cpu.BatchNorm
}

func newEvalNorm(team *cpu.Team, batch int, n *network.Node) evalNorm {
	return evalNorm{team, normShape(batch, n)}
}

func (l evalNorm) forward(x, w [][]float32, y []float32) {
	l.team.BatchNormEval(l.shape, x[0], w[0], w[1], w[2], w[3], y)
}

func (l evalNorm) reads() (x, y bool) { return false, false }

func (l evalNorm) backward([][]float32, [][]float32, []float32, []float32, []float32, [][]float32) {
	panic("BatchNorm on running statistics has no backward")
}
