package gorgonia

import (
	"mochi/model/engine/cpu"
	"mochi/model/network"
)

// conv is network.OpConv.
type conv struct {
	batch int
	*cpu.Convolution
}

func newConv(team *cpu.Team, batch int, in []int, n *network.Node) conv {
	return conv{batch, cpu.NewConvolution(team, cpu.Conv{
		InC: in[0], H: in[1], W: in[2], OutC: n.Out[0],
		Kernel: n.Kernel, Stride: n.Stride, Pad: n.Pad,
	})}
}

func (c conv) forward(x, w [][]float32, y []float32) { c.Forward(c.batch, x[0], w[0], y) }

func (c conv) reads() (x, y bool) { return true, false }

func (c conv) backward(x, w [][]float32, _, dy, dx []float32, dw [][]float32) {
	c.BackwardWeights(c.batch, x[0], dy, dw[0])
	if dx != nil { // the first convolution's is never wanted, and costs as much as its forward
		c.BackwardData(c.batch, dy, w[0], dx)
	}
}
