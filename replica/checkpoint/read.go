package checkpoint

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"mochi/model/network"
)

// Load reads and verifies a checkpoint file. The error names the file and, as
// an ErrInvalid, what is wrong with it.
func Load(path string) (*State, error) {
	var s *State
	err := loadFile(path, func(r io.Reader, size int64) (err error) {
		s, err = read(r, size, Bounds{})
		return err
	})
	return s, err
}

func loadFile(path string, read func(r io.Reader, size int64) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open checkpoint: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open checkpoint: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("checkpoint %s: %w: not a regular file", path, ErrInvalid)
	}
	if err := read(f, info.Size()); err != nil {
		return fmt.Errorf("checkpoint %s: %w", path, err)
	}
	return nil
}

// Read reads and verifies a checkpoint up to the end of r.
func Read(r io.Reader) (*State, error) {
	size := int64(-1)
	switch r := r.(type) {
	case interface{ Len() int }:
		size = int64(r.Len())
	case *os.File:
		if info, err := r.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
	}
	s, err := read(r, size, Bounds{})
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return s, nil
}

func read(r io.Reader, size int64, limit Bounds) (*State, error) {
	if limit.Header == 0 {
		limit.Header = maxHeader
	}
	h, err := readHeader(r, size, uint64(limit.Header))
	if err != nil {
		return nil, err
	}
	s := &State{}
	if err := s.readMetadata(h.metadata); err != nil {
		return nil, err
	}
	var ptr []int64
	var transposed []float32
	sinks, err := s.assign(h, &ptr, &transposed)
	if err != nil {
		return nil, err
	}
	if err := h.readData(r, sinks, size >= 0); err != nil {
		return nil, err
	}
	if ptr[0] < 0 || ptr[0] >= int64(s.K) {
		return nil, invalid("queue_ptr is %d, the queue has %d slots", ptr[0], s.K)
	}
	s.QueuePtr = int(ptr[0])
	s.Queue = transpose(transposed, s.Dim, s.K)
	return s, nil
}

// checkFormat tells a checkpoint from other safetensors files.
func checkFormat(metadata map[string]string) error {
	format, ok := metadata[versionKey]
	if !ok { // of an earlier build, or of another program
		format, ok = metadata[formatKey]
		ok = ok && format != pyTorch
	}
	switch {
	case !ok:
		return invalid("a safetensors file without the metadata of a mochi checkpoint")
	case format != Format:
		return invalid("its format is %q, this version reads %q", format, Format)
	}
	return nil
}

func (s *State) readMetadata(metadata map[string]string) error {
	if err := checkFormat(metadata); err != nil {
		return err
	}
	var fault error
	number := func(key string, bits int) int64 {
		n, err := strconv.ParseInt(metadata[key], 10, bits)
		if (err != nil || n < 0) && fault == nil {
			fault = invalid("metadata %s: %q is not a number of 0 or more", key, metadata[key])
		}
		return n
	}
	s.Arch = metadata["arch"]
	s.Config = metadata["config"]
	s.Data, s.Shards = metadata["data"], metadata["data_shards"]
	s.Step = number("step", 64)
	s.Epoch = int(number("epoch", 32))
	s.QueueFilled = number("queue_filled", 64)
	seed, err := strconv.ParseUint(metadata["seed"], 10, 64)
	if err != nil && fault == nil {
		fault = invalid("metadata seed: %q is not a number of 0 or more", metadata["seed"])
	}
	s.Seed = seed
	var where sampler
	if json.Unmarshal([]byte(metadata["sampler"]), &where) != nil || where.Cursor < 0 {
		return invalid("metadata sampler: %q", metadata["sampler"])
	}
	s.Cursor = where.Cursor
	return fault
}

