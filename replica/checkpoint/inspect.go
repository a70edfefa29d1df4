package checkpoint

import "mochi/replica/queue"

// Info is what `mochi inspect --json` prints.
type Info struct {
	File       string      `json:"file"`
	Format     string      `json:"format"`
	Step       int64       `json:"step"`
	Epoch      int         `json:"epoch"`
	Arch       string      `json:"arch"`
	Seed       uint64      `json:"seed"`
	Samples    int64       `json:"samples"`              // committed so far
	Data       string      `json:"data,omitempty"`       // digest of the data set, as mochi data inspect says it
	NotFinite  string      `json:"not_finite,omitempty"` // a tensor with a NaN or an infinity: training had diverged
	Parameters int         `json:"parameters"`           // of one encoder, head included
	Queue      QueueInfo   `json:"queue"`
	Digest     DigestsInfo `json:"digest"`
}

// QueueInfo is the queue's part of Info.
type QueueInfo struct {
	Length int   `json:"length"` // K
	Dim    int   `json:"dim"`    // d
	Filled int64 `json:"filled"` // slots that hold keys of samples, at most K
}

// DigestsInfo identifies the parts of a state; equal digests mean equal bits.
type DigestsInfo struct {
	EncoderQ  string `json:"encoder_q"`       // parameters; the `digest` of log.jsonl at this step
	EncoderK  string `json:"encoder_k"`       // parameters
	Optimizer string `json:"optimizer"`       // momentum
	Buffers   string `json:"buffers"`         // BatchNorm running statistics of both encoders
	Queue     string `json:"queue"`           // keys, labels and pointer, as queue.Queue.Digest
	Probe     string `json:"probe,omitempty"` // the classifier of --probe and its momentum
}

// Inspect reads and verifies a checkpoint file and describes it.
func Inspect(path string) (Info, error) {
	s, err := Load(path)
	if err != nil {
		return Info{}, err
	}
	return Describe(path, Format, s)
}

// Describe describes a state that was read from path, where it has this format.
func Describe(path, format string, s *State) (Info, error) {
	q := queue.New(s.K, s.Dim, 1)
	if err := q.Set(s.Queue, s.QueueLabels, s.QueuePtr, s.QueueFilled); err != nil {
		return Info{}, err
	}
	info := Info{
		File: path, Format: format,
		Step: s.Step, Epoch: s.Epoch, Arch: s.Arch, Seed: s.Seed, Samples: s.Cursor, Data: s.Data, NotFinite: s.NotFinite(),
		Parameters: s.Net.NumParams(),
		Queue:      QueueInfo{Length: s.K, Dim: s.Dim, Filled: min(s.QueueFilled, int64(s.K))},
		Digest: DigestsInfo{
			EncoderQ:  Digest(s.QueryParams),
			EncoderK:  Digest(s.KeyParams),
			Optimizer: Digest(s.Momentum),
			Buffers:   Digest(s.QueryBuffers, s.KeyBuffers),
			Queue:     q.Digest(),
		},
	}
	if s.Probe != nil {
		info.Digest.Probe = Digest(s.Probe.Vectors()...)
	}
	return info, nil
}
