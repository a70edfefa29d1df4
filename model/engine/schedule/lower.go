package schedule

import (
	"mochi/model/engine"
	"mochi/model/network"
)

// lowering turns nodes into operations and remembers what became of each.
type lowering struct {
	net   *network.Network
	o     Options
	train bool // batch statistics

	tensors []Tensor
	layers  []Layer
	norms   []Norm
	phases  []Phase
	fresh   bool // the next bundle begins a phase

	readers [][]int // of every node, a reader as often as it reads
	value   []int   // tensor of every node; None for a BatchNorm that is computed where it is read
	layer   []int   // of every node
	norm    []int
	places  []int // second output: of max pooling, and lengths
	lowered []bool

	grads [][]part // what has arrived at every node, backward
	grad  []int    // tensor of a BatchNorm's gradient whose sums are done
	ready []bool   // parameters
}

func newLowering(net *network.Network, o Options) *lowering {
	n := len(net.Nodes)
	l := &lowering{net: net, o: o, train: o.Spec.Mode != engine.Eval,
		readers: make([][]int, n), value: filled(n), layer: filled(n), norm: filled(n), places: filled(n),
		lowered: make([]bool, n), grads: make([][]part, n), grad: filled(n), ready: make([]bool, len(net.Params))}
	for i, node := range net.Nodes {
		for _, in := range node.Inputs {
			l.readers[in] = append(l.readers[in], i)
		}
		l.describe(i, node)
	}
	return l
}

func filled(n int) []int {
	v := make([]int, n)
	for i := range v {
		v[i] = None
	}
	return v
}

// describe lists the layers and norms.
func (l *lowering) describe(i int, n network.Node) {
	if len(n.Inputs) == 0 {
		return
	}
	in := l.net.Nodes[n.Inputs[0]].Out
	switch n.Op {
	case network.OpConv, network.OpMaxPool:
		y := Layer{Node: i, In: in[0], IH: in[1], IW: in[2], Out: n.Out[0], OH: n.Out[1], OW: n.Out[2],
			Kernel: n.Kernel, Stride: n.Stride, Pad: n.Pad, Type: l.o.Type, Weight: None, Bias: None}
		if y.Pool = n.Op == network.OpMaxPool; !y.Pool {
			y.Weight = n.Params[0]
			y.OwnGrad = l.o.OwnWeightGrad(y)
		}
		l.layer[i] = len(l.layers)
		l.layers = append(l.layers, y)
	case network.OpLinear:
		l.layer[i] = len(l.layers)
		l.layers = append(l.layers, Layer{Node: i, In: in[0], IH: 1, IW: 1, Out: n.Out[0], OH: 1, OW: 1,
			Kernel: 1, Stride: 1, Linear: true, Type: F32, Weight: n.Params[0], Bias: n.Params[1]})
	case network.OpBatchNorm:
		l.norm[i] = len(l.norms)
		l.norms = append(l.norms, Norm{Node: i, Channels: in[0], Pixels: in[1] * in[2]})
	}
}

// tensor makes a value with the shape of node i.
func (l *lowering) tensor(i int) int {
	out := l.net.Nodes[i].Out
	t := Tensor{H: 1, W: 1, C: out[0], Type: F32, first: None}
	if len(out) == 3 {
		t.H, t.W, t.Type = out[1], out[2], l.o.Type
	}
	return l.add(t)
}

func (l *lowering) add(t Tensor) int {
	l.tensors = append(l.tensors, t)
	return len(l.tensors) - 1
}

// op is an operation with everything missing.
func op(k Kind) Op {
	return Op{Kind: k, In: [5]int{None, None, None, None, None}, Out: [2]int{None, None}, Norm: [2]int{None, None}, Layer: None}
}

// simple is an operation on tensors alone.
func simple(k Kind, out int, in ...int) Op {
	o := op(k)
	o.Out[0] = out
	copy(o.In[:], in)
	return o
}

// virtual says whether node i is a BatchNorm whose output nobody stores: its
// only reader normalises on the way.
func (l *lowering) virtual(i int) bool {
	n := l.net.Nodes[i]
	if n.Op != network.OpBatchNorm || len(l.readers[i]) != 1 {
		return false
	}
	r := l.net.Nodes[l.readers[i][0]]
	switch r.Op {
	case network.OpConv:
		return !l.o.Stored
	case network.OpMaxPool:
		return n.ReLU
	case network.OpAdd:
		return !n.ReLU
	}
	return false
}

