//go:build onednn && testhooks

package onednn

import (
	"math"
	"testing"
)

// bnShapes are rows and channels, odd ones and those of ResNets.
var bnShapes = [][2]int{{2, 1}, {5, 3}, {7, 16}, {131, 17}, {33, 33}, {130, 64}, {49, 100}, {257, 96}, {19, 1040}}

// newBN makes the nine vectors with random γ and β.
func newBN(channels, seed int) []float32 {
	rng := seeded(channels, seed)
	bn := make([]float32, 9*channels)
	for c := range channels {
		bn[c] = float32(1 + 0.5*rng.NormFloat64())
		bn[channels+c] = float32(rng.NormFloat64())
	}
	return bn
}

// moments are the mean and the biased variance of every channel.
func moments[T mkActivation](rows, channels int, x []T) (mean, variance []float64) {
	mean, variance = make([]float64, channels), make([]float64, channels)
	for i, v := range x {
		mean[i%channels] += get(v) / float64(rows)
	}
	for i, v := range x {
		d := get(v) - mean[i%channels]
		variance[i%channels] += d * d / float64(rows)
	}
	return mean, variance
}

// foldOf computes the statistics of x in two slices of two lanes and folds.
func foldOf[T mkActivation](rows, channels int, x []T, bn []float32) (mean, variance []float32) {
	parts := make([]float64, 6*channels)
	lane := (rows + 1) / 2
	for i := range 2 {
		from, to := i*lane, min(rows, (i+1)*lane)
		mid := from + max(1, (to-from)/3)
		mkBNStats(mid-from, channels, x[from*channels:mid*channels], true, parts[3*i*channels:])
		mkBNStats(to-mid, channels, x[mid*channels:to*channels], false, parts[3*i*channels:])
	}
	mean, variance = make([]float32, channels), make([]float32, channels)
	mkBNFold(bn, channels, parts, []uint64{uint64(lane), uint64(rows - lane)}, 1e-5, mean, variance)
	return mean, variance
}

func testStats[T mkActivation](t *testing.T) {
	for _, shape := range bnShapes {
		rows, channels := shape[0], shape[1]
		for _, far := range []float64{0, 3, 1000} {
			x := random[T](seeded(rows, channels), rows*channels, far, 1)
			if far > 100 && precision[T]() > 1e-3 {
				// 1000 ± 1 is no bf16 distribution; take steps of its spacing.
				x = random[T](seeded(rows, channels), rows*channels, far, 40)
			}
			bn := newBN(channels, 1)
			mean, variance := foldOf(rows, channels, x, bn)
			wantMean, wantVar := moments(rows, channels, x)
			for c := range channels {
				bessel := float64(rows) / float64(rows-1)
				near(t, "mean", float64(mean[c]), wantMean[c], 1e-6, 1e-6)
				near(t, "variance", float64(variance[c]), wantVar[c]*bessel, 2e-5, 1e-12)
				near(t, "invstd", float64(bn[3*channels+c]), 1/math.Sqrt(wantVar[c]+1e-5), 1e-5, 0)
			}
		}
	}
}

func TestBatchNormStatistics(t *testing.T) {
	eachLevel(t, mkPlain, func(t *testing.T, _ int) {
		t.Run("fp32", testStats[float32])
		t.Run("bf16", testStats[uint16])
	})
}

func testApply[T mkActivation](t *testing.T) {
	for _, shape := range bnShapes {
		rows, channels := shape[0], shape[1]
		n := rows * channels
		x, r := random[T](seeded(n), n, 1, 2), random[T](seeded(n, 1), n, 0, 1)
		bn, rbn := newBN(channels, 1), newBN(channels, 2)
		foldOf(rows, channels, x, bn)
		foldOf(rows, channels, r, rbn)
		for _, residual := range []int{0, 1, 2} {
			for _, relu := range []bool{false, true} {
				y, check := guarded[T](n)
				var rx []T
				var rb []float32
				if residual > 0 {
					rx = r
				}
				if residual > 1 {
					rb = rbn
				}
				mkBNApply(rows, channels, x, bn, rx, rb, relu, y)
				check(t, "apply")
				for i := range y {
					c := i % channels
					want := get(x[i])*float64(bn[4*channels+c]) + float64(bn[5*channels+c])
					switch residual {
					case 1:
						want += get(r[i])
					case 2:
						want += get(r[i])*float64(rbn[4*channels+c]) + float64(rbn[5*channels+c])
					}
					if relu {
						want = max(want, 0)
					}
					near(t, shapeName("apply", shape, residual, relu), get(y[i]), want, precision[T](), 5e-6)
				}
			}
		}
	}
}

func TestBatchNormApply(t *testing.T) {
	eachLevel(t, mkPlain, func(t *testing.T, _ int) {
		t.Run("fp32", testApply[float32])
		t.Run("bf16", testApply[uint16])
	})
}

// NaN goes through the ReLU, as in torch: training must notice it.
func TestBatchNormApplyNaN(t *testing.T) {
	eachLevel(t, mkPlain, func(t *testing.T, _ int) {
		const channels = 35
		bn := newBN(channels, 1)
		foldOf(4, channels, random[float32](seeded(3), 4*channels, 0, 1), bn)
		x := random[uint16](seeded(4), channels, 0, 1)
		x[3], x[34] = put[uint16](math.NaN()), put[uint16](math.NaN())
		y := make([]uint16, channels)
		mkBNApply(1, channels, x, bn, nil, nil, true, y)
		for i, v := range y {
			if (get(v) != get(v)) != (i == 3 || i == 34) {
				t.Errorf("channel %d: %v", i, get(v))
			}
		}
	})
}