// assign says which tensor is read into which vector, and makes out the
// network's names and shapes: a tensor of encoder_q is a parameter when the optimiser has a momentum for
// it, else a buffer. Everything must be there once and fit.
func (s *State) assign(h *header, ptr *[]int64, queue *[]float32) ([]any, error) {
	hasMomentum := map[string]bool{}
	for _, e := range h.tensors {
		if name, ok := strings.CutPrefix(e.name, momentumPrefix); ok {
			hasMomentum[name] = true
		}
	}
	probe, err := probeOf(h)
	if err != nil {
		return nil, err
	}
	s.Probe = probe
	var query, key struct{ params, buffers []network.Tensor }
	var momentum []network.Tensor
	sinks := make([]any, len(h.tensors))
	for i, e := range h.tensors {
		name, isQuery := strings.CutPrefix(e.name, queryPrefix)
		if !isQuery {
			name = strings.TrimPrefix(e.name, keyPrefix)
		}
		isKey := !isQuery && strings.HasPrefix(e.name, keyPrefix)
		want := "F32"
		switch {
		case isQuery && hasMomentum[name]:
			query.params, sinks[i] = appendTensor(query.params, name, e), &s.QueryParams
		case isQuery:
			query.buffers, sinks[i] = appendTensor(query.buffers, name, e), &s.QueryBuffers
		case isKey && hasMomentum[name]:
			key.params, sinks[i] = appendTensor(key.params, name, e), &s.KeyParams
		case isKey:
			key.buffers, sinks[i] = appendTensor(key.buffers, name, e), &s.KeyBuffers
		case strings.HasPrefix(e.name, momentumPrefix):
			momentum, sinks[i] = appendTensor(momentum, strings.TrimPrefix(e.name, momentumPrefix), e), &s.Momentum
		case e.name == queueName:
			if len(e.shape) != 2 || e.elements() == 0 {
				return nil, invalid("queue has shape %v, not [d, K]", e.shape)
			}
			s.Dim, s.K, sinks[i] = e.shape[0], e.shape[1], queue
		case e.name == ptrName:
			want, sinks[i] = "I64", ptr
			if e.elements() != 1 {
				return nil, invalid("queue_ptr has shape %v, not [1]", e.shape)
			}
		case strings.HasPrefix(e.name, probePrefix):
			sinks[i] = &s.Probe.Params
		case strings.HasPrefix(e.name, probeMomentum):
			sinks[i] = &s.Probe.Momentum
		case e.name == labelsName:
			want, sinks[i] = "I32", &s.QueueLabels
		default:
			return nil, invalid("tensor %q does not belong into a checkpoint", e.name)
		}
		if e.dtype != want {
			return nil, invalid("tensor %q has type %s, not %s", e.name, e.dtype, want)
		}
	}
	for _, name := range []string{queueName, ptrName, labelsName} {
		if !slices.ContainsFunc(h.tensors, func(e entry) bool { return e.name == name }) {
			return nil, invalid("tensor %q is missing", name)
		}
	}
	for _, e := range h.tensors {
		if e.name == labelsName && e.elements() != s.K {
			return nil, invalid("queue_labels has shape %v, the queue %d slots", e.shape, s.K)
		}
	}
	for _, c := range []struct {
		what       string
		have, want []network.Tensor
	}{
		{"parameters of encoder_k", key.params, query.params},
		{"buffers of encoder_k", key.buffers, query.buffers},
		{"optimizer.momentum", momentum, query.params},
	} {
		if !slices.EqualFunc(c.have, c.want, func(a, b network.Tensor) bool {
			return a.Name == b.Name && slices.Equal(a.Shape, b.Shape)
		}) {
			return nil, invalid("the %s are not those of encoder_q", c.what)
		}
	}
	s.Net = &network.Network{Arch: s.Arch, Dim: s.Dim, Params: query.params, Buffers: query.buffers}
	return sinks, nil
}

// appendTensor adds e to a flat vector's description.
func appendTensor(list []network.Tensor, name string, e entry) []network.Tensor {
	t := network.Tensor{Name: name, Shape: e.shape, Size: e.elements()}
	if n := len(list); n > 0 {
		t.Offset = list[n-1].Offset + list[n-1].Size
	}
	return append(list, t)
}
