package eval

import (
	"fmt"
	"math"

	"mochi/model/engine"
)

// Alignment is the mean of ‖x_i − y_i‖² over positive pairs (α = 2): x and y
// are [n, dim], rows of length 1, row i of both from views of one image.
// Lower is better; 2 for unrelated pairs. It panics when lengths do not match.
func Alignment(x, y []float32, dim int) float64 {
	if len(x) != len(y) || dim < 1 || len(x)%dim != 0 || len(x) == 0 {
		panic(fmt.Sprintf("eval: alignment of %d and %d values × %d", len(x), len(y), dim))
	}
	var sum float64
	for i := range x {
		d := float64(x[i]) - float64(y[i])
		sum += d * d
	}
	return sum / float64(len(x)/dim)
}

// Uniformity is log of the mean over all pairs i < j of e^{−2‖x_i − x_j‖²}
// (t = 2): x is [n, dim], n ≥ 2, rows of length 1. Lower is better: 0 when all
// points coincide, about −4 when they cover a sphere of many dimensions. It
// panics when lengths do not match.
func Uniformity(products engine.Products, x []float32, dim int) float64 {
	if dim < 1 || len(x)%dim != 0 || len(x) < 2*dim {
		panic(fmt.Sprintf("eval: uniformity of %d values × %d", len(x), dim))
	}
	n := len(x) / dim
	const rows = 64
	columns := min(n, blockElements/rows)
	dots := make([]float32, rows*columns)
	sums := make([]float64, rows)
	var total float64
	for r0 := 0; r0 < n; r0 += rows {
		block := min(rows, n-r0)
		for c0 := r0; c0 < n; c0 += columns { // below the diagonal lies nothing new
			width := min(columns, n-c0)
			products.NT(block, width, dim, x[r0*dim:(r0+block)*dim], x[c0*dim:(c0+width)*dim], dots[:block*width])
			parallel(block, func(r int) {
				sums[r] = 0
				for c := max(0, r0+r+1-c0); c < width; c++ {
					// ‖x−y‖² = 2 − 2·x·y; rounding may make it negative
					sums[r] += math.Exp(-2 * math.Max(0, 2-2*float64(dots[r*width+c])))
				}
			})
			for _, s := range sums[:block] {
				total += s
			}
		}
	}
	return math.Log(total / (float64(n) * float64(n-1) / 2))
}

// Spread is the standard deviation of each dimension of x [n, dim], rows of
// length 1, against that of a point evenly on the sphere, 1/√dim: 1 in each
// dimension when x covers the sphere, 0 in one that is not used. The mean of
// its squares is 1 − the mean cosine between rows. It panics when lengths do
// not match.
func Spread(x []float32, dim int) []float64 {
	if dim < 1 || len(x)%dim != 0 || len(x) == 0 {
		panic(fmt.Sprintf("eval: spread of %d values × %d", len(x), dim))
	}
	n := float64(len(x) / dim)
	sums, spread := make([]float64, dim), make([]float64, dim)
	for i, v := range x {
		sums[i%dim] += float64(v)
	}
	for i, v := range x { // of the differences: sums of squares would cancel near collapse
		diff := float64(v) - sums[i%dim]/n
		spread[i%dim] += diff * diff
	}
	for c, s := range spread {
		spread[c] = math.Sqrt(s / n * float64(dim))
	}
	return spread
}
