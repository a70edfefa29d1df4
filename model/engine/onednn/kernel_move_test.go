//go:build onednn && testhooks

package onednn

import (
	"math"
	"testing"
)

func TestCast(t *testing.T) {
	values := []float64{0, 1, -1, 1.00390625, 1.01171875, 3.3895314e38, math.Inf(1), math.Inf(-1), math.NaN(), 1e-30, 65504}
	rng := seeded(1)
	for range 300 {
		values = append(values, rng.NormFloat64()*math.Exp(20*rng.NormFloat64()))
	}
	x := make([]float32, len(values))
	for i, v := range values {
		x[i] = float32(v)
		if math.Abs(v) < 1e-37 { // the instruction takes denormals for zero
			x[i] = 0
		}
	}
	eachLevel(t, mkPlain, func(t *testing.T, _ int) {
		half, check := guarded[uint16](len(x))
		mkCast(x, half)
		check(t, "bf16")
		back, check32 := guarded[float32](len(x))
		mkCast(half, back)
		check32(t, "fp32")
		for i, v := range x {
			if v != v {
				if back[i] == back[i] {
					t.Errorf("NaN became %v", back[i])
				}
				continue
			}
			if half[i] != bf16(float64(v)) {
				t.Errorf("%v: got %#x, want %#x", v, half[i], bf16(float64(v)))
			}
			if float64(back[i]) != get(half[i]) {
				t.Errorf("%#x: got %v", half[i], back[i])
			}
		}
	})
}

func testImages[T mkActivation](t *testing.T) {
	for _, s := range [][4]int{{2, 3, 3, 35}, {1, 3, 4, 16}, {3, 1, 16, 5}, {2, 5, 8, 49}} {
		n, channels, padded, pixels := s[0], s[1], s[2], s[3]
		x := random[float32](seeded(s[:]...), n*channels*pixels, 0, 1)
		y, check := guarded[T](n * padded * pixels)
		mkImages(n, channels, padded, pixels, x, y)
		check(t, "images")
		for i, v := range y {
			image, p, c := i/padded/pixels, i/padded%pixels, i%padded
			want := put[T](0)
			if c < channels {
				want = put[T](float64(x[(image*channels+c)*pixels+p]))
			}
			if v != want {
				t.Fatalf("%v: image %d pixel %d channel %d: got %v, want %v", s, image, p, c, v, want)
			}
		}
	}
}

func testElementwise[T mkActivation](t *testing.T) {
	for _, s := range [][2]int{{3, 5}, {2, 16}, {7, 37}, {1, 1}, {30, 128}} {
		rows, channels := s[0], s[1]
		n := rows * channels
		a, b := random[T](seeded(n), n, 0, 1), random[T](seeded(n, 1), n, 0, 1)
		a[0], b[0] = 0, put[T](1)
		y, check := guarded[T](n)
		verify := func(what string, want func(i int) float64) {
			t.Helper()
			check(t, what)
			for i := range y {
				if y[i] != put[T](want(i)) {
					t.Fatalf("%v: %s: element %d: got %v, want %v", s, what, i, get(y[i]), want(i))
				}
			}
		}
		mkAdd(a, b, y)
		verify("add", func(i int) float64 { return float64(float32(get(a[i])) + float32(get(b[i]))) })
		mkReLU(a, y)
		verify("ReLU", func(i int) float64 { return max(0, get(a[i])) })
		mkReLUGrad(a, b, y)
		verify("ReLU gradient", func(i int) float64 {
			if get(a[i]) > 0 {
				return get(b[i])
			}
			return 0
		})
		shift := random[float32](seeded(n, 2), channels, 0, 1)
		mkBias(rows, a, shift, true, y)
		verify("bias", func(i int) float64 { return float64(max(0, float32(get(a[i]))+shift[i%channels])) })
		mkBias(rows, a, shift, false, y)
		verify("bias", func(i int) float64 { return float64(float32(get(a[i])) + shift[i%channels]) })
		db, check32 := guarded[float32](channels)
		mkBiasGrad(rows, a, true, db)
		mkBiasGrad(rows, b, false, db)
		check32(t, "bias gradient")
		pooled, checkPooled := guarded[float32](channels)
		mkAvgPool(1, rows, channels, a, pooled)
		checkPooled(t, "average")
		for c := range channels {
			var sum, of float64
			for r := range rows {
				of += get(a[r*channels+c])
				sum += get(b[r*channels+c])
			}
			near(t, "bias gradient", float64(db[c]), of+sum, 1e-5, 1e-5)
			near(t, "average", float64(pooled[c]), of/float64(rows), 1e-5, 1e-6)
		}
		mkAvgPoolGrad(1, rows, channels, pooled, y)
		check(t, "average gradient")
		for i := range y {
			near(t, "average gradient", get(y[i]), float64(pooled[i%channels])/float64(rows), precision[T](), 0)
		}
	}
	y := []T{put[T](math.NaN())}
	if mkReLU(y, y); get(y[0]) == get(y[0]) {
		t.Error("ReLU hides NaN")
	}
}

