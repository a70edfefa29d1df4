package gorgonia

import (
	"fmt"

	"mochi/model/engine"
	"mochi/model/network"
)

// layer is the arithmetic of one network.Node at a fixed batch size, by the
// kernels. A layer owns what its backward needs besides activations.
type layer interface {
	// forward computes y from the inputs x and the parameters w (in mode Eval
	// followed by the running statistics).
	forward(x, w [][]float32, y []float32)
	// reads says whether backward reads the inputs and the output.
	reads() (x, y bool)
	// backward computes the gradient dx of the inputs and dw of the parameters
	// from dy. x and y are nil where reads says no; dx is nil where no gradient
	// is wanted. The two inputs of OpAdd share one dx.
	backward(x, w [][]float32, y, dy, dx []float32, dw [][]float32)
}

// layer prepares the layer of a node.
func (b *builder) layer(n *network.Node) (layer, error) {
	in := b.net.Nodes[n.Inputs[0]].Out
	switch n.Op {
	case network.OpConv:
		return timed{newConv(b.team, b.spec.Batch, in, n), b.clock}, nil
	case network.OpBatchNorm:
		if b.spec.Mode == engine.Eval {
			return newEvalNorm(b.team, b.spec.Batch, n), nil
		}
		if b.spec.Batch*volume(n.Out[1:]) < 2 {
			return nil, fmt.Errorf("%s: a batch of 1 on 1×1 pixels has no variance; use a larger batch or larger images", n.Name)
		}
		statistic := func(j int) []float32 {
			t := b.net.Buffers[n.Buffers[j]]
			return b.statistics[t.Offset : t.Offset+t.Size]
		}
		return newNorm(b.team, b.spec.Batch, n, statistic(0), statistic(1)), nil
	case network.OpAdd:
		return add{b.team, n.ReLU}, nil
	case network.OpReLU:
		return relu{b.team, make([]float32, b.spec.Batch*volume(n.Out))}, nil
	case network.OpMaxPool:
		return newMaxPool(b.team, b.spec.Batch, in, n), nil
	case network.OpGlobalAvgPool:
		return avgPool{b.team, b.spec.Batch * in[0], in[1] * in[2]}, nil
	case network.OpLinear:
		return timed{linear{b.team, b.spec.Batch, in[0], n.Out[0]}, b.clock}, nil
	case network.OpL2Normalize:
		return newNormalize(b.team, b.spec.Batch, n.Out[0]), nil
	}
	return nil, fmt.Errorf("layer %q: operation %d: %w", n.Name, n.Op, engine.ErrUnsupported)
}

func volume(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
