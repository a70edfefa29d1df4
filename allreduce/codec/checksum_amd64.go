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

func hasFold() bool { return cpu.X86.HasAVX512F && cpu.X86.HasAVX512VPCLMULQDQ }

// foldFast continues a CRC over the beginning of p, a multiple of folded bytes and at
// least twice as many, and copies it to dst if there is one. It returns how many bytes.
func foldFast(crc uint32, dst, p []byte) (uint32, int) {
	n := len(p) &^ (folded - 1)
	var state [folded]byte // begins as the first bytes, with the CRC before them
	copy(state[:], p)
	copy(dst, state[:])
	le := binary.LittleEndian
	le.PutUint32(state[:], le.Uint32(state[:])^^crc)
	if dst != nil {
		return ^foldCopyAVX512(&state, &foldBy, unsafe.SliceData(dst[folded:]), unsafe.SliceData(p[folded:]), n-folded), n
	}
	return ^foldAVX512(&state, &foldBy, unsafe.SliceData(p[folded:]), n-folded), n
}

//go:noescape
func foldAVX512(state *[folded]byte, by *[2]uint64, p *byte, n int) uint32

//go:noescape
func foldCopyAVX512(state *[folded]byte, by *[2]uint64, dst, p *byte, n int) uint32
