package kernel

import (
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// activation is what a feature map is made of: float32, or bf16 as uint16.
type activation interface{ float32 | uint16 }

func typeOf[T activation]() Type {
	var v T
	if _, ok := any(v).(uint16); ok {
		return BF16
	}
	return F32
}

// bf16 rounds to nearest, ties to even, by comparing with both neighbours.
func bf16(v float32) uint16 {
	down := math.Float32bits(v) &^ 0xffff // towards zero
	if v != v || math.IsInf(float64(v), 0) {
		return uint16(down>>16) | map[bool]uint16{true: 0x40}[v != v]
	}
	up := down + 0x10000
	value := func(bits uint32) float64 {
		if bits&0x7f800000 == 0x7f800000 { // infinity rounds as if it were the next number
			return math.Copysign(0x1p128, float64(v))
		}
		return float64(math.Float32frombits(bits))
	}
	below, above := math.Abs(float64(v)-value(down)), math.Abs(value(up)-float64(v))
	if above < below || above == below && up>>16&1 == 0 {
		return uint16(up >> 16)
	}
	return uint16(down >> 16)
}

func get[T activation](v T) float64 {
	if h, ok := any(v).(uint16); ok {
		return float64(math.Float32frombits(uint32(h) << 16))
	}
	return float64(any(v).(float32))
}

func put[T activation](v float64) (t T) {
	switch p := any(&t).(type) {
	case *uint16:
		*p = bf16(float32(v))
	case *float32:
		*p = float32(v)
	}
	return t
}

// epsilon is half the distance from 1 to the next T.
func epsilon[T activation]() float64 {
	return map[Type]float64{F32: 0x1p-24, BF16: 0x1p-8}[typeOf[T]()]
}

func seeded(seed ...int) *rand.Rand {
	h := uint64(1)
	for _, s := range seed {
		h = h*0x9e3779b97f4a7c15 + uint64(s)
	}
	return rand.New(rand.NewPCG(h, 7))
}

// fuzzed draws n shapes: each size between its two limits, small ones as often
// as large ones, now and then the multiple of 8 below. MOCHI_FUZZ_SEED picks
// other shapes than the usual ones.
func fuzzed(n int, limits ...[2]int) [][]int {
	seed, _ := strconv.Atoi(os.Getenv("MOCHI_FUZZ_SEED")) // 0 when it is not set
	rng := seeded(seed, n, len(limits))
	shapes := make([][]int, n)
	for i := range shapes {
		for _, l := range limits {
			ratio := float64(l[1]+1) / float64(l[0])
			size := int(float64(l[0]) * math.Pow(ratio, rng.Float64()))
			if rng.IntN(3) == 0 && size&^7 >= l[0] {
				size &^= 7
			}
			shapes[i] = append(shapes[i], size)
		}
	}
	return shapes
}

// random draws n values around mean.
func random[T activation](rng *rand.Rand, n int, mean, deviation float64) []T {
	v := make([]T, n)
	for i := range v {
		v[i] = put[T](mean + deviation*rng.NormFloat64())
	}
	return v
}

// unwritten is n values that a kernel must overwrite: NaN.
func unwritten[T activation](n int) []T {
	v := make([]T, n)
	for i := range v {
		v[i] = put[T](math.NaN())
	}
	return v
}

// near fails where got is off by more than tolerance·scale(i).
func near[T activation](t testing.TB, what string, got []T, want func(i int) float64, tolerance float64, scale func(i int) float64) {
	t.Helper()
	for i := range got {
		if g, w := get(got[i]), want(i); !(math.Abs(g-w) <= tolerance*scale(i)) {
			t.Fatalf("%s: value %d is %v, want %v within %.3g", what, i, g, w, tolerance*scale(i))
		}
	}
}

// same fails where got is not want, rounded to T; NaN equals NaN.
func same[T activation](t testing.TB, what string, got []T, want func(i int) float64) {
	t.Helper()
	for i := range got {
		if g, w := get(got[i]), get(put[T](want(i))); g != w && !(g != g && w != w) {
			t.Fatalf("%s: value %d is %v, want %v", what, i, g, w)
		}
	}
}

// both runs a test on fp32 and bf16 feature maps.
func both(t *testing.T, f32 func(*testing.T), half func(*testing.T)) {
	t.Run("f32", f32)
	t.Run("bf16", half)
}
