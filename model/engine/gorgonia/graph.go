package gorgonia

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"mochi/model/engine"
	"mochi/model/engine/cpu"
	"mochi/model/network"
)

// construction serialises the making of graphs. gorgonia numbers nodes with a
// counter of the whole process and without a lock, so the lock must span the
// process too; running finished machines concurrently needs none.
var construction sync.Mutex

// errPause is how the embedding op stops the tape machine between forward and
// backward.
var errPause = errors.New("paused for the gradient of the embeddings")

// finished stands among parameter indices for the end of backward.
const finished = -1

// compiled is one network as an expression graph on a tape machine, with the
// host-side ends of it. All slices are its own and stay in place.
type compiled struct {
	machine interface {
		RunAll() error
		Reset()
		Close() error
	}

	images     []float32 // [B, C, H, W], input
	embeddings []float32 // [B, Dim], set when paused (Train) or finished
	features   []float32 // [B, FeatureDim], the same
	statistics []float32 // as network.Network.Buffers
	gradient   []float32 // [B, Dim] of the embeddings, input
	grads      []float32 // as network.Network.Params

	activations int // floats of memory planned for values inside the graph

	paused bool
	// ready gets the index of each parameter as its part of grads is final, and
	// finished at the end of backward, from the machine's goroutine. It holds
	// all of them without blocking.
	ready chan int
}

// builder turns a network.Network into a compiled graph.
type builder struct {
	*compiled
	net   *network.Network
	spec  engine.Spec
	team  *cpu.Team
	clock *clock

	g       *gorgonia.ExprGraph
	nodes   []*gorgonia.Node // by node of the network
	params  []*gorgonia.Node // by parameter
	buffers []*gorgonia.Node // by buffer; Eval only
	trained []bool           // by node of the network: it has a parameter or follows one that has
}

// compile builds the graph. params and buffers are the encoder's flat vectors,
// read at every run; statistics, gradients and activations are the program's.
func compile(team *cpu.Team, c *clock, net *network.Network, spec engine.Spec, params, buffers []float32) (*compiled, error) {
	construction.Lock()
	defer construction.Unlock()
	b := &builder{
		compiled: &compiled{
			images:     make([]float32, spec.Batch*net.Channels*net.ImageSize*net.ImageSize),
			embeddings: make([]float32, spec.Batch*net.Dim),
			features:   make([]float32, spec.Batch*net.FeatureDim),
		},
		net: net, spec: spec, team: team, clock: c, g: gorgonia.NewGraph(),
	}
	b.params = b.inputs(net.Params, params)
	if spec.Mode == engine.Eval {
		b.buffers = b.inputs(net.Buffers, buffers)
	} else {
		b.statistics = make([]float32, net.NumBuffers())
	}
	if spec.Mode == engine.Train {
		b.gradient = make([]float32, spec.Batch*net.Dim)
		b.grads = make([]float32, net.NumParams())
		b.ready = make(chan int, len(net.Params)+1)
	}

	b.nodes = make([]*gorgonia.Node, len(net.Nodes))
	b.trained = make([]bool, len(net.Nodes))
	for i := range net.Nodes {
		if err := b.forward(i); err != nil {
			return nil, err
		}
	}
	end, err := b.end()
	if err != nil {
		return nil, err
	}
	if spec.Mode == engine.Train {
		if _, err := gorgonia.Backpropagate(gorgonia.Nodes{b.nodes[net.Output]}, gorgonia.Nodes{end}, b.params); err != nil {
			return nil, fmt.Errorf("differentiate %s: %w", net.Arch, err)
		}
	}
	b.activations = plan(b.g)
	b.machine = gorgonia.NewTapeMachine(b.g, gorgonia.WithEngine(&accumulator{team: team}))
	// Its finalizer does nothing in a build without CUDA, but keeps the machine
	// for ever: machine, graph and operations refer to each other.
	runtime.SetFinalizer(b.machine, nil)
	return b.compiled, nil
}

// forward adds node i of the network.
func (b *builder) forward(i int) error {
	n := &b.net.Nodes[i]
	shape := b.batched(n.Out)
	if n.Op == network.OpInput {
		b.nodes[i] = b.input("images", shape, b.images)
		return nil
	}
	l, err := b.layer(n)
	if err != nil {
		return err
	}
	var children gorgonia.Nodes
	var wrt []bool
	for _, in := range n.Inputs {
		children = append(children, b.nodes[in])
		wrt = append(wrt, b.trained[in])
		b.trained[i] = b.trained[i] || b.trained[in]
	}
	for _, p := range n.Params {
		children = append(children, b.params[p])
		wrt = append(wrt, true)
		b.trained[i] = true
	}
	if b.buffers != nil {
		for _, p := range n.Buffers {
			children = append(children, b.buffers[p])
			wrt = append(wrt, false)
		}
	}
	inputs := len(n.Inputs)
	b.nodes[i], err = b.apply(&op{
		name:  b.label(i),
		shape: shape,
		wrt:   wrt,
		run: func(in [][]float32, out []float32) error {
			l.forward(in[:inputs], in[inputs:], out)
			return nil
		},
		diff: func(in gorgonia.Nodes, output, grad *gorgonia.Node) (gorgonia.Nodes, error) {
			return b.backward(i, l, in, output, grad)
		},
	}, children)
	return err
}

