package codec

import (
	"encoding/binary"
	"math"
)

// PackBF16 writes each element of src as bf16, little-endian, rounded to
// nearest even; values beyond the largest bf16 become infinite and a NaN stays
// a NaN (made quiet). len(dst) must be 2·len(src).
func PackBF16(dst []byte, src []float32) {
	mustFit(len(src), 2, len(dst))
	done := packBF16Fast(dst, src)
	for i := done; i < len(src); i++ {
		binary.LittleEndian.PutUint16(dst[2*i:], BF16Bits(src[i]))
	}
}

// UnpackBF16 overwrites dst with the bf16 elements in src, exactly. len(src)
// must be 2·len(dst).
func UnpackBF16(dst []float32, src []byte) {
	mustFit(len(dst), 2, len(src))
	done := unpackBF16Fast(dst, src)
	for i := done; i < len(dst); i++ {
		dst[i] = loadBF16(src[2*i:])
	}
}

// AddBF16 adds the bf16 elements in src to dst in float32. len(src) must be
// 2·len(dst).
func AddBF16(dst []float32, src []byte) {
	mustFit(len(dst), 2, len(src))
	done := addBF16Fast(dst, src)
	for i := done; i < len(dst); i++ {
		dst[i] += loadBF16(src[2*i:])
	}
}

// RoundBF16 rounds each element to bf16 in place: what UnpackBF16 of PackBF16
// gives.
func RoundBF16(x []float32) {
	done := roundBF16Fast(x)
	for i := done; i < len(x); i++ {
		x[i] = FromBF16Bits(BF16Bits(x[i]))
	}
}

// BF16Bits is the bf16 nearest to v, as the upper half of a float32; see
// PackBF16.
func BF16Bits(v float32) uint16 {
	b := math.Float32bits(v)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40 // quiet, or a payload in the lower half would round to infinity
	}
	return uint16((b + 0x7fff + (b>>16)&1) >> 16)
}

// FromBF16Bits is the value of a bf16, exactly.
func FromBF16Bits(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

func loadBF16(b []byte) float32 { return FromBF16Bits(binary.LittleEndian.Uint16(b)) }
