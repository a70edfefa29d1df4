package loss

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Spread is 0 for one embedding, √(1 − cosine) between, 1 on a whole sphere.
func TestSpread(t *testing.T) {
	const g, d = 256, 64
	rng := rand.New(rand.NewPCG(1, 1))
	for _, cosine := range []float64{0, 0.5, 0.99, 1} {
		q := make([]float32, g*d)
		for i := range g {
			row, sum := q[i*d:(i+1)*d], 0.0
			for x := range row {
				row[x] = float32(rng.NormFloat64())
				sum += float64(row[x]) * float64(row[x])
			}
			for x := range row { // a common direction and a random one
				row[x] *= float32(math.Sqrt((1 - cosine) / sum))
			}
			row[0] += float32(math.Sqrt(cosine))
		}
		if got, want := spread(q, d), math.Sqrt(1-cosine); math.Abs(got-want) > 0.03 {
			t.Errorf("mean cosine %g: spread %.3f, want %.3f", cosine, got, want)
		}
	}
}
