package torch

import (
	"archive/zip"
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"

	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
)

// Saver collects the tensors of a file that is to be written.
type Saver struct{ storages []array.Value }

// Tensor is the place of v in the file's value.
func (s *Saver) Tensor(v array.Value) *pickle.Object {
	class := "FloatStorage"
	if v.Type() == array.I64 {
		class = "LongStorage"
	}
	key := strconv.Itoa(len(s.storages))
	s.storages = append(s.storages, v)
	return &pickle.Object{Class: rebuild, Args: pickle.Tuple{
		pickle.Persistent{ID: pickle.Tuple{"storage", pickle.Global{Module: "torch", Name: class}, key, "cpu", v.Len()}},
		0, ints(v.Shape), ints(array.Dense(v.Shape)), false,
		&pickle.Dict{Ordered: true}, // backward hooks
	}}
}

// StateDict is an ordered dictionary of tensors.
func (s *Saver) StateDict(list []array.Value) *pickle.Dict {
	d := &pickle.Dict{Ordered: true}
	for _, v := range list {
		d.Set(v.Name, s.Tensor(v))
	}
	return d
}

func ints(list []int) pickle.Tuple {
	t := make(pickle.Tuple, len(list))
	for i, n := range list {
		t[i] = n
	}
	return t
}

// folder is the name of the one folder in a file.
const folder = "archive/"

// alignment is where the data of an entry may begin, so that it can be mapped
// into memory.
const alignment = 64

// Save writes a file of root, whose tensors are of s. Equal values give equal
// bytes.
func (s *Saver) Save(w io.Writer, root any) error {
	text, err := pickle.Encode(root, pickle.Protocol2)
	if err != nil {
		return err
	}
	out := &counter{w: w}
	z := zip.NewWriter(out)
	add := func(name string, data []byte) error {
		// The writer buffers: what it has taken is what will stand before this entry.
		if err := z.Flush(); err != nil {
			return err
		}
		h := &zip.FileHeader{
			Name: folder + name, Method: zip.Store, CRC32: crc32.ChecksumIEEE(data),
			CompressedSize64: uint64(len(data)), UncompressedSize64: uint64(len(data)),
		}
		h.Extra = padding(out.n + fixedHeader + int64(len(h.Name)))
		part, err := z.CreateRaw(h)
		if err != nil {
			return err
		}
		_, err = part.Write(data)
		return err
	}
	if err := add("data.pkl", text); err != nil {
		return err
	}
	if err := add("byteorder", []byte("little")); err != nil {
		return err
	}
	for i, v := range s.storages {
		if err := add(fmt.Sprintf("data/%d", i), v.Bytes()); err != nil {
			return err
		}
	}
	if err := add("version", []byte("3\n")); err != nil {
		return err
	}
	return z.Close()
}

// fixedHeader is the length of an entry's header without its name and extra
// fields.
const fixedHeader = 30

// padding is the extra field, called FB as PyTorch's, after which the data of an
// entry is aligned whose header ends at position at without it.
func padding(at int64) []byte {
	const head = 4
	n := (alignment - int(at+head)%alignment) % alignment
	return append([]byte{'F', 'B', byte(n), 0}, bytes.Repeat([]byte{'Z'}, n)...)
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
