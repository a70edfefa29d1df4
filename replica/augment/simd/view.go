//go:build simd

// Package simd makes views in C, in builds with the tag of that name, which
// needs a C compiler and no library. One call resizes a view, jitters its
// colours, makes it grey, blurs, flips and normalises it, row by row while a row
// is in the first cache. It allocates nothing in C. It gives the bits of package
// augment, whose tests compare the two.
//
// The same C is compiled for AVX-512, AVX2 and the processor's common subset,
// with hand-written steps where that pays, and chosen when the program starts.
//
// Cost of a view at 224×224 from 500×375 on one core of an EPYC of 2024: see
// package augment.
package simd

// #cgo CFLAGS: -std=c11 -O3
// #cgo LDFLAGS: -lm
// #cgo noescape mochi_view
// #cgo nocallback mochi_view
// #cgo noescape mochi_view_scratch
// #cgo nocallback mochi_view_scratch
// #include "view.h"
import "C"

import (
	"fmt"
	"unsafe"
)

// TapGroup is the multiple to which Taps.Width is padded.
const TapGroup = C.tap_group

// Level is a set of instructions: 0 what every processor has, then AVX2, then
// AVX-512, then that with VNNI, then with VBMI too.
type Level int

// BestLevel is the highest that this processor has.
func BestLevel() Level { return Level(C.mochi_view_best_level()) }

// Taps are the filter weights of one axis, as package augment computes them;
// Weight is 0 from Count to Width, which is a multiple of TapGroup.
type Taps struct {
	Width                int
	First, Count, Weight []int32
}

// Spec says what is done to one view.
type Spec struct {
	Size             int // of the view, pixels
	CropW, CropH     int
	FromX            int  // first column of the crop, where it is not resized along x
	ResizeX, ResizeY bool // or taken as it is
	Jitter           bool
	Order            [4]uint8 // 0 brightness, 1 contrast, 2 saturation, 3 hue
	Factor           [3]float32
	HueShift         uint8 // added to an 8-bit hue
	Gray, Flip, Blur bool
	Radius           int // of the blur's box, with its weights of 24 fractional bits
	Inner, Outer     uint32
	Mean, Std        [3]float32
}

// View writes the view of a crop to dst [3, S, S]. The crop starts at src[0],
// its rows are stride bytes apart; norm is the value of each 8-bit colour by
// channel. scratch is reused and returned, grown where it is too small.
// vertical must always have First and Count, horizontal only with ResizeX.
func View(level Level, s *Spec, src []uint8, stride int, horizontal, vertical *Taps, norm *[3][256]float32, scratch []uint8, dst []float32) []uint8 {
	if len(dst) != 3*s.Size*s.Size || len(src) < (s.CropH-1)*stride+3*s.CropW {
		panic(fmt.Sprintf("simd: a view of %d pixels a side in %d values, from a crop of %d×%d in %d bytes", s.Size, len(dst), s.CropW, s.CropH, len(src)))
	}
	v := C.struct_view{
		size: C.int(s.Size), crop_w: C.int(s.CropW), crop_h: C.int(s.CropH), from_x: C.int(s.FromX),
		resize_x: truth(s.ResizeX), resize_y: truth(s.ResizeY), parts: 4 * truth(s.Jitter), hue: C.uint8_t(s.HueShift),
		gray: truth(s.Gray), flip: truth(s.Flip), blur: truth(s.Blur), radius: C.int(s.Radius), inner: C.uint32_t(s.Inner), outer: C.uint32_t(s.Outer),
	}
	for i, part := range s.Order {
		v.order[i] = C.uint8_t(part)
	}
	for c := range 3 {
		v.factor[c], v.mean[c], v.std[c] = C.float(s.Factor[c]), C.float(s.Mean[c]), C.float(s.Std[c])
	}
	last := s.Size - 1
	rows := int(vertical.First[last] + vertical.Count[last] - vertical.First[0])
	if n := int(C.mochi_view_scratch(&v, C.int(rows), C.int(horizontal.Width))); len(scratch) < n {
		scratch = make([]uint8, n)
	}
	C.mochi_view(C.int(level), &v, bytes(src), C.size_t(len(src)), C.size_t(stride),
		ints(horizontal.First), ints(horizontal.Count), ints(horizontal.Weight), C.int(horizontal.Width),
		ints(vertical.First), ints(vertical.Count), ints(vertical.Weight), C.int(vertical.Width),
		(*C.float)(&norm[0][0]), bytes(scratch), (*C.float)(unsafe.SliceData(dst)))
	return scratch
}

func truth(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

func ints(s []int32) *C.int32_t  { return (*C.int32_t)(unsafe.SliceData(s)) }
func bytes(s []uint8) *C.uint8_t { return (*C.uint8_t)(unsafe.SliceData(s)) }
