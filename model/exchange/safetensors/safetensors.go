// Package safetensors reads and writes the files of huggingface/safetensors:
// eight bytes of length, a header in JSON, the tensors' data.
package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"mochi/model/exchange/array"
)

// maxHeader bounds the header; that of a ResNet has some 30 KB. The reference
// reader takes up to 100 MB.
const maxHeader = 8 << 20

// File is the header of a file.
type File struct {
	Metadata map[string]string
	Arrays   map[string]*array.Array
}

// Write writes tensors in their order, the widest type first, so that each is
// aligned. Equal input gives equal bytes.
func Write(w io.Writer, metadata map[string]string, list []array.Value) error {
	meta, err := json.Marshal(metadata) // in the order of its keys
	if err != nil {
		return err
	}
	var header bytes.Buffer
	fmt.Fprintf(&header, `{"__metadata__":%s`, meta)
	var order []array.Value
	for _, t := range []array.Type{array.I64, array.F32} {
		for _, v := range list {
			if v.Type() == t {
				order = append(order, v)
			}
		}
	}
	at := int64(0)
	for _, v := range order {
		name, err := json.Marshal(v.Name)
		if err != nil {
			return err
		}
		end := at + int64(v.Len())*v.Type().Size()
		shape := strings.ReplaceAll(fmt.Sprint(v.Shape), " ", ",")
		fmt.Fprintf(&header, `,%s:{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}`, name, v.Type(), shape, at, end)
		at = end
	}
	header.WriteByte('}')
	for header.Len()%8 != 0 {
		header.WriteByte(' ')
	}
	if err := binary.Write(w, binary.LittleEndian, uint64(header.Len())); err != nil {
		return err
	}
	if _, err := w.Write(header.Bytes()); err != nil {
		return err
	}
	for _, v := range order {
		if _, err := w.Write(v.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// Is says whether a file begins as one of safetensors does.
func Is(start []byte) bool {
	if len(start) < 10 {
		return false
	}
	n := binary.LittleEndian.Uint64(start)
	return n >= 2 && n < 1<<32 && start[8] == '{'
}

// Open reads the header of a file of size bytes. The arrays' data lie in it.
func Open(r io.ReaderAt, size int64) (*File, error) {
	var prefix [8]byte
	if n, err := r.ReadAt(prefix[:], 0); n < len(prefix) {
		return nil, cut(err)
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	switch {
	case n > math.MaxInt64-8 || int64(n) > size-8:
		return nil, fmt.Errorf("it is cut short: its header should take %d bytes, the file has %d", n, size)
	case n > maxHeader:
		return nil, fmt.Errorf("its header takes %d bytes, more than that of any encoder", n)
	}
	text := make([]byte, n)
	if got, err := r.ReadAt(text, 8); got < len(text) {
		return nil, cut(err)
	}
	var items map[string]json.RawMessage
	if err := json.Unmarshal(text, &items); err != nil {
		return nil, fmt.Errorf("its header is not JSON: %w", err)
	}
	f := &File{Arrays: map[string]*array.Array{}}
	base := int64(n) + 8
	for name, item := range items {
		if name == "__metadata__" {
			if json.Unmarshal(item, &f.Metadata) != nil {
				return nil, errors.New("its metadata are not strings")
			}
			continue
		}
		a, err := entry(item, size-base)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		a.Storage.File = r
		a.Storage.Base += base
		f.Arrays[name] = a
	}
	return f, nil
}

// entry is one tensor of the header; its storage counts from the data's start.
func entry(item json.RawMessage, data int64) (*array.Array, error) {
	var t struct {
		DType   array.Type `json:"dtype"`
		Shape   []int      `json:"shape"`
		Offsets []int64    `json:"data_offsets"`
	}
	if err := json.Unmarshal(item, &t); err != nil || len(t.Offsets) != 2 {
		return nil, errors.New("its description is malformed")
	}
	begin, end := t.Offsets[0], t.Offsets[1]
	if begin < 0 || end < begin {
		return nil, fmt.Errorf("offsets %v", t.Offsets)
	}
	if end > data {
		return nil, fmt.Errorf("it ends at byte %d of the data, and the file has %d: it is cut short", end, data)
	}
	a := &array.Array{Type: t.DType, Shape: t.Shape, Stride: array.Dense(t.Shape), Storage: array.Storage{Base: begin, Bytes: end - begin}}
	if t.DType.Size() == 0 {
		return a, nil // of a type that no network here has: nobody will ask for it
	}
	if err := a.Check(); err != nil {
		return nil, err
	}
	if want := int64(a.Len()) * t.DType.Size(); want != end-begin {
		return nil, fmt.Errorf("%s %v are %d bytes, not %d", t.DType, t.Shape, want, end-begin)
	}
	return a, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || err == nil {
		return errors.New("it is cut short: there is no header")
	}
	return err
}
