package codec

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// TestChecksumAgainstTheLibrary: the same as hash/crc32, for any length, alignment and
// beginning.
func TestChecksumAgainstTheLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	lengths := []int{0, 1, 48, 255, 256, 257, 1023, 1024, 1025, 1279, 1280, 4096, 65_000}
	for range 50 {
		lengths = append(lengths, rng.IntN(9000))
	}
	for i, n := range lengths {
		buffer := make([]byte, n+64)
		for j := range buffer {
			buffer[j] = byte(rng.Uint32())
		}
		p, crc := buffer[i%64:][:n], rng.Uint32()*uint32(i%2)
		withEveryFold(func() { checkSums(t, crc, p) })
	}
}

// withEveryFold runs check with each kernel that this processor has, and with none.
func withEveryFold(check func()) {
	defer func(best fold) { folds = best }(folds)
	for folds = bestFold(); folds > noFold; folds-- {
		check()
	}
	check()
}

func checkSums(t *testing.T, crc uint32, p []byte) {
	t.Helper()
	want := crc32.Update(crc, crc32.MakeTable(crc32.Castagnoli), p)
	if got := Checksum(crc, p); got != want {
		t.Fatalf("%d bytes from %08x: %08x, want %08x", len(p), crc, got, want)
	}
	room := make([]byte, len(p)+3)
	dst := room[1 : len(p)+1]
	if got := CopyChecksum(crc, dst, p); got != want || !bytes.Equal(dst, p) || room[0] != 0 || room[len(p)+1] != 0 {
		t.Fatalf("%d bytes from %08x, copied: %08x, want %08x", len(p), crc, got, want)
	}
}

func FuzzChecksum(f *testing.F) {
	f.Add(uint32(0), []byte("x"), uint16(3000))
	f.Fuzz(func(t *testing.T, crc uint32, pattern []byte, n uint16) {
		p := make([]byte, n)
		for i := range p {
			if len(pattern) > 0 {
				p[i] = pattern[i%len(pattern)]
			}
		}
		withEveryFold(func() { checkSums(t, crc, p) })
	})
}

func BenchmarkChecksum(b *testing.B) {
	const n = 65_000
	p, q := make([]byte, n), make([]byte, n)
	table := crc32.MakeTable(crc32.Castagnoli)
	for name, run := range map[string]func(){
		"library":          func() { crc32.Update(0, table, p) },
		"Checksum":         func() { Checksum(0, p) },
		"CopyChecksum":     func() { CopyChecksum(0, q, p) },
		"library and copy": func() { crc32.Update(0, table, p); copy(q, p) },
	} {
		b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
			b.SetBytes(n)
			for b.Loop() {
				run()
			}
		})
	}
}
