package codec

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/cpu"
)

// TestOnePassAgainstSeveral: Pass is Add and Pack, Keep is Add, Round and Pack, Store is
// Unpack, to the bit and whatever the values, lengths and alignments; nothing beside is
// written.
func TestOnePassAgainstSeveral(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	lengths := []int{0, 1, 15, 16, 17, 31, 33, 500, 4099}
	defer func(has bool) { cpu.X86.HasAVX2 = has }(cpu.X86.HasAVX2)
	for i := range 400 {
		if i == 300 {
			cpu.X86.HasAVX2 = false // in Go alone
		}
		n := lengths[i%len(lengths)]
		for _, wire := range []Wire{FP32, BF16} {
			checkOnePass(t, wire, awkwardVector(n+i%9, rng)[i%9:], awkwardVector(n, rng), i%5)
		}
	}
}

func FuzzOnePass(f *testing.F) {
	f.Add(uint64(1), uint16(40), uint8(3))
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, shift uint8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		for _, wire := range []Wire{FP32, BF16} {
			checkOnePass(t, wire, awkwardVector(int(n), rng), awkwardVector(int(n), rng), int(shift%8))
		}
	})
}

// checkOnePass adds came, moved by so many bytes, to x.
func checkOnePass(t *testing.T, wire Wire, x, came []float32, shift int) {
	t.Helper()
	size := wire.Size() * len(x)
	pack := func(v []float32) []byte { return slices.Clone(wire.Pack(make([]byte, size), v)) }
	place := func(packed []byte) (whole, part []byte) {
		whole = bytes.Repeat([]byte{0xaa}, shift+size+7)
		part = whole[shift : shift+size]
		copy(part, packed)
		return whole, part
	}
	untouched := func(whole []byte) bool {
		return bytes.Equal(whole[:shift], bytes.Repeat([]byte{0xaa}, shift)) && bytes.Equal(whole[shift+size:], bytes.Repeat([]byte{0xaa}, 7))
	}
	same := func(a, b []float32) bool {
		return slices.EqualFunc(a, b, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) })
	}
	packed := pack(came)
	sum := slices.Clone(x)
	_, there := place(packed)
	wire.Add(sum, there)
	rounded := slices.Clone(sum)
	wire.Round(rounded)

	before := slices.Clone(x)
	whole, part := place(packed)
	wire.Pass(part, x)
	if !bytes.Equal(part, pack(sum)) || !same(x, before) || !untouched(whole) {
		t.Fatalf("%s, %d elements, moved by %d: Pass gives % x, want % x", wire, len(x), shift, part, pack(sum))
	}
	whole, part = place(packed)
	kept := slices.Clone(x)
	wire.Keep(kept, part)
	if !bytes.Equal(part, pack(sum)) || !same(kept, rounded) || !untouched(whole) {
		t.Fatalf("%s, %d elements, moved by %d: Keep gives %g and % x, want %g", wire, len(x), shift, kept, part, rounded)
	}
	want := make([]float32, len(x))
	wire.Unpack(want, packed)
	room := slices.Repeat([]float32{77}, len(x)+shift+1)
	wire.Store(room[shift:shift+len(x)], packed)
	if !same(room[shift:shift+len(x)], want) || room[len(room)-1] != 77 || shift > 0 && room[shift-1] != 77 {
		t.Fatalf("%s, %d elements, moved by %d: Store gives %g, want %g", wire, len(x), shift, room, want)
	}
}
