//go:build libdeflate

package libdeflate

// #cgo CFLAGS: -O2
// #cgo LDFLAGS: -ldeflate
// #cgo noescape mochi_unpack
// #cgo nocallback mochi_unpack
// #cgo noescape mochi_unfilter
// #cgo nocallback mochi_unfilter
// #include "unpack.h"
import "C"

import (
	"encoding/binary"
	"unsafe"
)

// slack is how many bytes behind the rows are read with the last pixel.
const slack = 8

// Room is how many bytes Rows needs for h rows of stride bytes.
func Room(stride, h int) int { return stride + h*(1+stride) + slack }

// Rows unpacks a zlib stream of h rows of stride bytes, each with PNG's filter before
// it, into room, of Room bytes, and undoes the filters; pixel is how many bytes one
// has. Row y lies at stride + y·(1+stride) + 1. It is false where the stream is not
// in order or does not hold exactly as much. (The checksum at its end does not count.)
func Rows(packed []byte, stride, h, pixel int, room []byte) bool {
	if len(room) != Room(stride, h) || stride < 1 || h < 1 || pixel < 1 || stride%pixel != 0 {
		panic("libdeflate: rows and room do not fit")
	}
	const head = 2
	if len(packed) <= head || packed[0]&15 != 8 || packed[0]>>4 > 7 || packed[1]&0x20 != 0 || binary.BigEndian.Uint16(packed)%31 != 0 {
		return false
	}
	clear(room[:stride])
	clear(room[len(room)-slack:])
	in, out := packed[head:], room[stride:]
	at := func(b []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.SliceData(b)) }
	return C.mochi_unpack(at(in), C.size_t(len(in)), at(out), C.size_t(len(out)-slack)) == 0 &&
		C.mochi_unfilter(at(room), C.size_t(stride), C.size_t(h), C.size_t(pixel)) == 0
}
