package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
)

// tensors are arrays with names, in the order in which they were added.
type tensors struct {
	names  []string
	dtypes []string
	shapes [][]int
	data   [][]byte
}

// element is what a tensor is made of.
type element interface {
	~float32 | ~float64 | ~int32 | ~int64 | ~uint8
}

// add adds values, which have the shape's number of elements.
func add[T element](t *tensors, name string, values []T, shape ...int) {
	n := 1
	for _, s := range shape {
		n *= s
	}
	if n != len(values) {
		panic(fmt.Sprintf("%s: %d values for the shape %v", name, len(values), shape))
	}
	data, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		panic(err) // every element has a fixed size
	}
	var zero T
	dtype := map[string]string{"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64", "uint8": "U8"}[fmt.Sprintf("%T", zero)]
	t.names, t.dtypes = append(t.names, name), append(t.dtypes, dtype)
	t.shapes, t.data = append(t.shapes, shape), append(t.data, data)
}

// write writes a safetensors file: the header's length, the header, the data.
func (t *tensors) write(path string) error {
	type entry struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	header, at := map[string]entry{}, 0
	for i, name := range t.names {
		header[name] = entry{t.dtypes[i], t.shapes[i], [2]int{at, at + len(t.data[i])}}
		at += len(t.data[i])
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := binary.Write(f, binary.LittleEndian, uint64(len(text))); err != nil {
		return err
	}
	for _, piece := range append([][]byte{text}, t.data...) {
		if _, err := f.Write(piece); err != nil {
			return err
		}
	}
	return f.Close()
}

// readFloats reads a file of float32, little-endian.
func readFloats(path string) ([]float32, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	values := make([]float32, len(data)/4)
	_, err = binary.Decode(data, binary.LittleEndian, values)
	return values, err
}
