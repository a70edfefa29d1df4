package schedule

import (
	"slices"

	"mochi/model/network"
)

// part is one of the gradients that add up at a node: a tensor, and the
// operation that computes it if that is better done where it is used.
type part struct {
	tensor int
	before []Op
}

// backward emits the gradients of all nodes, last to first.
func (l *lowering) backward() {
	out := l.tensor(l.net.Output)
	l.grads[l.net.Output] = []part{{out, []Op{simple(Gradient, out)}}}
	for i := len(l.net.Nodes) - 1; i > 0; i-- {
		if len(l.grads[i]) > 0 || l.grad[i] != None {
			l.lowerGrad(i)
		}
	}
}

// gather reduces what has arrived at node i to at most n tensors.
func (l *lowering) gather(i, n int) (tensors []int, before []Op) {
	for _, p := range l.grads[i] {
		tensors = append(tensors, p.tensor)
		before = append(before, p.before...)
	}
	for len(tensors) > n {
		sum := l.tensor(i)
		before = append(before, simple(Add, sum, tensors[0], tensors[1]))
		tensors = append([]int{sum}, tensors[2:]...)
	}
	return tensors, before
}

// arrives gives node i a part of its gradient.
func (l *lowering) arrives(i, tensor int, before ...Op) {
	if i > 0 {
		l.grads[i] = append(l.grads[i], part{tensor, before})
	}
}

func (l *lowering) lowerGrad(i int) {
	n := l.net.Nodes[i]
	from := n.Inputs[0]
	switch n.Op {
	case network.OpBatchNorm:
		l.normGrad(i)
	case network.OpAdd:
		l.joinGrad(i)
	case network.OpConv, network.OpLinear:
		dy, ops := l.gather(i, 1)
		w := simple(WeightGrad, None)
		w.Layer = l.layer[i]
		if l.virtual(from) && l.layers[w.Layer].OwnGrad {
			b := l.net.Nodes[from]
			w.In[0], w.Norm[0], w.ReLU = l.value[b.Inputs[0]], l.norm[from], b.ReLU
		} else {
			x, before := l.read(from)
			w.In[0] = x
			ops = append(ops, before...)
		}
		w.In[1] = dy[0]
		ops = append(ops, w)
		if n.Op == network.OpLinear {
			b := simple(BiasGrad, None, dy[0])
			b.Layer = l.layer[i]
			ops = append(ops, b)
		}
		if from > 0 {
			d := simple(DataGrad, l.tensor(from), dy[0])
			d.Layer = l.layer[i]
			ops = append(ops, d)
			l.arrives(from, d.Out[0])
		}
		l.emit(ops)
	case network.OpMaxPool:
		dy, ops := l.gather(i, 1)
		o := simple(MaxPoolGrad, l.tensor(from), dy[0], l.places[i])
		o.Layer = l.layer[i]
		l.arrives(from, o.Out[0])
		l.emit(append(ops, o))
	case network.OpGlobalAvgPool:
		l.pass(i, AvgPoolGrad)
	case network.OpReLU:
		l.pass(i, ReLUGrad, l.value[i])
	case network.OpL2Normalize:
		l.pass(i, NormalizeGrad, l.value[i], l.places[i])
	}
}

// pass hands the gradient through an operation without parameters.
func (l *lowering) pass(i int, k Kind, more ...int) {
	from := l.net.Nodes[i].Inputs[0]
	dy, ops := l.gather(i, 1)
	if from == 0 {
		return
	}
	o := simple(k, l.tensor(from), append(dy, more...)...)
	l.arrives(from, o.Out[0])
	l.emit(append(ops, o))
}

// normGrad is a BatchNorm's: its sums, unless an addition has done them, and
// then the gradient of its input, where that is used.
func (l *lowering) normGrad(i int) {
	n := l.net.Nodes[i]
	x := l.value[n.Inputs[0]]
	apply := op(GradApply)
	apply.Norm[0], apply.In[3] = l.norm[i], x
	if g := l.grad[i]; g != None {
		apply.In[0] = g
	} else {
		dy, ops := l.gather(i, 2)
		sums := simple(Sums, None, dy...)
		sums.Norm[0], sums.In[3] = l.norm[i], x
		if n.ReLU {
			sums.Mask = MaskSelf
		}
		if len(dy) == 2 {
			sums.Out[0] = l.tensor(i)
			apply.In[0] = sums.Out[0]
		} else {
			apply.In[0], apply.Mask = dy[0], sums.Mask
		}
		l.emit(append(ops, sums))
	}
	if n.Inputs[0] > 0 {
		apply.Out[0] = l.tensor(n.Inputs[0])
		l.arrives(n.Inputs[0], apply.Out[0], apply)
	}
}

// joinGrad masks the gradient of an addition, hands it to stored inputs as it
// is, and does the sums of the BatchNorms in front.
func (l *lowering) joinGrad(i int) {
	n := l.net.Nodes[i]
	dy, ops := l.gather(i, 2)
	sums := simple(Sums, None, dy...)
	branch := 0
	for _, in := range n.Inputs {
		if l.virtual(in) {
			sums.Norm[branch], sums.In[3+branch] = l.norm[in], l.value[l.net.Nodes[in].Inputs[0]]
			branch++
		}
	}
	g := dy[0]
	if n.ReLU || len(dy) == 2 {
		g = l.tensor(i)
		sums.Out[0] = g
	}
	if n.ReLU {
		sums.Mask, sums.In[2] = MaskOutput, l.value[i]
	}
	if branch > 0 || sums.Out[0] != None {
		ops = append(ops, sums)
	}
	l.emit(ops)
	for _, in := range n.Inputs {
		if l.virtual(in) {
			l.grad[in] = g
		} else {
			l.arrives(in, g)
		}
	}
}

// unused lists the parameters without a gradient.
func (l *lowering) unused() (params []int) {
	for _, p := range l.phases {
		for _, i := range p.Ready {
			l.ready[i] = true
		}
	}
	for i, r := range l.ready {
		if !r {
			params = append(params, i)
		}
	}
	return slices.Clip(params)
}
