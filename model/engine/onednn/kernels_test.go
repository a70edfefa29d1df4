//go:build onednn && testhooks

package onednn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// eachLevel runs f once per level of this machine, from a level on.
func eachLevel(t *testing.T, from int, f func(t *testing.T, level int)) {
	best := mkBestLevel()
	t.Cleanup(func() { mkSetLevel(best) })
	for level := min(from, best); level <= best; level++ {
		t.Run(mkLevelName(level), func(t *testing.T) {
			if got := mkSetLevel(level); got != level {
				t.Fatalf("asked for level %d, got %d", level, got)
			}
			f(t, level)
		})
	}
}

// bf16 rounds to nearest, ties to even.
func bf16(v float64) uint16 {
	b := math.Float32bits(float32(v))
	if v != v {
		return uint16(b>>16 | 0x40)
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// put and get convert between an activation and float64.
func put[T mkActivation](v float64) T {
	var zero T
	switch any(zero).(type) {
	case uint16:
		return any(bf16(v)).(T)
	case mkWide:
		return any(mkWide(get(bf16(v)))).(T)
	default:
		return any(float32(v)).(T)
	}
}

func get[T mkActivation](v T) float64 {
	switch v := any(v).(type) {
	case uint16:
		return float64(math.Float32frombits(uint32(v) << 16))
	case float32:
		return float64(v)
	case mkWide:
		return float64(v)
	}
	panic("no activation")
}

// random fills n values around mean.
func random[T mkActivation](rng *rand.Rand, n int, mean, deviation float64) []T {
	s := make([]T, n)
	for i := range s {
		s[i] = put[T](mean + deviation*rng.NormFloat64())
	}
	return s
}

// precision is the relative rounding of T, with room for the arithmetic.
func precision[T mkActivation]() float64 {
	if _, half := any(*new(T)).(uint16); half {
		return 1.01 / 256
	}
	return 2e-6
}

// near fails unless got is want up to relative·|want| + absolute.
func near(t *testing.T, what string, got, want, relative, absolute float64) {
	t.Helper()
	if !(math.Abs(got-want) <= relative*math.Abs(want)+absolute) && !(got != got && want != want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// guarded is a slice of n values with n0 sentinels behind it, and a check that
// they are untouched.
func guarded[T mkActivation](n int) (s []T, check func(t *testing.T, what string)) {
	const extra = 64
	all := make([]T, n+extra)
	for i := range all {
		all[i] = put[T](-77)
	}
	return all[:n:n], func(t *testing.T, what string) {
		t.Helper()
		for i := n; i < len(all); i++ {
			if all[i] != put[T](-77) {
				t.Fatalf("%s: wrote behind its end, at +%d", what, i-n)
			}
		}
	}
}

func seeded(parts ...int) *rand.Rand {
	var s uint64
	for _, p := range parts {
		s = s*1000003 + uint64(p)
	}
	return rand.New(rand.NewPCG(s, 1))
}

func shapeName(v ...any) string { return fmt.Sprint(v...) }
