package optim_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mochi/model/network"
	"mochi/model/optim"
)

// net is parameters of the given shapes, one after the other.
func net(shapes ...[]int) *network.Network {
	n := &network.Network{}
	for _, s := range shapes {
		size := 1
		for _, x := range s {
			size *= x
		}
		n.Params = append(n.Params, network.Tensor{Shape: s, Offset: n.NumParams(), Size: size})
	}
	return n
}

// Against the definition, tensor by tensor in float64; tensors longer than a
// piece, all weights 0, all gradients 0, vectors.
func TestLARS(t *testing.T) {
	const decay = 1e-2
	n := net([]int{8, 3, 3, 3}, []int{8}, []int{300, 257}, []int{5, 4}, []int{6, 2}, []int{7})
	rng := rand.New(rand.NewPCG(1, 2))
	weights, grads := make([]float32, n.NumParams()), make([]float32, n.NumParams())
	for i := range weights {
		weights[i], grads[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64()*1e-3)
	}
	clear(weights[n.Params[3].Offset:][:20])
	for i := n.Params[4].Offset; i < n.Params[5].Offset; i++ {
		grads[i] = -float32(float32(decay) * weights[i]) // u = 0
	}
	want := make([]float64, len(grads))
	for _, p := range n.Params {
		var ww, uu float64
		for i := p.Offset; i < p.Offset+p.Size; i++ {
			u := float64(grads[i]) + decay*float64(weights[i])
			ww += float64(weights[i]) * float64(weights[i])
			uu += u * u
		}
		q := 0.001 * math.Sqrt(ww) / math.Sqrt(uu)
		if p.Offset == n.Params[3].Offset || p.Offset == n.Params[4].Offset {
			q = 1
		}
		for i := p.Offset; i < p.Offset+p.Size; i++ {
			if want[i] = float64(grads[i]); len(p.Shape) > 1 {
				want[i] = q * (float64(grads[i]) + decay*float64(weights[i]))
			}
		}
	}
	var first []float32
	for _, threads := range []int{1, 2, 7} {
		got, other := slices.Clone(grads), slices.Clone(grads)
		l := optim.NewLARS(n, decay, threads)
		l.Adapt(weights, other) // what it did before does not count
		l.Adapt(weights, got)
		for i, g := range got {
			if math.Abs(float64(g)-want[i]) > 1e-6*math.Abs(want[i])+1e-9 {
				t.Fatalf("%d threads, value %d: %g, want %g", threads, i, g, want[i])
			}
		}
		if first == nil {
			first = got
		} else if !slices.Equal(first, got) {
			t.Errorf("%d threads give other bits than one", threads)
		}
		if n := testing.AllocsPerRun(10, func() { l.Adapt(weights, other) }); n > 0 {
			t.Errorf("%d threads: %v allocations", threads, n)
		}
	}
}

// The step of a layer is its trust times its norm, whatever the gradient's size.
func TestLARSStepIsRelative(t *testing.T) {
	n := net([]int{10, 10})
	weights, grads := make([]float32, 100), make([]float32, 100)
	for _, size := range []float32{1e-6, 1, 1e6} {
		var ww, gg float64
		for i := range weights {
			weights[i], grads[i] = float32(i-50), size*float32(i%7-3)
			ww += float64(weights[i] * weights[i])
		}
		optim.NewLARS(n, 0, 1).Adapt(weights, grads)
		for _, g := range grads {
			gg += float64(g) * float64(g)
		}
		if ratio := math.Sqrt(gg / ww); math.Abs(ratio-optim.Trust) > 1e-8 {
			t.Errorf("gradients of size %g: step %g of the weights' norm, want %g", size, ratio, optim.Trust)
		}
	}
}
