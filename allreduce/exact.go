package allreduce

import (
	"errors"
	"fmt"
	"math"
)

// ErrNotFinite says that a value to be summed is infinite or NaN: training has
// diverged.
var ErrNotFinite = errors.New("not finite")

// significand is the number of integers float32 can count without a gap:
// every integer of magnitude up to 2^24 is exact.
const significand = 1 << 24

// MaxTerms is the largest number of terms Grid accepts.
const MaxTerms = significand / 4

// Grid chooses the spacing of the grid on which a sum of float32 values is
// exact and therefore the same in every order and bracketing: the smallest
// power of two u such that `terms` values of magnitude up to largest, each
// rounded to a multiple of u, have only partial sums of magnitude ≤ 2²⁴·u, all
// of which float32 holds exactly (Demmel & Nguyen, "Parallel Reproducible
// Summation", 2015, use the same pre-rounding). u is at least the smallest
// subnormal, and fewer than four terms count as four, which RoundInto's
// arithmetic needs.
//
// largest is the largest magnitude over all terms on all ranks (MaxAbs, then
// Group.AllReduceMax). Rounding moves each value by at most u/2, and
// u < 2⁻²²·terms·largest for at least four terms: the sum of G values is within
// G²·2⁻²³·largest of the true one. Plain float32 summation in some order is
// within G·2⁻²⁴ times the sum of magnitudes.
//
// Errors: ErrNotFinite when largest is infinite or NaN; an error when the sum
// could overflow float32, when largest is negative, or when terms is not in
// [1, MaxTerms].
func Grid(largest float32, terms int) (spacing float32, err error) {
	switch {
	case math.IsNaN(float64(largest)) || math.IsInf(float64(largest), 0):
		return 0, fmt.Errorf("grid for a sum of %d terms up to %g: %w", terms, largest, ErrNotFinite)
	case largest < 0:
		return 0, fmt.Errorf("grid for a sum: largest magnitude %g is negative", largest)
	case terms < 1 || terms > MaxTerms:
		return 0, fmt.Errorf("grid for a sum: %d terms, want 1 to %d", terms, MaxTerms)
	}
	if largest == 0 {
		return math.SmallestNonzeroFloat32, nil
	}
	if terms < 4 {
		terms = 4
	}
	// largest ≥ 2^(e−1) and terms > 2^(b−1), b = ⌈log₂ terms⌉: no u below
	// 2^(e+b−25) can hold the sum, and one or two steps up it does.
	_, e := math.Frexp(float64(largest))
	exponent := e - 24 + bitsFor(terms) - 1
	for !holds(largest, exponent, terms) {
		exponent++
	}
	if exponent < -149 {
		exponent = -149 // float32 has no finer grid, and every float32 lies on this one
	}
	if exponent > 103 {
		return 0, fmt.Errorf("grid for a sum: %d terms up to %g may overflow float32", terms, largest)
	}
	return float32(math.Ldexp(1, exponent)), nil
}

// holds says whether terms values up to largest, rounded to multiples of
// 2^exponent, sum to at most 2^24 of them. It counts a rounding up even where
// the nearest multiple is below: at −(2²²+½)·spacing RoundInto would not round.
func holds(largest float32, exponent, terms int) bool {
	multiples := math.Ceil(math.Ldexp(float64(largest), -exponent))
	return multiples*float64(terms) <= significand
}

// bitsFor is ⌈log₂ n⌉.
func bitsFor(n int) int {
	b := 0
	for 1<<b < n {
		b++
	}
	return b
}

// magic is 1.5·2²³·spacing: adding it leaves no bits below spacing, so that
// (x + magic) − magic is x rounded to a multiple of spacing, ties to even, for
// |x| ≤ 2²²·spacing.
func magic(spacing float32) float32 { return spacing * (3 << 22) }

// RoundInto sets dst[i] to src[i] rounded to the nearest multiple of spacing,
// ties to even; spacing comes from Grid and |src[i]| must not exceed the
// magnitude it was given. A result of zero is +0. dst and src may be the same
// slice and have the same length. NaN stays NaN.
func RoundInto(dst, src []float32, spacing float32) {
	mustMatch(len(dst), len(src))
	m := magic(spacing)
	for len(dst) >= 8 && len(src) >= 8 {
		d, s := (*[8]float32)(dst), (*[8]float32)(src)
		d[0] = (s[0] + m) - m
		d[1] = (s[1] + m) - m
		d[2] = (s[2] + m) - m
		d[3] = (s[3] + m) - m
		d[4] = (s[4] + m) - m
		d[5] = (s[5] + m) - m
		d[6] = (s[6] + m) - m
		d[7] = (s[7] + m) - m
		dst, src = dst[8:], src[8:]
	}
	for i, v := range src {
		dst[i] = (v + m) - m
	}
}

// AddRounded adds to dst[i] what RoundInto makes of src[i]. As long as dst
// holds sums of values rounded to the same spacing, fewer than the terms given
// to Grid, the addition is exact.
func AddRounded(dst, src []float32, spacing float32) {
	mustMatch(len(dst), len(src))
	m := magic(spacing)
	for len(dst) >= 8 && len(src) >= 8 {
		d, s := (*[8]float32)(dst), (*[8]float32)(src)
		d[0] += (s[0] + m) - m
		d[1] += (s[1] + m) - m
		d[2] += (s[2] + m) - m
		d[3] += (s[3] + m) - m
		d[4] += (s[4] + m) - m
		d[5] += (s[5] + m) - m
		d[6] += (s[6] + m) - m
		d[7] += (s[7] + m) - m
		dst, src = dst[8:], src[8:]
	}
	for i, v := range src {
		dst[i] += (v + m) - m
	}
}

// MaxAbs is the largest magnitude in x: 0 for an empty x, +Inf when there is
// an infinity, NaN (one fixed pattern) when there is a NaN, so that one look
// at the result tells whether a gradient is usable.
func MaxAbs(x []float32) float32 {
	const magnitude = 0x7fffffff // as integers, magnitudes order like floats, with Inf and then NaN above all
	var m0, m1, m2, m3 uint32
	for len(x) >= 4 {
		v := (*[4]float32)(x)
		m0 = max(m0, math.Float32bits(v[0])&magnitude)
		m1 = max(m1, math.Float32bits(v[1])&magnitude)
		m2 = max(m2, math.Float32bits(v[2])&magnitude)
		m3 = max(m3, math.Float32bits(v[3])&magnitude)
		x = x[4:]
	}
	for _, v := range x {
		m0 = max(m0, math.Float32bits(v)&magnitude)
	}
	m := max(m0, m1, m2, m3)
	if m > 0x7f800000 {
		return float32(math.NaN())
	}
	return math.Float32frombits(m)
}

func mustMatch(dst, src int) {
	if dst != src {
		panic(fmt.Sprintf("allreduce: %d elements into %d", src, dst))
	}
}