// read returns a tensor with the value of node i, and the operation that
// computes it first if it is not stored.
func (l *lowering) read(i int) (tensor int, before []Op) {
	if !l.virtual(i) {
		return l.value[i], nil
	}
	n := l.net.Nodes[i]
	o := simple(Apply, l.tensor(i), l.value[n.Inputs[0]])
	o.Norm[0], o.ReLU = l.norm[i], n.ReLU
	return o.Out[0], []Op{o}
}

func (l *lowering) forward() {
	for i := range l.net.Nodes {
		l.lower(i)
	}
	l.fresh = true
}

// lower emits node i, once.
func (l *lowering) lower(i int) {
	if l.lowered[i] {
		return
	}
	l.lowered[i] = true
	n := l.net.Nodes[i]
	if l.virtual(i) {
		return
	}
	l.value[i] = l.tensor(i)
	y := l.value[i]
	var ops []Op
	switch n.Op {
	case network.OpInput:
		ops = []Op{simple(Images, y)}
	case network.OpConv, network.OpLinear:
		x, before := l.read(n.Inputs[0])
		o := simple(Conv, y, x)
		o.Layer = l.layer[i]
		ops = append(before, o)
		if n.Op == network.OpLinear {
			b := simple(Bias, y, y)
			b.Layer = l.layer[i]
			ops = append(ops, b)
		}
	case network.OpBatchNorm:
		o := simple(Apply, y, l.value[n.Inputs[0]])
		o.Norm[0], o.ReLU = l.norm[i], n.ReLU
		ops = []Op{o}
	case network.OpAdd:
		ops = l.join(n, y)
	case network.OpMaxPool:
		from := n.Inputs[0]
		o := simple(MaxPool, y, l.value[from])
		if l.virtual(from) {
			o.In[0], o.Norm[0] = l.value[l.net.Nodes[from].Inputs[0]], l.norm[from]
		}
		o.Layer = l.layer[i]
		if l.o.Spec.Mode == engine.Train {
			l.places[i] = l.add(Tensor{H: n.Out[1], W: n.Out[2], C: n.Out[0], Type: Byte, first: None})
			o.Out[1] = l.places[i]
		}
		ops = []Op{o}
	case network.OpGlobalAvgPool:
		ops = []Op{simple(AvgPool, y, l.value[n.Inputs[0]])}
	case network.OpReLU:
		ops = []Op{simple(ReLU, y, l.value[n.Inputs[0]])}
	case network.OpL2Normalize:
		o := simple(Normalize, y, l.value[n.Inputs[0]])
		l.places[i] = l.add(Tensor{H: 1, W: 1, C: 1, Type: F32, first: None})
		o.Out[1] = l.places[i]
		ops = []Op{o}
	}
	// The statistics while the output is in the cache.
	if l.train {
		for _, r := range l.readers[i] {
			if l.net.Nodes[r].Op == network.OpBatchNorm {
				o := simple(Stats, None, y)
				o.Norm[0] = l.norm[r]
				ops = append(ops, o)
			}
		}
	}
	l.emit(ops)
	// And the other convolutions of the same input.
	if n.Op == network.OpConv && !l.virtual(n.Inputs[0]) {
		for _, r := range l.readers[n.Inputs[0]] {
			if l.net.Nodes[r].Op == network.OpConv {
				l.lower(r)
			}
		}
	}
}

// join is an addition, with the BatchNorms in front of it and the ReLU after.
func (l *lowering) join(n network.Node, y int) []Op {
	p, q := n.Inputs[0], n.Inputs[1]
	if !l.virtual(p) {
		p, q = q, p
	}
	if !l.virtual(p) {
		ops := []Op{simple(Add, y, l.value[p], l.value[q])}
		if n.ReLU {
			ops = append(ops, simple(ReLU, y, y))
		}
		return ops
	}
	o := simple(Apply, y, l.value[l.net.Nodes[p].Inputs[0]], l.value[q])
	o.Norm[0], o.ReLU = l.norm[p], n.ReLU
	if l.virtual(q) {
		o.In[1], o.Norm[1] = l.value[l.net.Nodes[q].Inputs[0]], l.norm[q]
	}
	return []Op{o}
}
