// Package array is how other programs' files hold numbers: arrays of some type
// and shape, whose elements are read when they are asked for. A file may show
// one piece of storage through many arrays, with any strides, so an array that
// nobody asks for costs nothing, however large it says it is.
package array

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// Type is the type of an element, by its name in safetensors.
type Type string

// The types that files of networks have.
const (
	F64  Type = "F64"
	F32  Type = "F32"
	F16  Type = "F16"
	BF16 Type = "BF16"
	I64  Type = "I64"
	I32  Type = "I32"
	I16  Type = "I16"
	I8   Type = "I8"
	U8   Type = "U8"
	Bool Type = "BOOL"
)

// Size is the length of an element in bytes, 0 for a type that is not known.
func (t Type) Size() int64 {
	switch t {
	case F64, I64:
		return 8
	case F32, I32:
		return 4
	case F16, BF16, I16:
		return 2
	case I8, U8, Bool:
		return 1
	}
	return 0
}

// Storage is a piece of a file: the bytes from Base to Base+Bytes, little-endian.
type Storage struct {
	File        io.ReaderAt
	Base, Bytes int64
}

// Array is an array in a file. The element with index i₀, i₁, … is number
// Offset + Σ i·Stride of its storage.
type Array struct {
	Type    Type
	Shape   []int
	Stride  []int // of elements
	Offset  int64 // of elements
	Storage Storage
}

// Dense are the strides of a row-major array.
func Dense(shape []int) []int {
	stride := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		stride[i] = n
		n *= max(1, shape[i])
	}
	return stride
}

// Len is the number of elements. Check bounds it.
func (a *Array) Len() int {
	n := 1
	for _, d := range a.Shape {
		n *= d
	}
	return n
}

// Check says whether all elements lie in the storage. Whatever the shape says,
// no number overflows.
func (a *Array) Check() error {
	size := a.Type.Size()
	if size == 0 {
		return fmt.Errorf("its elements are of type %q", a.Type)
	}
	if len(a.Shape) != len(a.Stride) || len(a.Shape) > 16 {
		return fmt.Errorf("shape %v with strides %v", a.Shape, a.Stride)
	}
	have := a.Storage.Bytes / size
	elements, last := int64(1), a.Offset
	for i, d := range a.Shape {
		if d < 0 || d > math.MaxInt32 || a.Stride[i] < 0 || a.Stride[i] > math.MaxInt32 {
			return fmt.Errorf("shape %v with strides %v", a.Shape, a.Stride)
		}
		if elements *= int64(d); elements > math.MaxInt32 {
			return fmt.Errorf("shape %v has too many elements", a.Shape)
		}
		last += int64(max(0, d-1)) * int64(a.Stride[i]) // below 2⁶² each
		if last > have {
			break
		}
	}
	if elements > 0 && (a.Offset < 0 || last < 0 || last >= have) {
		return fmt.Errorf("shape %v with strides %v from element %d is more than its storage of %d elements", a.Shape, a.Stride, a.Offset, have)
	}
	return nil
}

// Float32s reads all elements in row-major order.
func (a *Array) Float32s() ([]float32, error) {
	dst := make([]float32, 0, max(0, a.Len()))
	err := a.each(func(b []byte) { dst = append(dst, a.Type.float32(b)) })
	return dst, err
}

// Int64s reads all elements of a type of whole numbers, in row-major order.
func (a *Array) Int64s() ([]int64, error) {
	switch a.Type {
	case I64, I32, I16, I8, U8:
	default:
		return nil, fmt.Errorf("it holds %s, not whole numbers", a.Type)
	}
	dst := make([]int64, 0, max(0, a.Len()))
	err := a.each(func(b []byte) { dst = append(dst, a.Type.int64(b)) })
	return dst, err
}

// each calls f with the bytes of each element.
func (a *Array) each(f func(b []byte)) error {
	if err := a.Check(); err != nil {
		return err
	}
	n := a.Len()
	if n == 0 {
		return nil
	}
	// What the array spans, which Check bounds by the storage, is read as one.
	size := int(a.Type.Size())
	last := 0
	for i, d := range a.Shape {
		last += (d - 1) * a.Stride[i]
	}
	span := make([]byte, (last+1)*size)
	if read, err := a.Storage.File.ReadAt(span, a.Storage.Base+a.Offset*int64(size)); read < len(span) {
		return fmt.Errorf("read an array: %w", err)
	}
	index := make([]int, len(a.Shape))
	at := 0
	for {
		f(span[at*size : (at+1)*size])
		i := len(index) - 1
		for ; i >= 0; i-- {
			at += a.Stride[i]
			if index[i]++; index[i] < a.Shape[i] {
				break
			}
			at -= index[i] * a.Stride[i]
			index[i] = 0
		}
		if i < 0 {
			return nil
		}
	}
}

func (t Type) float32(b []byte) float32 {
	switch t {
	case F32:
		return math.Float32frombits(binary.LittleEndian.Uint32(b))
	case F64:
		return float32(math.Float64frombits(binary.LittleEndian.Uint64(b)))
	case BF16:
		return math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
	case F16:
		return half(binary.LittleEndian.Uint16(b))
	}
	return float32(t.int64(b))
}

func (t Type) int64(b []byte) int64 {
	switch t {
	case I64:
		return int64(binary.LittleEndian.Uint64(b))
	case I32:
		return int64(int32(binary.LittleEndian.Uint32(b)))
	case I16:
		return int64(int16(binary.LittleEndian.Uint16(b)))
	case I8:
		return int64(int8(b[0]))
	}
	return int64(b[0])
}

// half is a number of IEEE 754's binary16.
func half(h uint16) float32 {
	sign, exponent, fraction := uint32(h>>15)<<31, uint32(h>>10)&31, uint32(h)&1023
	switch exponent {
	case 0: // fraction · 2⁻²⁴
		v := float32(fraction) / (1 << 24)
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 31:
		return math.Float32frombits(sign | 255<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}
