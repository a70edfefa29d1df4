// Package checkpoint keeps the whole state of a run in one safetensors file
// and brings it back bit for bit: both encoders, BatchNorm buffers, the
// optimiser, the queue, and where the sampler stands.
//
// # Layout
//
// The file is a plain safetensors file (8-byte little-endian header length,
// JSON header, data), so that anything that reads safetensors reads it:
//
//	queue_ptr                   I64 [1]    slot the next key goes to
//	encoder_q.<name>            F32        parameters, then BatchNorm buffers, in network
//	encoder_k.<name>            F32        order, under torchvision's names
//	optimizer.momentum.<name>   F32        one for each parameter
//	queue                       F32 [d,K]  transposed, as facebookresearch/moco stores it
//	queue_labels                I32 [K]    classes of the queue's samples, −1 unknown
//	probe.weight, .bias         F32 [C,F], [C]   the classifier of --probe, where there is one
//	optimizer.probe.weight, .bias   F32    its momentum
//
// and the metadata, all strings: format ("pt", without which transformers refuses
// a file), mochi_format ("mochi-1"; files of earlier builds have it as format), arch, step, epoch, seed,
// config (YAML), sampler (JSON with the cursor), queue_filled, data and data_shards
// (what identifies the data set, where that is known), and digest:
// xxhash64 over the whole file with the digest's own 16 digits set to '0', so
// that any changed bit is found.
//
// The queue is in the order of its slots, as float32, whatever the number of
// shards, their copies and their storage were, and the cursor counts samples,
// not steps. So a run goes on from a checkpoint with another batch or another
// queue, also of another length (queue.Saved.Resized).
//
// Save writes to a temporary file, fsyncs, renames and fsyncs the folder: a
// crash or a full disk leaves the previous checkpoint as it was.
//
// Cost: one pass to hash and one to write; 4·(3P + 2S + K·d) bytes for P
// parameters and S buffer elements.
package checkpoint

import (
	"errors"
	"fmt"
	"slices"

	"mochi/model/network"
)

// Format is the version of the layout, the value of the metadata key
// "mochi_format".
const Format = "mochi-1"

// The keys of the metadata that say what a file is, and what "format" says: that
// the tensors are meant for PyTorch, which readers ask for.
const (
	versionKey = "mochi_format"
	formatKey  = "format"
	pyTorch    = "pt"
)

// ErrInvalid is wrapped by every error about a file's contents: cut short,
// damaged, or not a mochi checkpoint at all. The message says which.
var ErrInvalid = errors.New("not a valid checkpoint")

// ErrMismatch is wrapped when a valid checkpoint belongs to another network.
var ErrMismatch = errors.New("the checkpoint does not fit")

// State is everything that training continues from. Vectors are flat, in the
// order of Net.Params and Net.Buffers; Write only reads them, and those of a
// State that was read belong to the caller.
type State struct {
	Arch   string
	Step   int64  // commits applied
	Epoch  int    // of the next sample
	Cursor int64  // samples committed
	Seed   uint64 // of the run
	Config string // the run's configuration, YAML
	Data   string // digest of the data set whose samples Cursor counts; "" when not known
	Shards string // content of its shards (protocol.Data.Shards); "" when not known

	// Net names the tensors. In a State that was read it holds Arch, Dim,
	// Params (names, shapes, offsets) and Buffers only: enough to look into
	// the vectors, not to compile; see Matches.
	Net *network.Network

	QueryParams, KeyParams, Momentum []float32 // [Net.NumParams()]
	QueryBuffers, KeyBuffers         []float32 // [Net.NumBuffers()]

	K, Dim      int
	Queue       []float32 // [K, Dim] row-major, slot i at i·Dim
	QueueLabels []int32   // [K], −1 unknown
	QueuePtr    int       // slot of the next key
	QueueFilled int64     // keys enqueued so far, not capped at K

	Probe *Probe // nil: none
}

// Matches says whether the state fits a network and a queue of K keys of
// length dim; the error, an ErrMismatch, lists what differs.
func (s *State) Matches(net *network.Network, k, dim int) error {
	if s.Arch != net.Arch {
		return fmt.Errorf("%w: architecture: expected %s, found %s", ErrMismatch, net.Arch, s.Arch)
	}
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if s.Dim != dim {
		fault("dim: expected %d, found %d", dim, s.Dim)
	}
	if s.K != k {
		fault("queue: expected %d keys, found %d", k, s.K)
	}
	for _, l := range []struct{ want, found []network.Tensor }{{net.Params, s.Net.Params}, {net.Buffers, s.Net.Buffers}} {
		for i := range max(len(l.want), len(l.found)) {
			switch {
			case i >= len(l.found):
				fault("%s: missing", l.want[i].Name)
			case i >= len(l.want):
				fault("%s: unexpected", l.found[i].Name)
			case l.want[i].Name != l.found[i].Name:
				fault("tensor %d: expected %s, found %s", i, l.want[i].Name, l.found[i].Name)
			case !slices.Equal(l.want[i].Shape, l.found[i].Shape):
				fault("%s: expected %v, found %v", l.want[i].Name, l.want[i].Shape, l.found[i].Shape)
			}
		}
	}
	if len(faults) == 0 {
		return nil
	}
	const shown = 8
	more := ""
	if n := len(faults) - shown; n > 0 {
		faults, more = faults[:shown], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("%w: %v%s", ErrMismatch, faults, more)
}

// check finds a State that cannot be written: the fault is the caller's.
func (s *State) check() error {
	if s.Net == nil {
		return errors.New("the state has no network")
	}
	for _, v := range []struct {
		name        string
		have, needs int
	}{
		{"query parameters", len(s.QueryParams), s.Net.NumParams()},
		{"key parameters", len(s.KeyParams), s.Net.NumParams()},
		{"momentum", len(s.Momentum), s.Net.NumParams()},
		{"query buffers", len(s.QueryBuffers), s.Net.NumBuffers()},
		{"key buffers", len(s.KeyBuffers), s.Net.NumBuffers()},
		{"queue", len(s.Queue), s.K * s.Dim},
		{"queue labels", len(s.QueueLabels), s.K},
	} {
		if v.have != v.needs {
			return fmt.Errorf("%s: %d elements, want %d", v.name, v.have, v.needs)
		}
	}
	if err := s.Probe.check(); err != nil {
		return err
	}
	switch {
	case s.K < 1 || s.Dim < 1:
		return fmt.Errorf("queue of %d keys of length %d", s.K, s.Dim)
	case s.QueuePtr < 0 || s.QueuePtr >= s.K:
		return fmt.Errorf("queue pointer %d of a queue of %d", s.QueuePtr, s.K)
	case s.Step < 0 || s.Epoch < 0 || s.Cursor < 0 || s.QueueFilled < 0:
		return fmt.Errorf("step %d, epoch %d, cursor %d, %d keys enqueued: none may be negative", s.Step, s.Epoch, s.Cursor, s.QueueFilled)
	}
	return nil
}

// Tensor names of the file.
const (
	queryPrefix    = "encoder_q."
	keyPrefix      = "encoder_k."
	momentumPrefix = "optimizer.momentum."
	queueName      = "queue"
	ptrName        = "queue_ptr"
	labelsName     = "queue_labels"
)
