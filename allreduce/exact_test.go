package allreduce

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// sumInSomeOrder adds the terms in a random order and bracketing: it keeps
// replacing two of them by their float32 sum.
func sumInSomeOrder(terms []float32, rng *rand.Rand) float32 {
	pool := append([]float32(nil), terms...)
	for len(pool) > 1 {
		i := rng.IntN(len(pool))
		a := pool[i]
		pool[i] = pool[len(pool)-1]
		pool = pool[:len(pool)-1]
		j := rng.IntN(len(pool))
		pool[j] += a
	}
	return pool[0]
}

// exactSum is the true sum, without rounding.
func exactSum(terms []float32) *big.Float {
	sum := new(big.Float).SetPrec(600)
	for _, v := range terms {
		sum.Add(sum, new(big.Float).SetPrec(600).SetFloat64(float64(v)))
	}
	return sum
}

// checkExact is the property everything rests on: rounded terms have one sum,
// exactly, in any order, near the sum of the unrounded ones.
func checkExact(t *testing.T, terms []float32, rng *rand.Rand) {
	t.Helper()
	largest := MaxAbs(terms)
	spacing, err := Grid(largest, len(terms))
	if err != nil {
		t.Fatalf("%d terms up to %g: %v", len(terms), largest, err)
	}
	rounded := make([]float32, len(terms))
	RoundInto(rounded, terms, spacing)
	for i, v := range rounded {
		want := math.RoundToEven(float64(terms[i])/float64(spacing)) * float64(spacing)
		if float64(v) != want || math.Signbit(float64(v)) && v == 0 {
			t.Fatalf("%g to a multiple of %g: %g, want %g", terms[i], spacing, v, want)
		}
	}
	want, accuracy := exactSum(rounded).Float32()
	if accuracy != big.Exact {
		t.Fatalf("%d terms up to %g, spacing %g: the sum is no float32", len(terms), largest, spacing)
	}
	for range 4 {
		if got := sumInSomeOrder(rounded, rng); math.Float32bits(got) != math.Float32bits(want) {
			t.Fatalf("%d terms up to %g, spacing %g: %g in one order, exactly %g", len(terms), largest, spacing, got, want)
		}
	}
	sum := make([]float32, 1)
	for _, v := range terms {
		AddRounded(sum, []float32{v}, spacing)
	}
	if sum[0] != want {
		t.Fatalf("AddRounded gave %g, want %g", sum[0], want)
	}
	difference, _ := new(big.Float).Sub(exactSum(terms), exactSum(rounded)).Float64()
	g := float64(max(4, len(terms)))
	if bound := g * g * 0x1p-23 * float64(largest); math.Abs(difference) > bound {
		t.Fatalf("%d terms up to %g: rounding moved the sum by %g, bound %g", len(terms), largest, difference, bound)
	}
}

func TestSumsAreTheSameInEveryOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, terms := range []int{1, 2, 3, 4, 5, 7, 8, 13, 32, 100, 1000} {
		for range 60 {
			scale := math.Ldexp(1, rng.IntN(250)-150) // down into the subnormals
			x := make([]float32, terms)
			for i := range x {
				x[i] = float32(rng.NormFloat64() * math.Exp(3*rng.NormFloat64()) * scale)
				switch rng.IntN(12) {
				case 0:
					x[i] = 0
				case 1:
					x[i] = float32(math.Copysign(0, -1))
				}
			}
			if m := MaxAbs(x); m > 0x1p100 || math.IsInf(float64(m), 0) {
				continue
			}
			checkExact(t, x, rng)
		}
	}
}

func TestSumsOfEqualExtremes(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for _, largest := range []float32{
		math.SmallestNonzeroFloat32, 3 * math.SmallestNonzeroFloat32, 0x1p-126, 0x0.fffffep-126,
		1, 0x1.fffffep0, 0x1.000002p0, 0x1.000002p22, 4194304.5, 0x1.fffffep99,
	} {
		for terms := 1; terms <= 33; terms++ {
			for _, sign := range []float32{1, -1} {
				x := make([]float32, terms)
				for i := range x {
					x[i] = sign * largest
				}
				checkExact(t, x, rng)
				for i := range x {
					x[i] = sign * math.Nextafter32(largest, 0)
				}
				x[0] = -sign * largest
				checkExact(t, x, rng)
			}
		}
	}
}

// TestPlainSumsDiffer shows that the test above can fail: without rounding the
// order does matter.
func TestPlainSumsDiffer(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	x := make([]float32, 32)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	first := sumInSomeOrder(x, rng)
	for range 100 {
		if sumInSomeOrder(x, rng) != first {
			return
		}
	}
	t.Error("100 random orders gave one sum")
}

