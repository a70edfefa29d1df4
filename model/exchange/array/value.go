package array

import (
	"encoding/binary"
	"math"
)

// Value is an array in memory, to be written: row-major, of one of the types.
type Value struct {
	Name   string
	Shape  []int
	Floats []float32 // F32; nil for an array of
	Ints   []int64   // I64
}

// Type is that of the elements.
func (v Value) Type() Type {
	if v.Floats != nil {
		return F32
	}
	return I64
}

// Len is the number of elements.
func (v Value) Len() int { return max(len(v.Floats), len(v.Ints)) }

// Bytes are the elements, little-endian.
func (v Value) Bytes() []byte {
	b := make([]byte, 0, int64(v.Len())*v.Type().Size())
	for _, x := range v.Floats {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	for _, x := range v.Ints {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}
	return b
}