// testGrad checks sums, coefficients and the gradient against the textbook
// formula in float64, and (by the fold) that they use the same mask as forward.
func testGrad[T mkActivation](t *testing.T) {
	for _, shape := range bnShapes {
		rows, channels := shape[0], shape[1]
		n := rows * channels
		for mask := mkMaskNone; mask <= mkMaskOutput; mask++ {
			for branches := 1; branches <= 2; branches++ {
				for _, join := range []bool{false, true} {
					gradOf[T](t, shapeName(shape, mask, branches, join), rows, channels, n, mask, branches, join)
				}
			}
		}
	}
}

func gradOf[T mkActivation](t *testing.T, name string, rows, channels, n, mask, branches int, join bool) {
	dy, y := random[T](seeded(n, 5), n, 0, 1), random[T](seeded(n, 6), n, 0, 1)
	var add []T
	if join {
		add = random[T](seeded(n, 7), n, 0, 1)
	}
	br := make([]mkBranch[T], branches)
	lane := (rows + 1) / 2
	for i := range br {
		x := random[T](seeded(n, 8, i), n, 1, 2)
		bn := newBN(channels, i)
		foldOf(rows, channels, x, bn)
		br[i] = mkBranch[T]{bn: bn, x: x, dx: make([]T, n), part: make([]float64, 4*channels)}
	}
	// The masked gradient in float64, of rounded values.
	g := make([]float64, n)
	for i := range g {
		c := i % channels
		g[i] = get(dy[i])
		if join {
			g[i] = get(put[T](float64(float32(g[i]) + float32(get(add[i])))))
		}
		scale, shift := br[0].bn[4*channels+c], br[0].bn[5*channels+c]
		v := get(br[0].x[i])*float64(scale) + float64(shift)
		if math.Abs(v) < 1e-5 { // too near to the kink to tell
			dy[i], g[i] = 0, 0
			if join {
				add[i] = 0
			}
		}
		if mask == mkMaskSelf && v <= 0 || mask == mkMaskOutput && get(y[i]) <= 0 {
			g[i] = 0
		}
	}
	gout, check := guarded[T](n)
	for l := range 2 { // two lanes; in each the second slice continues
		from, to := l*lane, min(rows, (l+1)*lane)
		mid := (from + to) / 2
		for k, span := range [][2]int{{from, mid}, {mid, to}} {
			lo := span[0] * channels
			part := make([]mkBranch[T], branches)
			for i, b := range br {
				part[i] = mkBranch[T]{bn: b.bn, x: b.x[lo:], part: b.part[2*l*channels:]}
			}
			a := add
			if join {
				a = add[lo:]
			}
			mkBNGrad(false, span[1]-span[0], channels, dy[lo:], a, mask, y[lo:], gout[lo:], part, k == 0)
		}
	}
	check(t, "gradient out")
	for i := range g {
		if get(gout[i]) != g[i] {
			t.Fatalf("%s: masked gradient %d: got %v, want %v", name, i, get(gout[i]), g[i])
		}
	}
	if branches == 1 && !join { // in one pass, from the unmasked gradient
		for i := range gout {
			gout[i] = dy[i]
		}
	} else {
		mask = mkMaskNone
	}
	dgamma, dbeta := make([][]float32, branches), make([][]float32, branches)
	for i, b := range br {
		dgamma[i], dbeta[i] = make([]float32, channels), make([]float32, channels)
		mkBNGradFold(b.bn, channels, b.part, 2, rows, dgamma[i], dbeta[i])
	}
	mkBNGrad(true, rows, channels, gout, nil, mask, y, nil, br, false)
	for k, b := range br {
		mean, variance := moments(rows, channels, b.x)
		db, dg := make([]float64, channels), make([]float64, channels)
		for i := range g {
			c := i % channels
			db[c] += g[i]
			dg[c] += g[i] * (get(b.x[i]) - mean[c]) / math.Sqrt(variance[c]+1e-5)
		}
		for c := range channels {
			near(t, name+" dβ", float64(dbeta[k][c]), db[c], 1e-5, 1e-5*math.Sqrt(float64(rows)))
			near(t, name+" dγ", float64(dgamma[k][c]), dg[c], 1e-5, 2e-5*math.Sqrt(float64(rows)))
		}
		for i := range g {
			c := i % channels
			invstd := 1 / math.Sqrt(variance[c]+1e-5)
			hat := (get(b.x[i]) - mean[c]) * invstd
			want := float64(b.bn[c]) * invstd * (g[i] - db[c]/float64(rows) - hat*dg[c]/float64(rows))
			// With two rows the terms cancel, so the bound is relative to them.
			scale := math.Abs(float64(b.bn[c])) * invstd * (math.Abs(g[i]) + math.Abs(db[c])/float64(rows) + math.Abs(hat*dg[c])/float64(rows))
			near(t, name+" dx", get(b.dx[i]), want, precision[T](), 1e-5*scale+1e-6)
		}
	}
}

func TestBatchNormGradient(t *testing.T) {
	eachLevel(t, mkPlain, func(t *testing.T, _ int) {
		t.Run("fp32", testGrad[float32])
		t.Run("bf16", testGrad[uint16])
	})
}

func TestBatchNormEval(t *testing.T) {
	const channels = 37
	bn := newBN(channels, 3)
	mean, variance := random[float32](seeded(1), channels, 0, 1), random[float32](seeded(2), channels, 5, 1)
	mkBNFoldEval(bn, channels, mean, variance, 1e-5)
	for c := range channels {
		scale := float64(bn[c]) / math.Sqrt(float64(variance[c])+1e-5)
		near(t, "scale", float64(bn[4*channels+c]), scale, 1e-6, 0)
		near(t, "shift", float64(bn[5*channels+c]), float64(bn[channels+c])-float64(mean[c])*scale, 1e-6, 1e-6)
	}
}
