//go:build onednn && testhooks

package onednn

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// updateReference is engine.Update as written there.
func updateReference(s mkSGD, grad, velocity, query, key []float32) {
	for i, g := range grad {
		g = float32(s.rate * (g + float32(s.weightDecay*query[i])))
		velocity[i] = float32(s.momentum*velocity[i]) + g
		query[i] -= float32(s.lr * velocity[i])
		key[i] = float32(s.ema*key[i]) + float32((1-s.ema)*query[i])
	}
}

func randomStep(rng *rand.Rand, n int) (s mkSGD, grad, velocity, query, key []float32) {
	s = mkSGD{lr: 0.03 * rng.Float32(), momentum: 0.9, weightDecay: 1e-4, ema: 0.999, rate: rng.Float32()}
	return s, random[float32](rng, n, 0, 1), random[float32](rng, n, 0, 1), random[float32](rng, n, 0, 0.1), random[float32](rng, n, 0, 0.1)
}

func TestUpdateToTheBit(t *testing.T) {
	eachLevel(t, mkPlain, func(t *testing.T, _ int) {
		for _, n := range []int{0, 1, 7, 16, 63, 1000, 4099} {
			s, grad, velocity, query, key := randomStep(seeded(n), n)
			v, q, k := slices.Clone(velocity), slices.Clone(query), slices.Clone(key)
			for range 3 {
				mkUpdate(s, grad, velocity, query, key)
				updateReference(s, grad, v, q, k)
			}
			same(t, "velocity", velocity, v)
			same(t, "query", query, q)
			same(t, "key", key, k)
			for i := range q {
				q[i] = float32((1-float32(0.1))*q[i]) + float32(float32(0.1)*grad[i])
			}
			mkRunning(1-float32(0.1), 0.1, grad, query)
			same(t, "running", query, q)
		}
	})
}

// blocked is a format of oneDNN: the outer order of dimensions (o, i, tap) and
// inner blocks, outermost first.
type blocked struct {
	name   string
	order  [3]int
	blocks []int64
	dims   []int64
}

var layouts = []blocked{
	{"oihw", [3]int{0, 1, 2}, nil, nil},
	{"hwio", [3]int{2, 1, 0}, nil, nil},
	{"ohwi", [3]int{0, 2, 1}, nil, nil},
	{"OIhw16i16o", [3]int{0, 1, 2}, []int64{16, 16}, []int64{1, 0}},
	{"OIhw16o16i", [3]int{0, 1, 2}, []int64{16, 16}, []int64{0, 1}},
	{"OIhw8i16o2i", [3]int{0, 1, 2}, []int64{8, 16, 2}, []int64{1, 0, 1}},
	{"IOhw8o16i2o", [3]int{1, 0, 2}, []int64{8, 16, 2}, []int64{0, 1, 0}},
	{"OhwI16i64o2i", [3]int{0, 2, 1}, []int64{16, 64, 2}, []int64{1, 0, 1}},
	{"IhwO16o32i2o", [3]int{1, 2, 0}, []int64{16, 32, 2}, []int64{0, 1, 0}},
	{"Owhi16o", [3]int{0, 2, 1}, []int64{16}, []int64{0}},
	{"OIhw4i16o4i", [3]int{0, 1, 2}, []int64{4, 16, 4}, []int64{1, 0, 1}},
}

// tables are the offsets of a weight [out][in][taps] and the elements it takes.
func (b blocked) tables(out, in, taps int) (fo, fi, ft []int32, size int) {
	dims := [3]int{out, in, taps}
	inner := [3]int64{1, 1, 1}
	stride := int64(1)
	for i, d := range b.dims {
		inner[d] *= b.blocks[i]
		stride *= b.blocks[i]
	}
	var f [3][]int32
	for k := 2; k >= 0; k-- {
		d := b.order[k]
		f[d] = make([]int32, dims[d])
		mkLayoutAxis(d, stride, b.blocks, b.dims, f[d])
		stride *= (int64(dims[d]) + inner[d] - 1) / inner[d]
	}
	return f[0], f[1], f[2], int(stride)
}

// offset is oneDNN's definition of a blocked format, element by element.
func (b blocked) offset(dims [3]int, at [3]int) int {
	inner := [3]int{1, 1, 1}
	for i, d := range b.dims {
		inner[d] *= int(b.blocks[i])
	}
	outer := 0
	for _, d := range b.order {
		outer = outer*((dims[d]+inner[d]-1)/inner[d]) + at[d]/inner[d]
	}
	rest := [3]int{at[0] % inner[0], at[1] % inner[1], at[2] % inner[2]}
	for i, d := range b.dims {
		inner[d] /= int(b.blocks[i])
		outer = outer*int(b.blocks[i]) + rest[d]/inner[d]
		rest[d] %= inner[d]
	}
	return outer
}

func testLayouts[T mkActivation](t *testing.T) {
	for _, b := range layouts {
		for _, dims := range [][3]int{{64, 64, 1}, {128, 64, 9}, {64, 192, 9}, {16, 16, 9}, {64, 3, 49}, {21, 10, 1}, {40, 48, 9}, {128, 272, 1}, {32, 32, 25}} {
			rng := seeded(dims[:]...)
			w := random[float32](rng, dims[0]*dims[1]*dims[2], 0, 1)
			fo, fi, ft, size := b.tables(dims[0], dims[1], dims[2])
			want := make([]T, size)
			got, check := guarded[T](size)
			clear(got)
			// Widened by the number of channels a block pads, oneDNN wants zeros there.
			for o := range dims[0] {
				for i := range dims[1] {
					for k := range dims[2] {
						want[b.offset(dims, [3]int{o, i, k})] = put[T](float64(w[(o*dims[1]+i)*dims[2]+k]))
					}
				}
			}
			mkLayoutCopy(fo, fi, ft, w, got)
			check(t, b.name)
			same(t, shapeName(b.name, dims), got, want)
		}
	}
}

func TestWorkingCopies(t *testing.T) {
	eachLevel(t, mkPlain, func(t *testing.T, _ int) {
		t.Run("fp32", testLayouts[float32])
		t.Run("bf16", testLayouts[uint16])
		t.Run("fp32 rounded to bf16", testLayouts[mkWide])
	})
}

func TestUpdateWithCopies(t *testing.T) {
	eachLevel(t, mkPlain, func(t *testing.T, _ int) {
		for _, dims := range [][3]int{{64, 32, 9}, {70, 16, 1}, {10, 3, 49}} {
			n := dims[0] * dims[1] * dims[2]
			s, grad, velocity, query, key := randomStep(seeded(n), n)
			fo, fi, ft, size := layouts[5].tables(dims[0], dims[1], dims[2])
			fromQuery, fromKey := make([]uint16, size), make([]uint16, size)
			v, q, k := slices.Clone(velocity), slices.Clone(query), slices.Clone(key)
			updateReference(s, grad, v, q, k)
			mkUpdateCopies(s, grad, velocity, query, key, fo, fi, ft, fromQuery, fromKey)
			same(t, "velocity", velocity, v)
			same(t, "query", query, q)
			same(t, "key", key, k)
			wantQuery, wantKey := make([]uint16, size), make([]uint16, size)
			mkLayoutCopy(fo, fi, ft, q, wantQuery)
			mkLayoutCopy(fo, fi, ft, k, wantKey)
			same(t, "copy of the query", fromQuery, wantQuery)
			same(t, "copy of the key", fromKey, wantKey)
		}
	})
}
