package codec

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// lanes is how many elements one iteration of the assembly handles.
const lanes = 16

// The fast kernels return how many leading elements they handled, a multiple
// of lanes; Go does the rest. Unaligned memory is fine.

func addFP32Fast(dst []float32, src []byte) int {
	n := fast(len(dst))
	if n > 0 {
		addFP32AVX2(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	return n
}

func addBF16Fast(dst []float32, src []byte) int {
	n := fast(len(dst))
	if n > 0 {
		addBF16AVX2(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	return n
}

func unpackBF16Fast(dst []float32, src []byte) int {
	n := fast(len(dst))
	if n > 0 {
		unpackBF16AVX2(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	return n
}

func packBF16Fast(dst []byte, src []float32) int {
	n := fast(len(src))
	if n > 0 {
		packBF16AVX2(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	return n
}

func roundBF16Fast(x []float32) int {
	n := fast(len(x))
	if n > 0 {
		roundBF16AVX2(unsafe.SliceData(x), n)
	}
	return n
}

func passFast(w Wire, packed []byte, x []float32) int {
	n := fast(len(x))
	switch {
	case n == 0:
	case w == BF16:
		passBF16AVX2(unsafe.SliceData(packed), unsafe.SliceData(x), n)
	default:
		passFP32AVX2(unsafe.SliceData(packed), unsafe.SliceData(x), n)
	}
	return n
}

func keepFast(w Wire, packed []byte, x []float32) int {
	n := fast(len(x))
	if n == 0 || w != BF16 {
		return 0
	}
	keepBF16AVX2(unsafe.SliceData(packed), unsafe.SliceData(x), n)
	return n
}

// storeFast needs dst at a multiple of 32 bytes.
func storeFast(w Wire, dst []float32, src []byte) int {
	n := fast(len(dst))
	switch {
	case n == 0:
	case w == BF16:
		storeBF16AVX2(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	default:
		storeFP32AVX2(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	return n
}

func fast(n int) int {
	if !cpu.X86.HasAVX2 {
		return 0
	}
	return n &^ (lanes - 1)
}

//go:noescape
func addFP32AVX2(dst *float32, src *byte, n int)

//go:noescape
func addBF16AVX2(dst *float32, src *byte, n int)

//go:noescape
func unpackBF16AVX2(dst *float32, src *byte, n int)

//go:noescape
func packBF16AVX2(dst *byte, src *float32, n int)

//go:noescape
func roundBF16AVX2(x *float32, n int)

//go:noescape
func passFP32AVX2(packed *byte, x *float32, n int)

//go:noescape
func passBF16AVX2(packed *byte, x *float32, n int)

//go:noescape
func keepBF16AVX2(packed *byte, x *float32, n int)

//go:noescape
func storeFP32AVX2(dst *float32, src *byte, n int)

//go:noescape
func storeBF16AVX2(dst *float32, src *byte, n int)
