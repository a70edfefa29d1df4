package convert

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"mochi/coordinator/protocol/config"
	"mochi/model/exchange"
	"mochi/model/exchange/safetensors"
	"mochi/model/network"
	"mochi/replica/checkpoint"
	"mochi/replica/queue"
)

// LoadOptions say what another program's file is taken for, where it does not say
// so itself. A checkpoint of mochi says all.
type LoadOptions struct {
	Arch      string // "": the one that fits
	ImageSize int    // 0: 224 or 32, what the stem is made for
}

// Report is what was taken of another program's file.
type Report struct {
	File      string `json:"file"`
	Layout    string `json:"layout"` // whose names they are
	Arch      string `json:"arch"`
	Head      string `json:"head"`
	Dim       int    `json:"dim"`        // of the embedding
	Features  int    `json:"features"`   // length of the backbone's feature
	ImageSize int    `json:"image_size"` // assumed: a file does not say
	Epoch     int    `json:"epoch"`      // that the file speaks of

	Loaded     []string `json:"loaded"`     // tensors, by their names in a checkpoint
	Missing    []string `json:"missing"`    // what begins anew
	Unexpected []string `json:"unexpected"` // names in the file that nothing was taken of
	Notes      []string `json:"notes,omitempty"`
}

// Say writes the report for people.
func (r *Report) Say(w io.Writer) {
	fmt.Fprintf(w, "%s: %s of %s, the query encoder is taken; images of %d×%d pixels are assumed\n", r.File, r.Arch, r.Layout, r.ImageSize, r.ImageSize)
	fmt.Fprintf(w, "%d tensors loaded; begins anew: %s; not taken: %s\n", len(r.Loaded), names(r.Missing), names(r.Unexpected))
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
}

// names lists some of many.
func names(list []string) string {
	const shown = 6
	switch {
	case len(list) == 0:
		return "nothing"
	case len(list) > shown:
		return fmt.Sprintf("%s and %d more", strings.Join(list[:shown], ", "), len(list)-shown)
	}
	return strings.Join(list, ", ")
}

// Load reads a checkpoint, of mochi or of another program; the report is nil for
// one of mochi.
func Load(path string, o LoadOptions) (Checkpoint, *Report, error) {
	own, err := isOwn(path)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if own {
		c, err := loadOwn(path)
		return c, nil, err
	}
	job := config.Default()
	job.MoCHi = config.MoCHi{}
	return load(path, job, o, false)
}

// Continue reads another program's checkpoint for a job to begin with: the
// settings that its tensors depend on must be the job's.
func Continue(path string, job config.Job) (*checkpoint.State, *Report, error) {
	c, report, err := load(path, job, LoadOptions{Arch: job.Arch, ImageSize: job.ImageSize}, true)
	return c.State, report, err
}

// IsForeign says whether a file is there and is none of mochi's.
func IsForeign(path string) bool {
	own, err := isOwn(path)
	return err == nil && !own
}

// isOwn tells checkpoints of mochi from other files. What is neither is taken for
// one of mochi's, whose reader says what is wrong.
func isOwn(path string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	if info.IsDir() {
		return false, nil
	}
	if !info.Mode().IsRegular() {
		return true, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	start := make([]byte, min(info.Size(), 16))
	if _, err := f.ReadAt(start, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if !safetensors.Is(start) {
		return false, nil
	}
	header, err := safetensors.Open(f, info.Size())
	if err != nil {
		return true, nil
	}
	_, has := header.Metadata["mochi_format"]
	return has || strings.HasPrefix(header.Metadata["format"], "mochi-"), nil
}

// loadOwn reads a checkpoint of mochi and builds its network from the
// configuration it carries.
func loadOwn(path string) (Checkpoint, error) {
	st, err := checkpoint.Load(path)
	if err != nil {
		return Checkpoint{}, err
	}
	cfg, err := config.Recorded([]byte(st.Config))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%s: its config: %w", path, err)
	}
	net, err := cfg.Network()
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%s: %w", path, err)
	}
	if err := st.Matches(net, cfg.Queue, cfg.Dim); err != nil {
		return Checkpoint{}, fmt.Errorf("%s: %w", path, err)
	}
	return Checkpoint{st, net}, nil
}

// load makes a state at step 0 of another program's file: of the job's settings
// where they are given, else of those that the file has.
func load(path string, job config.Job, o LoadOptions, given bool) (Checkpoint, *Report, error) {
	f, err := exchange.Open(path)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	defer f.Close() // read only
	m, err := exchange.Import(f, exchange.ImportOptions{Arch: o.Arch, ImageSize: o.ImageSize, Head: job.Head, Dim: job.Dim, Seed: job.Seed})
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	if given && (m.Head != job.Head || m.Net.Dim != job.Dim) {
		return Checkpoint{}, nil, fmt.Errorf("%s has a head %s of dimension %d, the job %s of %d: set --head and --dim", path, m.Head, m.Net.Dim, job.Head, job.Dim)
	}
	if !given {
		job.Arch, job.Head, job.ImageSize, job.Dim = m.Arch, m.Head, m.Net.ImageSize, m.Net.Dim
		if m.Queue != nil {
			job.Queue = m.K
		}
		if !network.LargeImages(m.Arch) {
			job.Recipe = "cifar"
		}
	}
	text, err := job.YAML()
	if err != nil {
		return Checkpoint{}, nil, err
	}
	st := &checkpoint.State{
		Arch: m.Arch, Net: m.Net, Seed: job.Seed, Config: string(text), K: job.Queue, Dim: m.Net.Dim,
		QueryParams: m.QueryParams, QueryBuffers: m.QueryBuffers, KeyParams: m.KeyParams, KeyBuffers: m.KeyBuffers, Momentum: m.Momentum,
	}
	if st.Momentum == nil {
		st.Momentum = make([]float32, m.Net.NumParams())
	}
	if m.Queue != nil {
		st.K, st.Queue, st.QueuePtr, st.QueueFilled = m.K, m.Queue, m.Ptr, int64(m.K)
		st.QueueLabels = make([]int32, m.K)
		for i := range st.QueueLabels {
			st.QueueLabels[i] = -1
		}
	} else {
		q := queue.New(st.K, st.Dim, 1)
		q.Init(job.Seed)
		st.Queue, st.QueueLabels = q.Keys(), q.Labels()
	}
	return Checkpoint{st, m.Net}, &Report{
		File: path, Layout: m.Layout, Arch: m.Arch, Head: m.Head, Dim: m.Net.Dim, Features: m.Net.FeatureDim, ImageSize: m.Net.ImageSize, Epoch: m.Epoch,
		Loaded: orEmpty(m.Loaded), Missing: orEmpty(m.Missing), Unexpected: orEmpty(m.Unexpected), Notes: m.Notes,
	}, nil
}

// orEmpty is a list that JSON writes as [], not as null.
func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
