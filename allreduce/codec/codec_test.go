package codec

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// nearestBF16 is the dumb oracle: of the two neighbouring bf16 values the
// nearer in float64, the even one in a tie.
func nearestBF16(v float32) uint16 {
	b := math.Float32bits(v)
	down := uint16(b >> 16)
	if v != v {
		return down | 0x40
	}
	if b&0xffff == 0 || b&0x7f800000 == 0x7f800000 {
		return down
	}
	value := func(h uint16) float64 {
		f := math.Float32frombits(uint32(h) << 16)
		if math.IsInf(float64(f), 0) { // the step beyond the largest finite value
			return math.Copysign(math.Ldexp(1, 128), float64(f))
		}
		return float64(f)
	}
	up := down + 1
	toDown, toUp := math.Abs(float64(v)-value(down)), math.Abs(float64(v)-value(up))
	switch {
	case toDown < toUp:
		return down
	case toUp < toDown:
		return up
	case down%2 == 0:
		return down
	}
	return up
}

// awkward are bit patterns where rounding goes wrong first.
var awkward = []uint32{
	0, 0x80000000, 1, 0x80000001, 0x7fff, 0x8000, 0x8001, 0x18000, 0x17fff, 0x18001,
	0x7f7fffff, 0xff7fffff, 0x7f7f7fff, 0x7f7f8000, 0x7f800000, 0xff800000,
	0x7f800001, 0xff800001, 0x7fc00000, 0x7fffffff, 0xffffffff, 0x7f80ffff,
	0x3f800000, 0x3f808000, 0x3f818000, 0x3f807fff, 0x007fffff, 0x00800000,
}

func awkwardVector(n int, rng *rand.Rand) []float32 {
	x := make([]float32, n)
	for i := range x {
		b := rng.Uint32()
		if rng.IntN(3) == 0 {
			b = awkward[rng.IntN(len(awkward))]
		}
		x[i] = math.Float32frombits(b)
	}
	return x
}

func TestBF16AgainstNearestNeighbour(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 15, 16, 17, 33, 1000} {
		x := awkwardVector(n, rng)
		packed := make([]byte, 2*n)
		PackBF16(packed, x)
		for i, v := range x {
			if got, want := binary.LittleEndian.Uint16(packed[2*i:]), nearestBF16(v); got != want {
				t.Fatalf("n=%d element %d: %08x packed to %04x, nearest is %04x", n, i, math.Float32bits(v), got, want)
			}
		}
		unpacked := make([]float32, n)
		UnpackBF16(unpacked, packed)
		rounded := append([]float32(nil), x...)
		RoundBF16(rounded)
		for i := range x {
			want := uint32(nearestBF16(x[i])) << 16
			if got := math.Float32bits(unpacked[i]); got != want {
				t.Fatalf("n=%d element %d: unpacked %08x, want %08x", n, i, got, want)
			}
			if got := math.Float32bits(rounded[i]); got != want {
				t.Fatalf("n=%d element %d: rounded %08x, want %08x", n, i, got, want)
			}
		}
		again := make([]byte, 2*n)
		PackBF16(again, rounded)
		if string(again) != string(packed) {
			t.Fatalf("n=%d: packing rounded values changes them", n)
		}
	}
}

// finite draws values whose sums have no NaN: a NaN's payload is not specified.
func finite(n int, rng *rand.Rand) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64() * math.Exp(8*rng.NormFloat64()))
	}
	return x
}

func TestAddAgainstPlainLoop(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, wire := range []Wire{FP32, BF16} {
		for _, n := range []int{0, 1, 7, 16, 31, 32, 1001} {
			for _, shift := range []int{0, 1} { // a payload need not be aligned
				dst, src := finite(n, rng), finite(n, rng)
				scratch := make([]byte, 4*n)
				packed := wire.Pack(scratch, src)
				moved := make([]byte, len(packed)+shift)[shift:]
				copy(moved, packed)
				sent := append([]float32(nil), src...)
				wire.Round(sent)
				want := make([]float32, n)
				for i := range want {
					want[i] = dst[i] + sent[i]
				}
				wire.Add(dst, moved)
				out := make([]float32, n)
				wire.Unpack(out, moved)
				for i := range want {
					if dst[i] != want[i] || out[i] != sent[i] {
						t.Fatalf("%s n=%d shift=%d element %d: add %g want %g, unpack %g want %g", wire, n, shift, i, dst[i], want[i], out[i], sent[i])
					}
				}
			}
		}
	}
}

