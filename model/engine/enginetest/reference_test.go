package enginetest

import (
	"math"
	"math/rand/v2"
	"testing"

	"mochi/model/engine"
)

// The reference's gradients are those of its own forward, by central
// differences in float64.
func TestReferenceGradients(t *testing.T) {
	for _, c := range cases(t) {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(c, 1)
			r := newReference(c.net, c.batch, engine.Train, f.query, f.queryBuffers)
			images, dEmb := widen(f.images), widen(f.dEmbeddings)
			loss := func() float64 {
				sum := 0.0
				for i, e := range r.forward(images) {
					sum += e * dEmb[i]
				}
				return sum
			}
			loss()
			grads := r.backward(dEmb)
			scale := 0.0
			for _, g := range grads {
				scale = max(scale, math.Abs(g))
			}
			rng := rand.New(rand.NewPCG(2, 3))
			const h = 1e-6
			draws := 30
			if len(grads) > 500 { // a deep network, slow to evaluate
				draws = 5
			}
			for range draws {
				i := rng.IntN(len(grads))
				at := r.params[i]
				r.params[i] = at + h
				up := loss()
				r.params[i] = at - h
				down := loss()
				r.params[i] = at
				if want := (up - down) / (2 * h); math.Abs(grads[i]-want) > 1e-5*scale {
					t.Errorf("gradient of parameter %d is %g, finite differences give %g", i, grads[i], want)
				}
			}
		})
	}
}
