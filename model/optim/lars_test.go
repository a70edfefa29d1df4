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
// piece, all weights 0, all gradients 0, vectors. (That engines add in the same
// order is enginetest's.)
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
	kept := slices.Clone(grads)
	var first []optim.Rate
	for _, threads := range []int{1, 2, 7} {
		l := optim.NewLARS(n, threads)
		l.Rates(1, 1, grads, weights) // what it did before does not count
		got := l.Rates(optim.Trust, decay, weights, grads)
		for i, p := range n.Params {
			want := optim.Rate{End: p.Offset + p.Size, Rate: 1}
			if len(p.Shape) > 1 {
				want.Decay = decay
			}
			if i == 0 || i == 2 {
				var ww, uu float64
				for j := p.Offset; j < want.End; j++ {
					u := float64(grads[j]) + decay*float64(weights[j])
					ww += float64(weights[j]) * float64(weights[j])
					uu += u * u
				}
				want.Rate = float32(0.001 * math.Sqrt(ww) / math.Sqrt(uu))
			}
			if math.Abs(float64(got[i].Rate-want.Rate)) > 1e-6*float64(want.Rate) || got[i].Decay != want.Decay || got[i].End != want.End {
				t.Fatalf("%d threads, tensor %d: %+v, want %+v", threads, i, got[i], want)
			}
		}
		if first == nil {
			first = slices.Clone(got)
		} else if !slices.Equal(first, got) {
			t.Errorf("%d threads give other bits than one", threads)
		}
		if n := testing.AllocsPerRun(10, func() { l.Rates(optim.Trust, decay, weights, grads) }); n > 0 {
			t.Errorf("%d threads: %v allocations", threads, n)
		}
	}
	if !slices.Equal(kept, grads) {
		t.Error("gradients are changed")
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
			gg += float64(grads[i]) * float64(grads[i])
		}
		rate := float64(optim.NewLARS(n, 1).Rates(optim.Trust, 0, weights, grads)[0].Rate)
		if ratio := rate * math.Sqrt(gg/ww); math.Abs(ratio-optim.Trust) > 1e-8 {
			t.Errorf("gradients of size %g: step %g of the weights' norm, want %g", size, ratio, optim.Trust)
		}
	}
}

// Cut goes through a range once, each part with the rate of its tensor.
func TestCut(t *testing.T) {
	rates := []optim.Rate{{End: 3, Rate: 1}, {End: 3, Rate: 9}, {End: 4, Rate: 2}, {End: 10, Rate: 3}}
	want := []float32{1, 1, 1, 2, 3, 3, 3, 3, 3, 3}
	for from := range 11 {
		for to := from; to <= 10; to++ {
			at := from
			optim.Cut(rates, from, to, func(a, b int, r optim.Rate) {
				if a != at || b <= a || b > to {
					t.Fatalf("[%d, %d): part [%d, %d) after %d", from, to, a, b, at)
				}
				for ; at < b; at++ {
					if want[at] != r.Rate {
						t.Errorf("[%d, %d): rate %g at %d", from, to, r.Rate, at)
					}
				}
			})
			if at != to {
				t.Errorf("[%d, %d): ends at %d", from, to, at)
			}
		}
	}
}
