package codec

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// foldBy are the factors that move 128 bits of a message over what lies between them and
// the ones they are added to, the next 256 bytes: x^(8·256+64−1) for the first 64 bits
// and x^(8·256−1) for the others. (The −1: a product of two numbers whose bits are in
// reverse comes out one place off.) Gopal et al., "Fast CRC Computation for Generic
// Polynomials Using PCLMULQDQ Instruction", 2009, with 16 of them at once.
var foldBy = [2]uint64{
	uint64(power(8*folded+63)) << 32,
	uint64(power(8*folded-1)) << 32,
}

func bestFold() fold {
	switch {
	case cpu.X86.HasAVX512F && cpu.X86.HasAVX512VPCLMULQDQ:
		return foldAVX512
	case cpu.X86.HasAVX2 && multipliesWide():
		return foldAVX2
	}
	return noFold
}

// multipliesWide says whether there is VPCLMULQDQ, which golang.org/x/sys/cpu knows beside
// AVX-512 only.
func multipliesWide() bool {
	if leaves, _ := cpuid(0, 0); leaves < 7 {
		return false
	}
	_, ecx := cpuid(7, 0)
	return ecx&(1<<10) != 0
}

// foldFast continues a CRC over the beginning of p, a multiple of folded bytes and at
// least twice as many, and copies it to dst if there is one. It returns how many bytes.
func foldFast(by fold, crc uint32, dst, p []byte) (uint32, int) {
	n := len(p) &^ (folded - 1)
	var state [folded]byte // begins as the first bytes, with the CRC before them
	copy(state[:], p)
	copy(dst, state[:])
	le := binary.LittleEndian
	le.PutUint32(state[:], le.Uint32(state[:])^^crc)
	rest, to := unsafe.SliceData(p[folded:]), (*byte)(nil)
	if dst != nil {
		to = unsafe.SliceData(dst[folded:])
	}
	switch {
	case by == foldAVX512 && to != nil:
		crc = foldCopyWith512(&state, &foldBy, to, rest, n-folded)
	case by == foldAVX512:
		crc = foldWith512(&state, &foldBy, rest, n-folded)
	case to != nil:
		crc = foldCopyWith256(&state, &foldBy, to, rest, n-folded)
	default:
		crc = foldWith256(&state, &foldBy, rest, n-folded)
	}
	return ^crc, n
}

//go:noescape
func foldWith256(state *[folded]byte, by *[2]uint64, p *byte, n int) uint32

//go:noescape
func foldCopyWith256(state *[folded]byte, by *[2]uint64, dst, p *byte, n int) uint32

//go:noescape
func foldWith512(state *[folded]byte, by *[2]uint64, p *byte, n int) uint32

//go:noescape
func foldCopyWith512(state *[folded]byte, by *[2]uint64, dst, p *byte, n int) uint32

// cpuid is the instruction: what it leaves in EAX and ECX.
func cpuid(leaf, subleaf uint32) (eax, ecx uint32)
