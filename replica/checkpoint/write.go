package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"mochi/model/network"
)

// sampler is the metadata value of that name: where the data stands.
type sampler struct {
	Cursor int64 `json:"cursor"` // samples committed
}

// piece is a tensor with its elements: a []float32, []int32 or []int64.
type piece struct {
	entry
	data []byte
}

// Write writes the state to w. Equal states give equal bytes. If w has a Grow
// method (as a bytes.Buffer has) it is told the size first.
func Write(w io.Writer, s *State) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	where, err := json.Marshal(sampler{Cursor: s.Cursor})
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	pieces := s.pieces()
	tensors := make([]entry, len(pieces))
	for i, p := range pieces {
		tensors[i] = p.entry
	}
	metadata := map[string]string{
		formatKey:      pyTorch,
		versionKey:     Format,
		"arch":         s.Arch,
		"step":         strconv.FormatInt(s.Step, 10),
		"epoch":        strconv.Itoa(s.Epoch),
		"seed":         strconv.FormatUint(s.Seed, 10),
		"config":       s.Config,
		"sampler":      string(where),
		"queue_filled": strconv.FormatInt(s.QueueFilled, 10),
		"digest":       noDigest,
	}
	if s.Data != "" {
		metadata["data"] = s.Data
	}
	if s.Shards != "" {
		metadata["data_shards"] = s.Shards
	}
	h, err := encodeHeader(metadata, tensors)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	sum := h.hashed()
	for _, p := range pieces {
		sum.Write(p.data)
	}
	copy(h.raw[h.digestAt():], hex(sum.Sum64()))

	if g, ok := w.(interface{ Grow(int) }); ok {
		g.Grow(len(h.raw) + int(h.dataSize()))
	}
	if _, err := w.Write(h.raw); err != nil {
		return err
	}
	for _, p := range pieces {
		if _, err := w.Write(p.data); err != nil {
			return err
		}
	}
	return nil
}

// Bounds is what a checkpoint may take at most, bytes. The zero value is for a file
// of whom nothing is known.
type Bounds struct {
	Header int64 // what describes the tensors
	File   int64 // all of it
}

// SizeAtMost bounds the checkpoint of a network with a queue of k keys of d
// elements and a probe of so many classes (0: none): its tensors, and more than
// enough for what describes them.
func SizeAtMost(net *network.Network, k, d, classes int) Bounds {
	elements := 3*int64(net.NumParams()) + 2*int64(net.NumBuffers()) + int64(k)*int64(d+1) + 2*int64(classes)*int64(net.FeatureDim+1)
	header := 1<<20 + 512*int64(3*len(net.Params)+2*len(net.Buffers))
	return Bounds{Header: header, File: 4*elements + 8 + header}
}

// pieces is the data section in order. The widest type comes first, so that
// every tensor is aligned to its own element size.
func (s *State) pieces() []piece {
	var list []piece
	var at int64
	add := func(name, dtype string, shape []int, data []byte) {
		e := entry{name: name, dtype: dtype, shape: shape, begin: at, end: at + int64(len(data))}
		at = e.end
		list = append(list, piece{e, data})
	}
	vector := func(prefix string, tensors []network.Tensor, flat []float32) {
		for _, t := range tensors {
			add(prefix+t.Name, "F32", t.Shape, littleEndian(flat[t.Offset:t.Offset+t.Size]))
		}
	}
	add(ptrName, "I64", []int{1}, littleEndian([]int64{int64(s.QueuePtr)}))
	vector(queryPrefix, s.Net.Params, s.QueryParams)
	vector(queryPrefix, s.Net.Buffers, s.QueryBuffers)
	vector(keyPrefix, s.Net.Params, s.KeyParams)
	vector(keyPrefix, s.Net.Buffers, s.KeyBuffers)
	vector(momentumPrefix, s.Net.Params, s.Momentum)
	add(queueName, "F32", []int{s.Dim, s.K}, littleEndian(transpose(s.Queue, s.K, s.Dim)))
	add(labelsName, "I32", []int{s.K}, littleEndian(s.QueueLabels))
	s.Probe.pieces(add)
	return list
}

// transpose copies a row-major [rows, cols] matrix into [cols, rows], in tiles
// that stay in the cache.
func transpose(m []float32, rows, cols int) []float32 {
	const tile = 32
	t := make([]float32, len(m))
	for r0 := 0; r0 < rows; r0 += tile {
		for c0 := 0; c0 < cols; c0 += tile {
			for r := r0; r < min(r0+tile, rows); r++ {
				for c := c0; c < min(c0+tile, cols); c++ {
					t[c*rows+r] = m[r*cols+c]
				}
			}
		}
	}
	return t
}

// Save writes the state to path so that path always holds a whole checkpoint,
// the old one or the new one: whatever goes wrong, what was there before is
// untouched and no temporary file is left (but by a crash; SaveStep clears
// those away).
func Save(path string, s *State) error { return save(osFiles(), path, s.writeTo) }

// writeTo is Write with the state before the writer.
func (s *State) writeTo(w io.Writer) error { return Write(w, s) }

// files is what Save needs of a file system; tests make it fail.
type files struct {
	create  func(path string) (file, error) // must not exist yet
	rename  func(from, to string) error
	link    func(from, to string) error
	remove  func(path string) error
	syncDir func(dir string) error
}

type file interface {
	io.Writer
	Sync() error
	Close() error
}

func osFiles() files {
	return files{
		create: func(path string) (file, error) {
			return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		},
		rename: os.Rename,
		link:   os.Link,
		remove: os.Remove,
		syncDir: func(dir string) error {
			d, err := os.Open(dir)
			if err != nil {
				return err
			}
			return errors.Join(d.Sync(), d.Close())
		},
	}
}

func save(fs files, path string, write func(w io.Writer) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save checkpoint %s (an earlier one there is untouched): %w", path, err)
		}
	}()
	temp := tempName(path)
	f, err := fs.create(temp)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = fs.rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, fs.remove(temp))
	}
	return fs.syncDir(filepath.Dir(path))
}

const (
	tempPrefix = ".tmp-"
	extension  = ".safetensors"
)

// tempName is a new name in the folder of path.
func tempName(path string) string {
	dir, base := filepath.Split(path)
	return filepath.Join(dir, fmt.Sprintf("%s%016x-%s", tempPrefix, rand.Uint64(), base))
}
