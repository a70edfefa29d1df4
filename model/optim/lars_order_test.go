package optim

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Sums have the order of Lanes, to the last bit of float64. (Seldom does a rate
// show it, in float32.)
func TestLARSOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const decay = 1e-2
	for _, n := range []int{1, 2, 255, 256, 257, 700, 5000, PieceLen} {
		w, g, pieces := make([]float32, n), make([]float32, n), make([]squares, n)
		for i := range n {
			w[i], g[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64()*math.Exp(3*rng.NormFloat64()))
			pieces[i] = squares{rng.ExpFloat64(), math.Exp(10 * rng.NormFloat64())}
		}
		want := squares{
			laneSum(n, 0, 1, func(i int) float64 { return float64(w[i]) * float64(w[i]) }),
			laneSum(n, 0, 1, func(i int) float64 {
				u := float64(g[i] + float32(float32(decay)*w[i]))
				return u * u
			}),
		}
		if got := sum(w, g, decay); got != want {
			t.Errorf("a piece of %d values: %v, want %v", n, got, want)
		}
		want = squares{
			laneSum(n, 0, 1, func(i int) float64 { return pieces[i].w }),
			laneSum(n, 0, 1, func(i int) float64 { return pieces[i].u }),
		}
		if got := total(pieces); got != want {
			t.Errorf("%d pieces: %v, want %v", n, got, want)
		}
	}
}

// laneSum is the order as a recursion: of n values those i = lane mod every. A
// lane's own are added in their order, lanes of fewer by halves.
func laneSum(n, lane, every int, value func(i int) float64) (sum float64) {
	if every < Lanes {
		return laneSum(n, lane, 2*every, value) + laneSum(n, lane+every, 2*every, value)
	}
	for i := lane; i < n; i += every {
		sum += value(i)
	}
	return sum
}
