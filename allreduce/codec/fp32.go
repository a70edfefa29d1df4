package codec

import (
	"encoding/binary"
	"math"
)

func packFP32(scratch []byte, src []float32) []byte {
	if b := bytesOf(src); b != nil {
		return b
	}
	dst := scratch[:4*len(src)]
	for i, v := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
	return dst
}

func copyFP32(dst []float32, src []byte) {
	mustFit(len(dst), 4, len(src))
	if b := bytesOf(dst); b != nil {
		copy(b, src)
		return
	}
	for i := range dst {
		dst[i] = loadFP32(src[4*i:])
	}
}

// AddFP32 adds little-endian float32 elements: dst[i] += src[i].
func AddFP32(dst []float32, src []byte) {
	mustFit(len(dst), 4, len(src))
	done := addFP32Fast(dst, src)
	dst, src = dst[done:], src[4*done:]
	if in := floats(src); in != nil {
		addFloats(dst, in)
		return
	}
	for i := range dst {
		dst[i] += loadFP32(src[4*i:])
	}
}

// addFloats is unrolled: the compiler neither vectorises nor unrolls.
func addFloats(dst, src []float32) {
	for len(dst) >= 8 && len(src) >= 8 {
		d, s := (*[8]float32)(dst), (*[8]float32)(src)
		d[0] += s[0]
		d[1] += s[1]
		d[2] += s[2]
		d[3] += s[3]
		d[4] += s[4]
		d[5] += s[5]
		d[6] += s[6]
		d[7] += s[7]
		dst, src = dst[8:], src[8:]
	}
	for i := range dst {
		dst[i] += src[i]
	}
}

// MaxFP32 keeps the larger of dst[i] and the little-endian float32 src[i]. A
// NaN on either side wins, as one fixed bit pattern, so that the result does
// not depend on the order in which many vectors are combined.
func MaxFP32(dst []float32, src []byte) {
	mustFit(len(dst), 4, len(src))
	for i := range dst {
		m := max(dst[i], loadFP32(src[4*i:]))
		if m != m {
			m = math.Float32frombits(canonicalNaN)
		}
		dst[i] = m
	}
}

const canonicalNaN = 0x7fc00000