// backward adds the gradients of node i, given that of its output. One op
// computes them all: its value is the gradient of the inputs, and the
// parameters' gradients are written on the way. Nodes of their own, which
// depend on that op and compute nothing, stand for them in the graph.
func (b *builder) backward(i int, l layer, in gorgonia.Nodes, output, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	n := &b.net.Nodes[i]
	inputs := len(n.Inputs)
	wanted := false // a gradient of some input
	for _, j := range n.Inputs {
		wanted = wanted || b.trained[j]
	}
	if n.Op == network.OpAdd && !n.ReLU {
		return gorgonia.Nodes{grad, grad}, nil
	}

	// Only what is read may be a child: the rest of memory is free by then.
	children := gorgonia.Nodes{grad}
	for _, p := range n.Params {
		children = append(children, b.params[p])
	}
	readsX, readsY := l.reads()
	if readsX {
		children = append(children, in[:inputs]...)
	}
	if readsY {
		children = append(children, output)
	}

	weights := len(n.Params)
	dw := make([][]float32, weights)
	values := make([]*tensor.Dense, weights)
	for j, p := range n.Params {
		t := &b.net.Params[p]
		dw[j] = b.grads[t.Offset : t.Offset+t.Size : t.Offset+t.Size]
		values[j] = dense(t.Shape, dw[j])
	}
	main := &op{name: b.label(i) + " backward"}
	if wanted {
		main.shape = in[0].Shape().Clone()
	} else {
		main.shape, main.value = values[0].Shape().Clone(), values[0]
	}
	main.run = func(operands [][]float32, out []float32) error {
		dy, w, rest := operands[0], operands[1:1+weights], operands[1+weights:]
		var x [][]float32
		var y, dx []float32
		if readsX {
			x, rest = rest[:inputs], rest[inputs:]
		}
		if readsY {
			y = rest[0]
		}
		if wanted {
			dx = out
		}
		l.backward(x, w, y, dy, dx, dw)
		for j := weights - 1; j >= 0; j-- {
			b.ready <- n.Params[j]
		}
		return nil
	}
	node, err := b.apply(main, children)
	if err != nil {
		return nil, err
	}

	var grads gorgonia.Nodes
	for range n.Inputs {
		grads = append(grads, node)
	}
	for j, p := range n.Params {
		g := node
		if wanted || j > 0 {
			side := &op{name: "gradient of " + b.net.Params[p].Name, shape: values[j].Shape().Clone(), value: values[j]}
			side.run = func([][]float32, []float32) error { return nil }
			if g, err = b.apply(side, gorgonia.Nodes{node}); err != nil {
				return nil, err
			}
		}
		grads = append(grads, g)
	}
	return grads, nil
}

// end adds the op that brings embeddings and features out. In mode Train its
// value is the gradient of the embeddings: its first run stops the machine,
// the second, when the caller has set the gradient, lets it go on.
func (b *builder) end() (*gorgonia.Node, error) {
	c := b.compiled
	train := b.spec.Mode == engine.Train
	o := &op{name: "embeddings", shape: b.batched([]int{b.net.Dim})}
	if train {
		o.value = dense(o.shape, c.gradient)
	} else {
		o.value = dense(o.shape, c.embeddings)
	}
	o.run = func(in [][]float32, _ []float32) error {
		if c.paused {
			c.paused = false
			return nil
		}
		copy(c.embeddings, in[0])
		copy(c.features, in[1])
		c.paused = train
		if train {
			return errPause
		}
		return nil
	}
	return b.apply(o, gorgonia.Nodes{b.nodes[b.net.Output], b.nodes[b.net.Feature]})
}

func (b *builder) apply(o *op, children gorgonia.Nodes) (*gorgonia.Node, error) {
	for _, c := range children {
		o.ranks = append(o.ranks, c.Dims())
	}
	node, err := gorgonia.ApplyOp(o, children...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.name, err)
	}
	return node, nil
}

// inputs adds a node for each tensor of a flat vector.
func (b *builder) inputs(ts []network.Tensor, flat []float32) []*gorgonia.Node {
	nodes := make([]*gorgonia.Node, len(ts))
	for i, t := range ts {
		nodes[i] = b.input(t.Name, t.Shape, flat[t.Offset:t.Offset+t.Size:t.Offset+t.Size])
	}
	return nodes
}

func (b *builder) input(name string, shape tensor.Shape, values []float32) *gorgonia.Node {
	return gorgonia.NewTensor(b.g, tensor.Float32, len(shape),
		gorgonia.WithShape(shape...), gorgonia.WithName(name), gorgonia.WithValue(dense(shape, values)))
}

// label names node i uniquely.
func (b *builder) label(i int) string { return fmt.Sprintf("node %d %s", i, b.net.Nodes[i].Name) }

// batched is the shape of a whole batch.
func (b *builder) batched(sample []int) tensor.Shape {
	return append(tensor.Shape{b.spec.Batch}, sample...)
}
