package kernel

import (
	"math"
	"slices"
	"testing"
)

func TestCast(t *testing.T) {
	m := newMachine(t)
	var x []float32
	for bits := range uint32(1 << 16) { // every bf16, and what lies just around the ties above it
		for _, low := range []uint32{0, 1, 0x7fff, 0x8000, 0x8001, 0xffff} {
			x = append(x, math.Float32frombits(bits<<16|low))
		}
	}
	x = x[:len(x)-3] // no multiple of a vector
	half := make([]uint16, len(x))
	m.run(t, "to_bf16", Flat(len(x)), int64(len(x)), x, half)
	back := unwritten[float32](len(x))
	m.run(t, "to_f32", Flat(len(x)), int64(len(x)), half, back)
	for i, v := range x {
		want := bf16(v)
		if half[i] != want && !(v != v && get(half[i]) != get(half[i])) {
			t.Fatalf("%x: got %#x, want %#x", math.Float32bits(v), half[i], want)
		}
		if math.Float32bits(back[i]) != uint32(half[i])<<16 {
			t.Fatalf("%#x: got %x", half[i], math.Float32bits(back[i]))
		}
	}
}

func TestImages(t *testing.T) { both(t, testImages[float32], testImages[uint16]) }

func testImages[T activation](t *testing.T) {
	m := newMachine(t)
	cases := [][4]int{{2, 3, 3, 35}, {1, 3, 4, 256}, {3, 1, 16, 5}, {2, 5, 8, 300}, {1, 9, 12, 1}}
	for _, s := range fuzzed(6, [2]int{1, 4}, [2]int{1, 20}, [2]int{1, 12}, [2]int{1, 600}) {
		cases = append(cases, [4]int{s[0], s[1], s[1] + s[2] - 1, s[3]})
	}
	for _, s := range cases {
		n, channels, padded, pixels := s[0], s[1], s[2], s[3]
		x, y := random[float32](seeded(s[:]...), n*channels*pixels, 0, 1), unwritten[T](n*padded*pixels)
		m.run(t, Name("images", typeOf[T]()), Images(n, pixels), x, channels, padded, pixels, y)
		same(t, "images", y, func(i int) float64 {
			image, p, c := i/padded/pixels, i/padded%pixels, i%padded
			if c >= channels {
				return 0
			}
			return float64(x[(image*channels+c)*pixels+p])
		})
	}
}

// flatSizes are around vectors and blocks, and more than one step a thread.
var flatSizes = []int{1, 3, 4, 5, 8, 9, 255, 1024, 1027, 5000}

// sizeCases are those and fuzzed ones.
func sizeCases() []int {
	cases := slices.Clone(flatSizes)
	for _, s := range fuzzed(6, [2]int{1, 20000}) {
		cases = append(cases, s[0])
	}
	return cases
}

func TestElementwise(t *testing.T) { both(t, testElementwise[float32], testElementwise[uint16]) }

func testElementwise[T activation](t *testing.T) {
	m, typ := newMachine(t), typeOf[T]()
	for _, n := range sizeCases() {
		rng := seeded(n)
		a, b := random[T](rng, n, 0, 1), random[T](rng, n, 0, 1)
		a[0], a[n/2] = 0, put[T](math.NaN())
		y := unwritten[T](n)
		m.run(t, Name("add", typ), Flat(n), int64(n), a, b, y)
		same(t, "add", y, func(i int) float64 { return get(a[i]) + get(b[i]) })
		m.run(t, Name("relu", typ), Flat(n), int64(n), a, y)
		same(t, "relu", y, func(i int) float64 {
			if get(a[i]) < 0 {
				return 0
			}
			return get(a[i])
		})
		m.run(t, Name("relu_grad", typ), Flat(n), int64(n), a, b, y)
		same(t, "relu_grad", y, func(i int) float64 {
			if get(a[i]) > 0 {
				return get(b[i])
			}
			return 0
		})
		inPlace := append([]T{}, a...)
		m.run(t, Name("add", typ), Flat(n), int64(n), inPlace, b, inPlace)
		same(t, "add in place", inPlace, func(i int) float64 { return get(a[i]) + get(b[i]) })
	}
}

// matrices are rows and channels, odd ones and those of heads.
var matrices = [][2]int{{1, 1}, {3, 5}, {2, 16}, {7, 37}, {30, 128}, {33, 520}, {300, 24}}

// matrixCases are those and fuzzed ones.
func matrixCases() [][2]int {
	cases := slices.Clone(matrices)
	for _, s := range fuzzed(6, [2]int{1, 90}, [2]int{1, 600}) {
		cases = append(cases, [2]int(s))
	}
	return cases
}

func TestBias(t *testing.T) { both(t, testBias[float32], testBias[uint16]) }

func testBias[T activation](t *testing.T) {
	m, typ := newMachine(t), typeOf[T]()
	for _, s := range matrixCases() {
		rows, channels := s[0], s[1]
		rng := seeded(rows, channels)
		x, bias := random[T](rng, rows*channels, 0, 1), random[float32](rng, channels, 0, 1)
		for relu := range 2 {
			y := unwritten[T](rows * channels)
			m.run(t, Name("bias", typ), Flat(len(x)), int64(len(x)), channels, x, bias, relu, y)
			same(t, "bias", y, func(i int) float64 {
				v := get(x[i]) + float64(bias[i%channels])
				if relu == 1 {
					v = max(v, 0)
				}
				return v
			})
		}
		db := unwritten[float32](channels)
		m.run(t, Name("bias_grad", typ), AvgPool(typ, 1, rows, channels), x, rows, channels, db)
		near(t, "bias_grad", db, func(c int) (sum float64) {
			for r := range rows {
				sum += get(x[r*channels+c])
			}
			return sum
		}, 1e-6, func(int) float64 { return float64(rows) })
	}
}

func TestL2Norm(t *testing.T) {
	m := newMachine(t)
	for _, s := range matrixCases() {
		rows, d := s[0], s[1]
		rng := seeded(rows, d)
		x, dy := random[float32](rng, rows*d, 0, 2), random[float32](rng, rows*d, 0, 1)
		for i := range x[:d] {
			x[i] = 0 // a norm that is cut off
		}
		want := make([]float64, rows)
		for r := range rows {
			for _, v := range x[r*d : (r+1)*d] {
				want[r] += float64(v) * float64(v)
			}
			want[r] = max(math.Sqrt(want[r]), 1e-12)
		}
		y, norms := unwritten[float32](rows*d), unwritten[float32](rows)
		m.run(t, "l2norm", PerRow(rows), rows, d, x, y, norms)
		norm := func(r int) float64 { return want[r] }
		near(t, "norms", norms, norm, 1e-7, norm)
		near(t, "l2norm", y, func(i int) float64 { return float64(x[i]) / norm(i/d) }, 1e-7, func(int) float64 { return 1 })

		dx := append([]float32{}, dy...) // in place
		m.run(t, "l2norm_grad", PerRow(rows), rows, d, y, norms, dx, dx)
		near(t, "l2norm_grad", dx, func(i int) float64 {
			r := i / d
			var along float64
			if r > 0 {
				for c := range d {
					along += float64(dy[r*d+c]) * float64(x[r*d+c]) / norm(r)
				}
			}
			return (float64(dy[i]) - along*float64(x[i])/norm(r)) / norm(r)
		}, 3e-7, func(i int) float64 { return (1 + math.Sqrt(float64(d))) * 3 / norm(i/d) })
	}
}
