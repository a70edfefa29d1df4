//go:build turbojpeg

package turbojpeg

// #cgo CFLAGS: -O2
// #cgo LDFLAGS: -ljpeg
// #cgo noescape mochi_jpeg_decode
// #cgo nocallback mochi_jpeg_decode
// #include "decode.h"
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"
)

// Version of libjpeg-turbo, that of the headers it was built with.
func Version() string { return C.GoString(C.mochi_jpeg_version()) }

// Region is a part of an image, pixels.
type Region struct{ Top, Left, Height, Width int }

// Decode decodes a JPEG image of w×h pixels (as Size says) into pix
// [h, w, 3], RGB. Pixels outside region are unspecified. An error means that
// the file is damaged, of whatever region, or of a kind that is not supported.
// unended: no end mark follows the last scan, of which every pixel is there; whether
// it was the last one, Frame.Complete says. Neither slice is kept.
func Decode(content []byte, w, h int, region Region, pix []uint8) (unended bool, err error) {
	if len(content) == 0 || w < 1 || h < 1 || len(pix) != w*h*3 {
		panic(fmt.Sprintf("turbojpeg: %d bytes for an image of %d×%d in %d bytes", len(pix), w, h, len(content)))
	}
	r := region
	if r.Top < 0 || r.Left < 0 || r.Height < 1 || r.Width < 1 || r.Top+r.Height > h || r.Left+r.Width > w {
		panic(fmt.Sprintf("turbojpeg: region %+v leaves an image of %d×%d", r, w, h))
	}
	var message [C.message_len]byte
	part := C.struct_region{top: C.int(r.Top), left: C.int(r.Left), height: C.int(r.Height), width: C.int(r.Width)}
	ok := C.mochi_jpeg_decode((*C.uint8_t)(unsafe.SliceData(content)), C.size_t(len(content)), C.int(w), C.int(h), part,
		(*C.uint8_t)(unsafe.SliceData(pix)), (*C.char)(unsafe.Pointer(&message)))
	if ok < 0 {
		return false, errors.New(string(message[:bytes.IndexByte(message[:], 0)]))
	}
	return ok > 0, nil
}
