//go:build onednn && testhooks

package onednn

import (
	"testing"
)

// conv is a geometry with padding kernel/2.
func conv(in, out, kernel, stride, h, w int) mkConv {
	pad := kernel / 2
	return mkConv{in: in, out: out, kernel: kernel, stride: stride, pad: pad, ih: h, iw: w,
		oh: (h+2*pad-kernel)/stride + 1, ow: (w+2*pad-kernel)/stride + 1}
}

// wgradCases pair geometries with numbers of images, odd ones too.
var wgradCases = []struct {
	mkConv
	images int
}{
	{conv(64, 64, 1, 1, 7, 9), 1},
	{conv(64, 256, 1, 1, 14, 20), 1},
	{conv(80, 48, 1, 1, 5, 5), 3},
	{conv(16, 32, 1, 2, 8, 8), 2},
	{conv(128, 64, 1, 2, 7, 5), 3},
	{conv(7, 21, 1, 1, 3, 3), 1},
	{conv(64, 64, 3, 1, 14, 14), 2},
	{conv(64, 64, 3, 1, 7, 7), 5},
	{conv(16, 16, 3, 1, 28, 28), 2},
	{conv(32, 16, 3, 1, 5, 4), 1},
	{conv(96, 112, 3, 2, 9, 8), 4},
	{conv(64, 128, 3, 2, 30, 20), 2},
	{conv(5, 70, 3, 1, 6, 6), 3},
	{conv(16, 16, 5, 1, 6, 7), 2},
}

// wgradReference is the sum as written in the textbook, in float64.
func wgradReference(s mkConv, images int, x, dy []float64, dw []float64) {
	for n := range images {
		for r := range s.oh {
			for c := range s.ow {
				g := dy[((n*s.oh+r)*s.ow+c)*s.out:][:s.out]
				for kr := range s.kernel {
					for kc := range s.kernel {
						y, z := r*s.stride-s.pad+kr, c*s.stride-s.pad+kc
						if y < 0 || y >= s.ih || z < 0 || z >= s.iw {
							continue
						}
						v := x[((n*s.ih+y)*s.iw+z)*s.in:][:s.in]
						for o, gv := range g {
							for i, xv := range v {
								dw[((o*s.in+i)*s.kernel+kr)*s.kernel+kc] += gv * xv
							}
						}
					}
				}
			}
		}
	}
}

func widen[T mkActivation](x []T) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = get(v)
	}
	return y
}

func testWgrad[T mkActivation](t *testing.T) {
	for _, c := range wgradCases {
		s := c.mkConv
		_, s.bf16 = any(*new(T)).(uint16)
		nx, ny := c.images*s.ih*s.iw*s.in, c.images*s.oh*s.ow*s.out
		// Two threads: the first does two slices, the second one.
		var x, dy [3][]T
		want := make([]float64, s.out*s.in*s.kernel*s.kernel)
		for i := range x {
			x[i], dy[i] = random[T](seeded(nx, i), nx, 0.3, 1), random[T](seeded(ny, i, 1), ny, 0.1, 1)
			wgradReference(s, c.images, widen(x[i]), widen(dy[i]), want)
		}
		var largest float64
		for _, v := range want {
			largest = max(largest, v, -v)
		}
		eachLevel(t, mkPlain, func(t *testing.T, _ int) {
			if !mkWgradAccepts(s) {
				t.Fatalf("%+v is not accepted", s)
			}
			px, py, ps := mkWgradSizes(s, c.images)
			sums := make([]float32, 2*ps)
			for i := range sums {
				sums[i] = 1e30 // begin must overwrite
			}
			for i := range x {
				xp, checkX := guarded[T](px)
				yp, checkY := guarded[T](py)
				mkWgradPackX(s, c.images, x[i], nil, false, xp)
				mkWgradPackDY(s, c.images, dy[i], yp)
				mkWgradAdd(s, c.images, xp, yp, i != 1, sums[i/2*ps:])
				checkX(t, "x")
				checkY(t, "dy")
			}
			dw, check := guarded[float32](len(want))
			mkWgradStore(s, 2, sums, dw)
			check(t, "dw")
			for i := range dw {
				near(t, shapeName(s, " dw ", i), float64(dw[i]), want[i], 0, 1e-5*largest)
			}
		})
	}
}

func TestWeightGradient(t *testing.T) {
	t.Run("fp32", testWgrad[float32])
	t.Run("bf16", testWgrad[uint16])
}

func testFusedPacking[T mkActivation](t *testing.T) {
	for _, c := range wgradCases {
		s := c.mkConv
		_, s.bf16 = any(*new(T)).(uint16)
		nx := c.images * s.ih * s.iw * s.in
		x := random[T](seeded(nx), nx, 0.3, 1)
		bn := newBN(s.in, 1)
		foldOf(c.images*s.ih*s.iw, s.in, x, bn)
		eachLevel(t, mkPlain, func(t *testing.T, level int) {
			px, _, _ := mkWgradSizes(s, c.images)
			compare := func(what string, got, want []T) {
				t.Helper()
				if level == mkPlain || level >= mkAVX512 && s.in%16 == 0 {
					same(t, what, got, want)
				}
				for i := range want {
					near(t, what, get(got[i]), get(want[i]), 2*precision[T](), 1e-5)
				}
			}
			for _, relu := range []bool{false, true} {
				normal := make([]T, nx)
				mkBNApply(c.images*s.ih*s.iw, s.in, x, bn, nil, nil, relu, normal)
				want, got := make([]T, px), make([]T, px)
				mkWgradPackX(s, c.images, normal, nil, false, want)
				mkWgradPackX(s, c.images, x, bn, relu, got)
				compare(shapeName(s, " x ", relu), got, want)
			}
		})
	}
}

// The fused form packs what BatchNorm's pass and the plain form do, to the
// bit where both are plain or both in whole vectors.
func TestWeightGradientFusedPacking(t *testing.T) {
	t.Run("fp32", testFusedPacking[float32])
	t.Run("bf16", testFusedPacking[uint16])
}

func same[T mkActivation](t *testing.T, what string, got, want []T) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: element %d of %d: got %v, want %v", what, i, len(want), get(got[i]), get(want[i]))
		}
	}
}

func TestWeightGradientRefuses(t *testing.T) {
	for _, s := range []mkConv{
		conv(64, 64, 2, 1, 8, 8),
		{in: 64, out: 64, kernel: 3, stride: 1, pad: 0, ih: 8, iw: 8, oh: 6, ow: 6},
		{in: 64, out: 64, kernel: 1, stride: 1, pad: 1, ih: 8, iw: 8, oh: 10, ow: 10},
		conv(64, 64, 3, 1, 8, 200),
	} {
		if mkWgradAccepts(s) {
			t.Errorf("%+v is accepted", s)
		}
	}
	best := mkSetLevel(mkAVX512BF16)
	defer mkSetLevel(best)
	full := conv(64, 64, 3, 1, 8, 8)
	half := full
	half.bf16 = true
	for level := mkPlain; level <= best; level++ {
		mkSetLevel(level)
		if fits := level >= mkAVX512; mkWgradFits(full) != fits || mkWgradFits(half) != fits {
			t.Errorf("at level %d fp32 fits: %v, bf16: %v", level, mkWgradFits(full), mkWgradFits(half))
		}
	}
}