func TestMaxIsOrderIndependent(t *testing.T) {
	nan := math.Float32frombits(0x7f800001)
	values := []float32{-1, 3, float32(math.Copysign(0, -1)), 0, nan, float32(math.Inf(1)), -math.MaxFloat32}
	for _, a := range values {
		for _, b := range values {
			x, y := []float32{a}, []float32{b}
			scratch := make([]byte, 4)
			MaxFP32(x, append([]byte(nil), FP32.Pack(scratch, []float32{b})...))
			MaxFP32(y, append([]byte(nil), FP32.Pack(scratch, []float32{a})...))
			if math.Float32bits(x[0]) != math.Float32bits(y[0]) {
				t.Errorf("max(%g, %g) = %08x one way and %08x the other", a, b, math.Float32bits(x[0]), math.Float32bits(y[0]))
			}
			if wantNaN := a != a || b != b; (x[0] != x[0]) != wantNaN {
				t.Errorf("max(%g, %g) = %g", a, b, x[0])
			}
		}
	}
}

func TestWireValidate(t *testing.T) {
	for _, w := range []Wire{FP32, BF16} {
		if err := w.Validate(); err != nil {
			t.Error(err)
		}
	}
	if err := Wire("fp8").Validate(); err == nil {
		t.Error("fp8 was accepted")
	}
}

func TestLengthsMustAgree(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("5 bytes were added to 2 elements")
		}
	}()
	AddFP32(make([]float32, 2), make([]byte, 5))
}

// The nearest bf16, ties to even.
func TestBF16Bits(t *testing.T) {
	for x, want := range map[float32]uint16{
		1: 0x3f80, -1: 0xbf80, 1 + 1.0/256: 0x3f80, 1 + 3.0/256: 0x3f82, 1 + 1.01/256: 0x3f81,
		float32(math.Inf(1)): 0x7f80, math.MaxFloat32: 0x7f80, 0: 0,
	} {
		if got := BF16Bits(x); got != want {
			t.Errorf("%v gives %#x, want %#x", x, got, want)
		}
	}
	if x := FromBF16Bits(BF16Bits(float32(math.NaN()))); x == x {
		t.Error("NaN is lost")
	}
}

// FuzzBF16 compares the kernels in use with the oracle, over any bits.
func FuzzBF16(f *testing.F) {
	for _, b := range awkward {
		f.Add(b, uint8(17))
	}
	f.Fuzz(func(t *testing.T, bits uint32, n uint8) {
		x := make([]float32, n)
		for i := range x {
			x[i] = math.Float32frombits(bits + uint32(i))
		}
		packed := make([]byte, 2*len(x))
		PackBF16(packed, x)
		for i, v := range x {
			if got, want := binary.LittleEndian.Uint16(packed[2*i:]), nearestBF16(v); got != want {
				t.Fatalf("%08x packed to %04x, nearest is %04x", math.Float32bits(v), got, want)
			}
		}
	})
}

func BenchmarkKernels(b *testing.B) {
	const n = 16250 // one segment
	dst, packed := make([]float32, n), make([]byte, 4*n)
	for _, k := range []struct {
		name string
		run  func()
	}{
		{"AddFP32", func() { AddFP32(dst, packed) }},
		{"AddFloats", func() { addFloats(dst, floats(packed)) }},
		{"AddBF16", func() { AddBF16(dst, packed[:2*n]) }},
		{"PackBF16", func() { PackBF16(packed[:2*n], dst) }},
		{"UnpackBF16", func() { UnpackBF16(dst, packed[:2*n]) }},
		{"RoundBF16", func() { RoundBF16(dst) }},
	} {
		b.Run(k.name, func(b *testing.B) {
			b.SetBytes(4 * n)
			for b.Loop() {
				k.run()
			}
		})
	}
}

func ExampleWire() {
	gradient := []float32{1, 2.5, -0.1}
	scratch := make([]byte, 4*len(gradient))
	packet := BF16.Pack(scratch, gradient) // what travels

	sum := []float32{10, 10, 10}
	BF16.Add(sum, packet)
	fmt.Println(len(packet), sum)
	// Output: 6 [11 12.5 9.899902]
}
