package gorgonia

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"mochi/model/engine"
	"mochi/model/engine/cpu"
	"mochi/model/network"
)

// adder is an op without memory that sums its inputs.
func adder(name string, size, inputs int) *op {
	o := &op{name: name, shape: tensor.Shape{size}}
	for range inputs {
		o.ranks = append(o.ranks, 1)
	}
	o.run = func(in [][]float32, out []float32) error {
		clear(out)
		for _, x := range in {
			for i := range out {
				out[i] += x[i%len(x)]
			}
		}
		return nil
	}
	return o
}

// A chain needs two blocks, however long it is.
func TestPlanReusesMemoryOfAChain(t *testing.T) {
	g := gorgonia.NewGraph()
	n := gorgonia.NewTensor(g, tensor.Float32, 1, gorgonia.WithShape(8), gorgonia.WithName("x"),
		gorgonia.WithValue(dense(tensor.Shape{8}, make([]float32, 8))))
	for i := range 10 {
		var err error
		if n, err = gorgonia.ApplyOp(adder(fmt.Sprint("op ", i), 8, 1), n); err != nil {
			t.Fatal(err)
		}
	}
	if got := plan(g); got != 16 {
		t.Errorf("a chain of 10 values of 8 floats takes %d floats, want 16", got)
	}
}

// Random graphs: whatever shares memory, every root has the value that a plain
// evaluation gives.
func TestPlanKeepsLiveValues(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 0))
		g := gorgonia.NewGraph()
		nodes := gorgonia.Nodes{gorgonia.NewTensor(g, tensor.Float32, 1, gorgonia.WithShape(3), gorgonia.WithName("x"),
			gorgonia.WithValue(dense(tensor.Shape{3}, []float32{1, 2, 4})))}
		want := [][]float32{{1, 2, 4}}
		read := []bool{true}
		for i := range 30 {
			size := 1 + rng.IntN(9)
			value := make([]float32, size)
			var children gorgonia.Nodes
			for range 1 + rng.IntN(3) {
				c := max(0, len(nodes)-1-rng.IntN(6))
				read[c] = true
				children = append(children, nodes[c])
				for j := range value {
					value[j] += want[c][j%len(want[c])]
				}
			}
			n, err := gorgonia.ApplyOp(adder(fmt.Sprint("op ", i), size, len(children)), children...)
			if err != nil {
				t.Fatal(err)
			}
			nodes, want, read = append(nodes, n), append(want, value), append(read, false)
		}
		// Roots get memory of their own, as embeddings and gradients do.
		for i, n := range nodes {
			if o, ok := n.Op().(*op); ok && !read[i] {
				o.value = dense(o.shape, make([]float32, o.shape.TotalSize()))
			}
		}
		plan(g)
		if err := gorgonia.NewTapeMachine(g).RunAll(); err != nil {
			t.Fatal(err)
		}
		for i, n := range nodes {
			if read[i] {
				continue
			}
			if got := n.Op().(*op).value.Float32s(); fmt.Sprint(got) != fmt.Sprint(want[i]) {
				t.Errorf("seed %d: node %d is %v, want %v", seed, i, got, want[i])
			}
		}
	}
}

// A forward-only ResNet-20 keeps a few layers, not all.
func TestForwardOnlyMemory(t *testing.T) {
	net, err := network.Build("resnet20", network.Options{Channels: 3, ImageSize: 28, Dim: 128, Head: network.HeadLinear})
	if err != nil {
		t.Fatal(err)
	}
	team := cpu.NewTeam(1)
	defer team.Close()
	const batch = 2
	memory := func(mode engine.Mode) int {
		c, err := compile(team, new(clock), net, engine.Spec{Batch: batch, Mode: mode}, make([]float32, net.NumParams()), make([]float32, net.NumBuffers()))
		if err != nil {
			t.Fatal(err)
		}
		return c.activations
	}
	largest, all := 0, 0
	for _, n := range net.Nodes[1:] {
		largest, all = max(largest, batch*volume(n.Out)), all+batch*volume(n.Out)
	}
	if got := memory(engine.Forward); got > 4*largest {
		t.Errorf("forward only takes %d floats, the largest layer is %d", got, largest)
	}
	// Training keeps what backward reads; gradients reuse it as it dies.
	if got := memory(engine.Train); got > all {
		t.Errorf("training takes %d floats, all activations are %d", got, all)
	}
}
