// Package convert takes checkpoints to the files of other programs and back. The
// files themselves, and the names in them, are model/exchange's; here are what a
// checkpoint has for them, and how they come onto the disk.
package convert

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mochi/coordinator/protocol/config"
	"mochi/model/exchange"
	"mochi/model/network"
	"mochi/model/optim"
	"mochi/replica/augment"
	"mochi/replica/checkpoint"
)

// Formats of Export.
const (
	Torchvision = "torchvision"
	MoCo        = "moco"
	Detectron2  = "detectron2"
	Timm        = "timm"
	ONNX        = "onnx"
)

// Formats lists them.
func Formats() []string { return []string{Torchvision, MoCo, Detectron2, Timm, ONNX} }

// Checkpoint is one that was read, with its whole network.
type Checkpoint struct {
	State *checkpoint.State
	Net   *network.Network
}

// ExportOptions say what to write.
type ExportOptions struct {
	Format string
	Key    bool // the key encoder, not the query encoder
	FoldBN bool // ONNX: BatchNorms become part of the convolutions
}

// Exported is what was written.
type Exported struct {
	Path     string `json:"path"`
	Format   string `json:"format"`
	Arch     string `json:"arch"`
	Encoder  string `json:"encoder"`  // query, key, or both
	Features int    `json:"features"` // length of the backbone's feature
	Step     int64  `json:"step"`     // of the checkpoint
	Bytes    int64  `json:"bytes"`    // of all files

	Notes []string `json:"notes,omitempty"` // what the file does not hold
}

// Export writes a checkpoint in another program's format, to a file or, for timm,
// to a folder. It is there whole or not at all.
func Export(c Checkpoint, path string, o ExportOptions) (Exported, error) {
	job, err := config.Recorded([]byte(c.State.Config))
	if err != nil {
		return Exported{}, fmt.Errorf("its config: %w", err)
	}
	out := Exported{Path: path, Format: o.Format, Arch: c.Net.Arch, Encoder: "query", Features: c.Net.FeatureDim, Step: c.State.Step}
	query := exchange.Encoder{Net: c.Net, Params: c.State.QueryParams, Buffers: c.State.QueryBuffers, Steps: c.State.Step}
	key := exchange.Encoder{Net: c.Net, Params: c.State.KeyParams, Buffers: c.State.KeyBuffers, Steps: c.State.Step}
	chosen := query
	if o.Key {
		chosen, out.Encoder = key, "key"
	}
	switch o.Format {
	case Torchvision:
		err = WriteFile(path, func(w *os.File) error { return exchange.Torchvision(w, chosen) })
	case Detectron2:
		err = WriteFile(path, func(w *os.File) error { return exchange.Detectron2(w, chosen) })
	case Timm:
		var files []exchange.NamedFile
		if files, err = exchange.Timm(chosen, preprocessing(c.Net.ImageSize), about(c, job)); err == nil {
			err = writeFolder(path, files)
		}
	case ONNX:
		var model []byte
		model, err = exchange.ONNX(chosen, preprocessing(c.Net.ImageSize), o.FoldBN, map[string]string{
			"encoder": out.Encoder, "step": fmt.Sprint(c.State.Step), "parameters": checkpoint.Digest(chosen.Params), "about": about(c, job),
		})
		if err == nil {
			err = WriteFile(path, func(w *os.File) error {
				_, err := w.Write(model)
				return err
			})
		}
	case MoCo:
		out.Encoder = "both"
		m := mocoState(c, job)
		m.Query, m.Key = query, key
		if m.Momentum == nil {
			out.Notes = append(out.Notes, "the optimiser was "+job.Optimizer+", whose momentum is not SGD's: the file has none, and training would start with an empty one")
		}
		if c.State.Cursor > 0 && m.Epoch > 0 {
			out.Notes = append(out.Notes, fmt.Sprintf("the reference begins at an epoch's start: it would go on with epoch %d from its first batch", m.Epoch))
		}
		err = WriteFile(path, func(w *os.File) error { return exchange.MoCo(w, m) })
	default:
		err = fmt.Errorf("format %q is not known; there are %s", o.Format, strings.Join(Formats(), ", "))
	}
	if err != nil {
		return Exported{}, err
	}
	out.Bytes, err = size(path)
	return out, err
}

// preprocessing is that of evaluation.
func preprocessing(size int) exchange.Preprocessing {
	view := augment.Eval(size)
	p := exchange.Preprocessing{Size: size, Resize: view.Resized()}
	p.Mean, p.Std = view.Normalization()
	return p
}

// mocoState is what the reference's training needs beside the encoders.
func mocoState(c Checkpoint, job config.Job) exchange.MoCoState {
	st := c.State
	m := exchange.MoCoState{Dim: st.Dim, K: st.K, Ptr: st.QueuePtr, Epoch: st.Epoch, Queue: make([]float32, len(st.Queue))}
	for slot := range st.K {
		for i := range st.Dim {
			m.Queue[i*st.K+slot] = st.Queue[slot*st.Dim+i]
		}
	}
	rate := optim.Schedule{Name: job.Schedule, Base: job.LR, Epochs: job.Epochs, Warmup: job.LRWarmup}
	m.SGD = exchange.SGD{LR: rate.LR(float64(st.Epoch)), Momentum: job.SGDMomentum, WeightDecay: job.WeightDecay}
	if job.Optimizer == "sgd" {
		m.Momentum = st.Momentum
	}
	return m
}

// about says for people where weights come from.
func about(c Checkpoint, job config.Job) string {
	method := "MoCHi (Kalantidis et al. 2020) on MoCo-v2, mixing " + job.MoCHi.String()
	if job.MoCHi == (config.MoCHi{}) {
		method = "MoCo-v2 (Chen et al. 2020)"
	}
	return fmt.Sprintf("Backbone pre-trained by mochi with %s: step %d, epoch %d, batch %d, queue %d, temperature %g, images of %d×%d pixels, views by recipe %s. Digest of the parameters: %s.",
		method, c.State.Step, c.State.Epoch, job.Batch, job.Queue, job.Temperature, job.ImageSize, job.ImageSize, job.Recipe, checkpoint.Digest(c.State.QueryParams))
}

// size is that of a file or of the files in a folder.
func size(path string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(path, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}