func pool(channels, kernel, stride, pad, h, w int) mkPool {
	return mkPool{channels: channels, ih: h, iw: w, kernel: kernel, stride: stride, pad: pad,
		oh: (h+2*pad-kernel)/stride + 1, ow: (w+2*pad-kernel)/stride + 1}
}

func testPool[T mkActivation](t *testing.T) {
	for _, p := range []mkPool{pool(64, 3, 2, 1, 12, 10), pool(17, 3, 2, 1, 7, 7), pool(3, 2, 2, 0, 6, 4), pool(33, 3, 1, 1, 5, 5), pool(16, 5, 3, 2, 9, 8)} {
		const n = 2
		in, out := n*p.ih*p.iw*p.channels, n*p.oh*p.ow*p.channels
		x := random[T](seeded(in), in, 0, 1)
		for i := range x { // many ties: the first counts
			x[i] = put[T](math.Round(2 * get(x[i])))
		}
		bn := newBN(p.channels, 1)
		foldOf(n*p.ih*p.iw, p.channels, x, bn)
		normal := make([]T, in)
		mkBNApply(n*p.ih*p.iw, p.channels, x, bn, nil, nil, true, normal)
		y, check := guarded[T](out)
		arg := make([]uint8, out)
		mkMaxPool(p, n, x, nil, y, arg)
		check(t, "max-pool")
		dy := random[T](seeded(out, 1), out, 0, 1)
		want := make([]float64, in)
		for i := range y {
			c, s, r, image := i%p.channels, i/p.channels%p.ow, i/p.channels/p.ow%p.oh, i/p.channels/p.ow/p.oh
			best, from := math.Inf(-1), -1
			for kr := range p.kernel {
				for kc := range p.kernel {
					a, b := r*p.stride-p.pad+kr, s*p.stride-p.pad+kc
					if a < 0 || a >= p.ih || b < 0 || b >= p.iw {
						continue
					}
					at := ((image*p.ih+a)*p.iw+b)*p.channels + c
					if v := get(x[at]); v > best {
						best, from = v, at
					}
				}
			}
			want[from] += get(dy[i])
			if get(y[i]) != best {
				t.Fatalf("%+v: element %d: got %v, want %v", p, i, get(y[i]), best)
			}
		}
		dx, checkDX := guarded[T](in)
		mkMaxPoolGrad(p, n, dy, arg, dx)
		checkDX(t, "max-pool gradient")
		for i := range dx {
			near(t, shapeName(p, " gradient"), get(dx[i]), want[i], precision[T](), 1e-6)
		}
		// Through BatchNorm and ReLU on the way, the same as after them.
		mkMaxPool(p, n, normal, nil, dy, nil)
		mkMaxPool(p, n, x, bn, y, nil)
		for i := range y { // pooling has no AVX2 form, so the last bit may differ
			near(t, shapeName(p, " of BatchNorm"), get(y[i]), get(dy[i]), precision[T](), 1e-6)
		}
	}
}

func TestMove(t *testing.T) {
	eachLevel(t, mkPlain, func(t *testing.T, _ int) {
		t.Run("images fp32", testImages[float32])
		t.Run("images bf16", testImages[uint16])
		t.Run("elementwise fp32", testElementwise[float32])
		t.Run("elementwise bf16", testElementwise[uint16])
		t.Run("max-pool fp32", testPool[float32])
		t.Run("max-pool bf16", testPool[uint16])
	})
}

func TestMaxPoolNaN(t *testing.T) {
	eachLevel(t, mkPlain, func(t *testing.T, _ int) {
		p := pool(16, 3, 1, 1, 3, 3)
		x := make([]float32, 9*16)
		x[4*16], x[8*16] = float32(math.NaN()), 5
		y, arg := make([]float32, 9*16), make([]uint8, 9*16)
		mkMaxPool(p, 1, x, nil, y, arg)
		if y[4*16] == y[4*16] || arg[4*16] != 4 {
			t.Errorf("a window with NaN gives %v from tap %d", y[4*16], arg[4*16])
		}
	})
}

func TestL2Norm(t *testing.T) {
	const rows, channels = 3, 37
	x := random[float32](seeded(1), rows*channels, 0, 1)
	clear(x[channels : 2*channels])
	dy := random[float32](seeded(2), rows*channels, 0, 1)
	y, norms, dx := make([]float32, rows*channels), make([]float32, rows), make([]float32, rows*channels)
	mkL2Norm(rows, channels, x, y, norms)
	mkL2NormGrad(rows, channels, y, norms, dy, dx)
	for r := range rows {
		var squares, along float64
		for c := range channels {
			v := float64(x[r*channels+c])
			squares += v * v
			along += v * float64(dy[r*channels+c])
		}
		norm := max(math.Sqrt(squares), 1e-12)
		for c := range channels {
			i := r*channels + c
			v := float64(x[i]) / norm
			near(t, "y", float64(y[i]), v, 1e-6, 0)
			near(t, "dx", float64(dx[i]), (float64(dy[i])-v*along/norm)/norm, 1e-5, 1e-6)
		}
	}
}
