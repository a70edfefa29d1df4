// Package config is the configuration of a job: its fields, presets, YAML form,
// checks and comparison. The names are those of the command line and of
// config.yaml; every fault is named at once (Faults). It knows no messages and
// no cluster, so everything that needs the settings may import it; of the model
// it knows which networks there are.
package config

import (
	"fmt"
	"mochi/model/network"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Job is the training configuration of a job: the same names as the
// command line and config.yaml. The zero value is not usable; start from
// Default or Preset.
type Job struct {
	Preset string `yaml:"preset,omitempty" json:"preset,omitempty"` // imagenet100, imagenet1k, cifar10, demo

	Arch      string `yaml:"arch" json:"arch"`             // network.Architectures
	Head      string `yaml:"head" json:"head"`             // linear | mlp
	ImageSize int    `yaml:"image-size" json:"image_size"` // pixels
	Recipe    string `yaml:"recipe" json:"recipe"`         // moco-v2 | cifar | none

	Batch   int `yaml:"batch" json:"batch"`       // global, samples
	BNGroup int `yaml:"bn-group" json:"bn_group"` // samples; batch must be a multiple

	// GroupsAtOnce is how many consecutive groups are dealt and, where the engine
	// can, computed together: the unit of work. A setting of the job, since a
	// library may round a group's results by how many it computes at once.
	GroupsAtOnce int `yaml:"groups-at-once" json:"groups_at_once"`

	Queue        int     `yaml:"queue" json:"queue"`                 // K
	QueueShards  int     `yaml:"queue-shards" json:"queue_shards"`   // V
	QueueCopies  string  `yaml:"queue-copies" json:"queue_copies"`   // all, or a number
	QueueStorage string  `yaml:"queue-storage" json:"queue_storage"` // auto | fp32 | bf16
	Dim          int     `yaml:"dim" json:"dim"`                     // d
	Temperature  float64 `yaml:"temperature" json:"temperature"`     // τ
	Momentum     float64 `yaml:"momentum" json:"momentum"`           // m, of the key encoder
	MoCHi        MoCHi   `yaml:"mochi" json:"mochi"`                 // N,s,s′
	MoCHiWarmup  int     `yaml:"mochi-warmup" json:"mochi_warmup"`   // epochs without synthesis
	Oracle       bool    `yaml:"oracle" json:"oracle"`               // drop same-class negatives (needs labels)

	Epochs      int     `yaml:"epochs" json:"epochs"`
	Steps       int64   `yaml:"steps" json:"steps"` // stop after that many commits in all; 0 = all epochs
	LR          float64 `yaml:"lr" json:"lr"`
	LRWarmup    int     `yaml:"lr-warmup" json:"lr_warmup"` // epochs in which lr rises from 0
	Schedule    string  `yaml:"schedule" json:"schedule"`   // cosine | step
	Optimizer   string  `yaml:"optimizer" json:"optimizer"` // sgd | lars
	SGDMomentum float64 `yaml:"sgd-momentum" json:"sgd_momentum"`
	WeightDecay float64 `yaml:"weight-decay" json:"weight_decay"`

	Precision string `yaml:"precision" json:"precision"` // fp32 | tf32 | bf16
	Wire      string `yaml:"wire" json:"wire"`           // fp32 | bf16, gradients on the network

	Seed            uint64 `yaml:"seed" json:"seed"`
	KNNEvery        int    `yaml:"knn-every" json:"knn_every"`               // epochs; 0 = never
	CheckpointEvery int64  `yaml:"checkpoint-every" json:"checkpoint_every"` // steps; 0 = only at the end
	Keep            int    `yaml:"keep" json:"keep"`                         // checkpoints kept besides latest
	SampleLog       bool   `yaml:"sample-log" json:"sample_log"`
	StrictData      bool   `yaml:"strict-data" json:"strict_data"` // an image that cannot be read ends the job
	MinReplicas     int    `yaml:"min-replicas" json:"min_replicas"`
	MaxReplicas     int    `yaml:"max-replicas" json:"max_replicas"` // 0 = no limit but the number of units
}

// MoCHi is (N, s, s′): how many hard negatives to mix from, how many
// synthetic negatives from pairs, how many from the query. 0,0,0 is MoCo-v2.
type MoCHi struct {
	N  int `json:"n"`
	S  int `json:"s"`
	S2 int `json:"s2"`
}

// Copies is R, how many replicas hold each shard of the queue; 0: all do.
func (c Job) Copies() int {
	r, err := strconv.Atoi(c.QueueCopies)
	if err != nil {
		return 0
	}
	return r
}

// ExactQueueBytes is up to which size, in bytes of float32, --queue-storage
// auto keeps the queue exact: K = 262144 at d = 128. Every published setting
// is far below it (K = 65536: 32 MiB), so auto changes no known result; beyond
// it, what every replica would have to hold counts for more than 2⁻⁹ of a
// key's component.
const ExactQueueBytes = 128 << 20

// Storage is how the queue's keys are kept: "fp32" or "bf16".
func (c Job) Storage() string {
	switch {
	case c.QueueStorage != "auto":
		return c.QueueStorage
	case int64(c.Queue)*int64(c.Dim)*4 > ExactQueueBytes:
		return "bf16"
	}
	return "fp32"
}

// Network describes the job's encoders, of RGB images.
func (c Job) Network() (*network.Network, error) {
	return network.Build(c.Arch, network.Options{Channels: 3, ImageSize: c.ImageSize, Dim: c.Dim, Head: c.Head})
}

// Groups is the number of BatchNorm groups of a global batch.
func (c Job) Groups() int { return c.Batch / c.BNGroup }

// Units is the number of units of work of a global batch, each of GroupsAtOnce
// groups (of one, where that is not positive).
func (c Job) Units() int { return c.Groups() / max(1, c.GroupsAtOnce) }

// ParseMoCHi reads "N,s,s2", three integers separated by commas.
func ParseMoCHi(text string) (MoCHi, error) {
	parts := strings.Split(text, ",")
	var v [3]int
	for i, part := range parts {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || len(parts) != len(v) {
			return MoCHi{}, fmt.Errorf("%q is not of the form N,s,s2 (three integers, such as 256,256,32; 0,0,0 is MoCo-v2)", text)
		}
		v[i] = n
	}
	return MoCHi{N: v[0], S: v[1], S2: v[2]}, nil
}

// String is "N,s,s2"; ParseMoCHi reads it back.
func (m MoCHi) String() string { return fmt.Sprintf("%d,%d,%d", m.N, m.S, m.S2) }

// MarshalYAML writes the form of the command line.
func (m MoCHi) MarshalYAML() (any, error) { return m.String(), nil }

// UnmarshalYAML reads the form of the command line, or a list of three integers.
func (m *MoCHi) UnmarshalYAML(node *yaml.Node) error {
	text := node.Value
	if node.Kind == yaml.SequenceNode {
		var list []string
		if err := node.Decode(&list); err != nil {
			return err
		}
		text = strings.Join(list, ",")
	}
	v, err := ParseMoCHi(text)
	if err != nil {
		return err
	}
	*m = v
	return nil
}
