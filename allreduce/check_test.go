package allreduce

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mochi/allreduce/codec"
)

// flipBit changes the nth bit of a value.
func flipBit(x *float32, n int) { *x = math.Float32frombits(math.Float32bits(*x) ^ 1<<n) }

// However a vector is cut, a Check looks at the same elements of it, and in Stride
// steps at each once.
func TestCheckLooksAtEverything(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		n, offset, stride := rng.IntN(3000), rng.IntN(2000), 1+rng.IntN(9)
		looked := make([]int, n)
		for step := range stride {
			whole := &Check{Step: uint64(step) + rng.Uint64N(100)*uint64(stride), Stride: stride, Offset: offset}
			var want, got []int
			whole.each(0, n, func(lo, hi int) {
				for i := lo; i < hi; i++ {
					looked[i]++
					want = append(want, i)
				}
			})
			for lo := 0; lo < n; {
				hi := min(n, lo+1+rng.IntN(200))
				whole.each(lo, hi, func(lo, hi int) {
					for i := lo; i < hi; i++ {
						got = append(got, i)
					}
				})
				lo = hi
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%d elements from %d on, stride %d: in pieces it looks at others", n, offset, stride)
			}
		}
		for i, times := range looked {
			if times != 1 {
				t.Fatalf("element %d of %d from %d on, stride %d: looked at %d times", i, n, offset, stride, times)
			}
		}
	}
}

// A rank that adds one element wrongly, by any bit that is not rounded away, finds
// it; so it does when what it adds is not what it should add, and when a sum that
// is complete changes before all have it. A right one finds nothing.
func TestWrongAdditionIsFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	vector := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(rng.NormFloat64())
			if rng.IntN(9) == 0 {
				x[i] = float32(math.Copysign(0, float64(x[i])))
			}
		}
		return x
	}
	for n := range 4000 {
		wire, keep, fault := []codec.Wire{codec.FP32, codec.BF16}[n%2], n&2 != 0, n/4%5
		length := 1 + rng.IntN(300)
		at, bit := rng.IntN(length), 16+rng.IntN(15) // as bf16 has them
		terms := vector(length)
		data := slices.Clone(terms)
		payload := slices.Clone(wire.Pack(make([]byte, 4*length), vector(length)))
		c := &Check{Stride: 1, Own: func(dst []float32, lo int) { copy(dst, terms[lo:]) }}
		v := &floats{data: data, wire: wire, check: c}
		c.begin(wires{wire, wire, wire})
		if fault == 1 { // before: its own part
			flipBit(&data[at], bit)
		}
		s := span{0, length}
		half := length / 2 * wire.Size()
		if fault == 2 { // of the addition itself
			c.before(data, s, payload)
			wire.Add(data, payload)
			flipBit(&data[at], bit)
			if keep {
				wire.Round(data)
			}
			c.after(data, s, keep)
		} else {
			how := roleAdd
			if keep {
				how = roleAddAndKeep
			}
			v.take(how, 0, length/2, payload[:half], goesOn)
			v.take(how, length/2, length, payload[half:], goesOn)
		}
		if fault == 3 { // at rest
			flipBit(&data[at], bit)
		}
		c.ends(data)
		want := fault == 2 || fault == 3 && keep
		if fault == 1 { // unless it is rounded away
			right := slices.Clone(terms)
			wire.Add(right, payload)
			wrong := slices.Clone(data)
			if keep {
				wire.Round(right)
			}
			want = !slices.EqualFunc(right, wrong, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) })
		}
		if got := c.Found().Wrong > 0; got != want {
			t.Fatalf("%d: fault %d in element %d of %d, bit %d, %s, kept %v: found %v", n, fault, at, length, bit, wire, keep, c.Found())
		}
	}
}

// What is passed on has another mark when a bit of it changes, or when two
// elements change places; in which pieces it comes makes no difference.
func TestMarks(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	for range 2000 {
		x := make([]float32, 2+rng.IntN(200))
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		c := &Check{Offset: rng.IntN(1000)}
		want := c.mark(5, x)
		cut := rng.IntN(len(x))
		if c.mark(5+cut, x[cut:])+c.mark(5, x[:cut]) != want {
			t.Fatal("in two pieces it has another mark")
		}
		i, j := rng.IntN(len(x)), rng.IntN(len(x))
		flipBit(&x[i], rng.IntN(32))
		if c.mark(5, x) == want {
			t.Fatal("another bit, and the same mark")
		}
		want = c.mark(5, x)
		if x[i] != x[j] {
			x[i], x[j] = x[j], x[i]
			if c.mark(5, x) == want {
				t.Fatal("another order, and the same mark")
			}
		}
	}
}

// TestCheckOfWhatPasses: what goes on in its payload is found to be what it is found to be
// in the vector, and a bit that changes there is seen.
func TestCheckOfWhatPasses(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 1))
	for n := range 2000 {
		wire, how := []codec.Wire{codec.FP32, codec.BF16}[n%2], []role{roleAdd, roleAddAndKeep}[n/2%2]
		terms, came := make([]float32, 1+rng.IntN(300)), make([]float32, 300)
		for i := range terms {
			terms[i], came[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64())
		}
		at := span{0, len(terms)}
		packed := wire.Pack(make([]byte, 4*len(terms)), came[:len(terms)])
		run := func(to fate) (found Found, on []byte, kept []float32) {
			c := &Check{Stride: 1 + n%3, Step: uint64(n), Offset: n % 100}
			c.begin(wires{wire, wire, wire})
			v := &floats{data: slices.Clone(terms), wire: wire, check: c, scratch: make([]byte, 4*len(terms))}
			on = slices.Clone(packed)
			if !v.take(how, at.lo, at.hi, on, to) {
				on = slices.Clone(v.pack(at.lo, at.hi))
			}
			if c.ends(v.data); how == roleAddAndKeep {
				kept = v.data
			}
			return c.Found(), on, kept
		}
		want, wantOn, wantKept := run(goesOn)
		got, on, kept := run(mayPass)
		if got != want || !slices.Equal(on, wantOn) || !slices.Equal(kept, wantKept) {
			t.Fatalf("%d: %s, role %d: found %+v, in the vector %+v; or another sum", n, wire, how, got, want)
		}

		c := &Check{Stride: 1}
		c.begin(wires{wire, wire, wire})
		c.before(terms, at, packed)
		on = slices.Clone(packed)
		wire.Pass(on, terms)
		on[rng.IntN(len(on))] ^= 1 << rng.IntN(8)
		if c.passed(terms, at, on); c.Found().Wrong != 1 {
			t.Fatalf("%d: %s: a bit of what passes changed: found %+v", n, wire, c.Found())
		}

		c = &Check{Stride: 1, Own: func(dst []float32, lo int) { copy(dst, terms[lo:]) }}
		c.begin(wires{wire, wire, wire})
		v := &floats{data: slices.Clone(terms), wire: wire, check: c}
		flipBit(&v.data[rng.IntN(len(terms))], rng.IntN(12)) // less than bf16 has
		if v.take(roleAdd, at.lo, at.hi, slices.Clone(packed), mayPass); wire == codec.BF16 && c.Found().Wrong != 1 {
			t.Fatalf("%d: %s: a low bit of what this rank adds changed: found %+v", n, wire, c.Found())
		}
	}
}
