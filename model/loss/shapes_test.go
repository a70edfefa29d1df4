package loss

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// shapes is how many of them; gpu_test.go takes fewer.
var shapes = 150

// Random shapes, settings and queues against the plain oracle, on all kernels
// of this CPU: MOCHI_SHAPES=10000 for many.
func TestRandomShapes(t *testing.T) {
	count := shapes
	if n, err := strconv.Atoi(os.Getenv("MOCHI_SHAPES")); err == nil {
		count = n
	}
	type tally struct {
		shapes, lossOver, gradOver int
		worst                      deviation
	}
	by := map[float64]*tally{0.01: {}, 0.07: {}, 0.2: {}, 1: {}}
	for i := range count {
		r := rand.New(rand.NewPCG(99, uint64(i)))
		batch, dim, length := 1+r.IntN(9), 1+r.IntN(40), 1+r.IntN(200)
		if i%50 == 0 {
			batch, length = 1+r.IntN(70), 1+r.IntN(1500)
		}
		cfg := Config{N: 1 + r.IntN(length), S: r.IntN(200), S2: r.IntN(200), Shards: r.IntN(18), Seed: r.Uint64(),
			Temperature: []float64{0.2, 0.07, 0.01, 1}[r.IntN(4)], Threads: 1 + r.IntN(3)}
		cfg.PairsInShard = i%3 == 1
		switch r.IntN(6) {
		case 0:
			cfg.N = length
		case 1:
			cfg.S = 0
		case 2:
			cfg.S2 = 0
		case 3:
			cfg.N, cfg.S, cfg.S2 = 0, 0, 0
		}
		in := example(uint64(i), batch, dim, length)
		switch r.IntN(4) {
		case 0: // duplicates: ties
			for j := 1; j < length; j++ {
				if from := r.IntN(j); r.IntN(2) == 0 {
					copy(in.Queue[j*dim:(j+1)*dim], in.Queue[from*dim:(from+1)*dim])
				}
			}
		case 1: // all alike, or opposite
			for j := 1; j < length; j++ {
				sign := float32(1 - 2*r.IntN(2))
				for x := range dim {
					in.Queue[j*dim+x] = sign * in.Queue[x]
				}
			}
		case 2: // the query itself
			copy(in.Queue[:dim], in.Q[:dim])
		}
		off := checkAgainstPlain(t, cfg, dim, in)
		b := by[cfg.Temperature]
		b.shapes++
		b.worst.add(off)
		if off.loss > 1e-5 {
			b.lossOver++
		}
		if off.grad > 1e-4 {
			b.gradOver++
		}
		if t.Failed() {
			t.Fatalf("shape %d: B=%d d=%d K=%d %+v", i, batch, dim, length, cfg)
		}
	}
	for tau, b := range by {
		t.Logf("τ = %g, %d shapes: loss off by %.2g at most, relative (%d above 1e-5), %.2g absolute; gradient by %.2g of its terms (%d above 1e-4)",
			tau, b.shapes, b.worst.loss, b.lossOver, b.worst.absolute, b.worst.grad, b.gradOver)
	}
}