func TestGridIsTheSmallest(t *testing.T) {
	for _, largest := range []float32{1, 1.5, 0.3, 0x1.fffffep5} {
		for _, terms := range []int{4, 5, 8, 9, 64} {
			spacing, err := Grid(largest, terms)
			if err != nil {
				t.Fatal(err)
			}
			fits := func(u float64) bool { return math.Ceil(float64(largest)/u)*float64(terms) <= 1<<24 }
			if !fits(float64(spacing)) || fits(float64(spacing)/2) {
				t.Errorf("%d terms up to %g: spacing %g", terms, largest, spacing)
			}
		}
	}
}

func TestGridRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		largest float32
		terms   int
		is      error
	}{
		{"NaN", float32(math.NaN()), 4, ErrNotFinite},
		{"infinity", float32(math.Inf(1)), 4, ErrNotFinite},
		{"negative", -1, 4, nil},
		{"no terms", 1, 0, nil},
		{"too many terms", 1, MaxTerms + 1, nil},
		{"overflow", math.MaxFloat32, 2, nil},
		{"overflow of many", 0x1p120, 1 << 10, nil},
	} {
		spacing, err := Grid(c.largest, c.terms)
		if err == nil || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: spacing %g, error %v", c.name, spacing, err)
		}
	}
	if spacing, err := Grid(0, 8); err != nil || spacing <= 0 {
		t.Errorf("all zero: spacing %g, error %v", spacing, err)
	}
}

func TestMaxAbs(t *testing.T) {
	inf, nan := float32(math.Inf(-1)), float32(math.NaN())
	for _, c := range []struct {
		x    []float32
		want float32
	}{
		{nil, 0},
		{[]float32{-3, 2}, 3},
		{[]float32{1, 2, 3, 4, -5, 0, 0, 0, 4}, 5},
		{[]float32{0, 0, 0, 0, 0, 1, inf}, float32(math.Inf(1))},
		{[]float32{inf, nan, 1}, nan},
		{[]float32{1, 2, 3, 4, 5, -nan}, nan},
	} {
		if got := MaxAbs(c.x); math.Float32bits(got) != math.Float32bits(c.want) {
			t.Errorf("MaxAbs(%v) = %g, want %g", c.x, got, c.want)
		}
	}
}

func FuzzExactSums(f *testing.F) {
	f.Add(uint64(1), uint16(8), int16(0), uint8(3))
	f.Add(uint64(2), uint16(3), int16(-149), uint8(0))
	f.Add(uint64(3), uint16(500), int16(90), uint8(200))
	f.Fuzz(func(t *testing.T, seed uint64, count uint16, exponent int16, spread uint8) {
		rng := rand.New(rand.NewPCG(seed, 0))
		x := make([]float32, 1+count%2000)
		for i := range x {
			e := int(exponent)%150 - rng.IntN(int(spread)+1)
			x[i] = float32(math.Ldexp(2*rng.Float64()-1, e))
		}
		if MaxAbs(x) > 0x1p100 {
			return
		}
		checkExact(t, x, rng)
	})
}

func BenchmarkExact(b *testing.B) {
	const n = 1 << 16
	x, sum := make([]float32, n), make([]float32, n)
	for i := range x {
		x[i] = float32(i)
	}
	for name, run := range map[string]func(){
		"MaxAbs":     func() { MaxAbs(x) },
		"RoundInto":  func() { RoundInto(sum, x, 1) },
		"AddRounded": func() { AddRounded(sum, x, 1) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(4 * n)
			for b.Loop() {
				run()
			}
		})
	}
}

func ExampleGrid() {
	// Gradients of one tensor from four BatchNorm groups, wherever computed.
	groups := [][]float32{{0.1, -0.7}, {0.2, 0.30000001}, {-0.4, 1e-9}, {0.3, 0.4}}
	var largest float32
	for _, g := range groups {
		largest = max(largest, MaxAbs(g)) // over ranks: Group.AllReduceMax
	}
	spacing, err := Grid(largest, len(groups))
	if err != nil {
		panic(err)
	}
	forwards, backwards := make([]float32, 2), make([]float32, 2)
	for i := range groups {
		AddRounded(forwards, groups[i], spacing)
		AddRounded(backwards, groups[len(groups)-1-i], spacing)
	}
	fmt.Println(forwards[0] == backwards[0], forwards[1] == backwards[1])
	// Output: true true
}
