// Package codec turns float32 vectors into bytes on the wire and adds what
// arrives into a vector, without an intermediate copy where the format
// allows it.
//
// Two formats: fp32 is the vector's own little-endian bytes; bf16 keeps the
// upper half of each float32, rounded to nearest even (8 significant bits, the
// exponent range of float32), and halves the bytes. Sums are always
// accumulated in float32: only what travels is rounded.
//
// Cost per element, and what limits it: fp32 packs for free (the slice itself
// is sent), adding reads 8 and writes 4 bytes; bf16 packing reads 4 and writes
// 2, adding reads 6 and writes 4. On amd64 with AVX2 the kernels run in
// assembly at memory speed; elsewhere in Go, with the same bits. Whatever else
// keeps bf16 rounds by BF16Bits too.
package codec

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// Wire is the format of a float32 vector on the network.
type Wire string

// The formats.
const (
	FP32 Wire = "fp32" // 4 bytes an element, exact
	BF16 Wire = "bf16" // 2 bytes an element, rounded to nearest even
)

// Validate says whether w is a known format.
func (w Wire) Validate() error {
	switch w {
	case FP32, BF16:
		return nil
	}
	return fmt.Errorf("wire format %q is unknown (fp32 or bf16)", string(w))
}

// Size is the number of bytes of one element; it panics for an unknown format.
func (w Wire) Size() int {
	switch w {
	case FP32:
		return 4
	case BF16:
		return 2
	}
	panic("codec: " + w.Validate().Error())
}

// Pack returns src in format w: src's own memory for FP32 on a little-endian
// machine, else scratch[:len(src)*w.Size()], which must be large enough.
// Neither src nor scratch may change while the result is in use.
func (w Wire) Pack(scratch []byte, src []float32) []byte {
	if w == FP32 {
		return packFP32(scratch, src)
	}
	dst := scratch[:2*len(src)]
	PackBF16(dst, src)
	return dst
}

// Unpack overwrites dst with the elements in src; len(src) must be
// len(dst)·w.Size().
func (w Wire) Unpack(dst []float32, src []byte) {
	if w == FP32 {
		copyFP32(dst, src)
		return
	}
	UnpackBF16(dst, src)
}

// Add adds the elements in src to dst; len(src) must be len(dst)·w.Size().
func (w Wire) Add(dst []float32, src []byte) {
	if w == FP32 {
		AddFP32(dst, src)
		return
	}
	AddBF16(dst, src)
}

// Round replaces each element by what the receiver of Pack would unpack.
func (w Wire) Round(x []float32) {
	if w == FP32 {
		return
	}
	RoundBF16(x)
}

// mustFit panics unless n bytes hold elements of the given size.
func mustFit(elements, size, n int) {
	if elements*size != n {
		panic(fmt.Sprintf("codec: %d elements of %d bytes do not fill %d bytes", elements, size, n))
	}
}

// littleEndian says whether a float32 in memory already is its wire form.
func littleEndian() bool {
	probe := [2]byte{1, 0}
	return binary.NativeEndian.Uint16(probe[:]) == 1
}

// floats views b as float32 where the machine allows it: little-endian and
// aligned. It returns nil otherwise, and for an empty slice.
func floats(b []byte) []float32 {
	if len(b) < 4 || !littleEndian() || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%4 != 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

// InPlace says whether a float32 vector in this machine's memory is its own wire form
// (FP32): then it can be read by others as it lies.
func InPlace() bool { return littleEndian() }

// Bytes views x as its wire form in FP32; only where InPlace.
func Bytes(x []float32) []byte { return bytesOf(x) }

// bytesOf views x as its little-endian bytes, or nil on a big-endian machine.
func bytesOf(x []float32) []byte {
	if len(x) == 0 || !littleEndian() {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

func loadFP32(b []byte) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(b))
}
