package codec

import "hash/crc32"

// castagnoli is a constant table; the hardware has an instruction for it.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum continues a CRC-32C, as crc32.Update does with the Castagnoli polynomial; it
// begins with 0. Where the processor multiplies without carries in 256 or 512 bits, it runs at
// memory speed.
func Checksum(crc uint32, p []byte) uint32 {
	if folds == noFold || len(p) < 4*folded {
		return crc32.Update(crc, castagnoli, p)
	}
	crc, done := foldFast(folds, crc, nil, p)
	return crc32.Update(crc, castagnoli, p[done:])
}

// CopyChecksum copies src to dst, of the same length, and continues a CRC-32C over it:
// the bytes are read once. dst and src do not overlap.
func CopyChecksum(crc uint32, dst, src []byte) uint32 {
	mustFit(len(dst), 1, len(src))
	if folds != noFold && len(src) >= 4*folded {
		sum, done := foldFast(folds, crc, dst, src)
		crc, dst, src = sum, dst[done:], src[done:]
	}
	for len(src) > 0 { // in pieces that stay in the nearest cache
		n := min(len(src), 8<<10)
		crc = crc32.Update(crc, castagnoli, src[:n])
		copy(dst[:n], src)
		dst, src = dst[n:], src[n:]
	}
	return crc
}

// folded is how many bytes the kernel takes at once.
const folded = 256

// fold is a kernel that folds.
type fold int

// The kernels; a processor that has one has those before it.
const (
	noFold fold = iota
	foldAVX2
	foldAVX512
)

// folds is the one in use.
var folds = bestFold()

// power is x^n modulo the polynomial, with the bits in the order of the CRC: that of
// x^31 is the lowest.
func power(n int) uint32 {
	r := uint32(1) << 31 // x^0
	for range n {
		carry := r & 1
		r >>= 1
		if carry != 0 {
			r ^= crc32.Castagnoli
		}
	}
	return r
}
