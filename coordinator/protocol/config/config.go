// Package config is the configuration of a job: its fields, presets, YAML form,
// checks and comparison. The names are those of the command line and of
// config.yaml; every fault is named at once (Faults). It knows no messages and
// no cluster, so everything that needs the settings may import it; of the model
// it knows which networks there are.
package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"mochi/model/network"
)

// Job is the training configuration of a job. A field is a setting: its tags
// are all there is to say about it, and flags, help, completion, config.yaml,
// Validate, Digest, Differences and CompatibleResume follow from them
// (Settings). The zero value is not usable; start from Default or Preset.
//
//   - yaml, json: its name as a flag and YAML key, and in messages.
//   - arg: what its value is called in help; a switch has none.
//   - help: what it is; {values} stands for the list of oneof.
//   - group: the heading in help, from this setting on.
//   - oneof: the words that it may be, or the name of a list (lists).
//   - range: the numbers that it may be (limits.Range). Without one, Validate
//     checks it in another way.
//   - keeps: "result" is a setting that leaves the mathematics alone (what is
//     watched, kept and waited for, and how far the job runs); "tensors" is one
//     that a checkpoint's tensors and the order of its samples are made for, so
//     that it cannot change when a run is resumed. All others can: the batch,
//     for the sampler counts samples, not steps; the queue's length, shards and
//     storage, for a checkpoint holds its keys in the order of slots, as
//     float32.
//   - digest: "nonzero" is for a setting that comes later than digests that are
//     kept: it is part of Digest only where it is not zero, which must be what
//     jobs did before there was the setting.
type Job struct {
	Preset string `yaml:"preset,omitempty" json:"preset,omitempty" oneof:"Presets" keeps:"result"`

	Arch      string `yaml:"arch" json:"arch" arg:"A" oneof:"network.Architectures" keeps:"tensors" group:"Encoder and views" help:"encoder: {values}"`
	Head      string `yaml:"head" json:"head" arg:"H" oneof:"network.Heads" keeps:"tensors" help:"projection head: {values}"`
	ImageSize int    `yaml:"image-size" json:"image_size" arg:"S" range:"at least 1 and at most 8192" keeps:"tensors" help:"height and width of a view, pixels"`
	Recipe    string `yaml:"recipe" json:"recipe" arg:"R" oneof:"moco-v2,cifar,none,crop-flip" help:"augmentation: {values}; crop-flip is for --supervised"`
	// Classes is the ids of the classes that are trained on, sorted, with commas
	// between them; "" is all, as flags and YAML say. (A command takes a file or a
	// name for it, too.)
	Classes string `yaml:"classes" json:"classes,omitempty" digest:"nonzero" arg:"LIST" keeps:"tensors" help:"train and evaluate on these classes alone: a FILE with an id a line, or imagenet100, the list of CMC"`
	// MaxImagePixels and MaxImageBytes decide which images are replaced by others, so
	// they are the same for all members; ImagePixels and ImageBytes say what 0 is.
	MaxImagePixels int   `yaml:"max-image-pixels" json:"max_image_pixels" digest:"nonzero" arg:"n" range:"at least 0 and at most 2147483647" help:"largest image, width × height; a larger one counts as damaged, and those in memory at once take no more than one of that size (11 bytes a pixel); 0 = 25 million"`
	MaxImageBytes  int64 `yaml:"max-image-bytes" json:"max_image_bytes" digest:"nonzero" arg:"n" range:"at least 0 and at most 1099511627776" help:"largest image file, bytes; a larger one counts as damaged, and those in memory at once take no more than one of that size; 0 = 256 MiB"`

	Batch   int `yaml:"batch" json:"batch" arg:"B" range:"at least 1 and at most 16777216" group:"Batch and queue" help:"global batch, samples"`
	BNGroup int `yaml:"bn-group" json:"bn_group" arg:"g" help:"samples that share BatchNorm statistics"`
	// GroupsAtOnce is how many consecutive groups are dealt and, where the engine
	// can, computed together: the unit of work. A setting of the job, since a
	// library may round a group's results by how many it computes at once.
	GroupsAtOnce int    `yaml:"groups-at-once" json:"groups_at_once" arg:"n" range:"at least 1 and at most 16777216" help:"BatchNorm groups dealt and computed together, the unit of work. GPU: raise until its memory is full (batch 256, bn-group 32: 8); CPU engines compute one at a time"`
	Queue        int    `yaml:"queue" json:"queue" arg:"K" help:"length of the negative queue, keys"`
	QueueShards  int    `yaml:"queue-shards" json:"queue_shards" arg:"V" range:"at least 1 and at most 65536" help:"virtual shards of the queue, for --pairs shard; a whole queue is cut as it is best"`
	QueueCopies  string `yaml:"queue-copies" json:"queue_copies" arg:"R" keeps:"result" help:"copies of each shard: all, or 2 and more (then a replica holds K·R/P keys)"`
	QueueStorage string `yaml:"queue-storage" json:"queue_storage" arg:"S" oneof:"auto,fp32,bf16" help:"format of its keys in memory: fp32, bf16 (half of it, rounded), auto (fp32 up to 128 MiB, then bf16)"`

	Dim         int     `yaml:"dim" json:"dim" arg:"d" range:"at least 1 and at most 65536" keeps:"tensors" group:"Loss" help:"embedding dimension"`
	Temperature float64 `yaml:"temperature" json:"temperature" arg:"T" help:"softmax temperature"`
	Momentum    float64 `yaml:"momentum" json:"momentum" arg:"m" help:"momentum of the key encoder"`
	MoCHi       MoCHi   `yaml:"mochi" json:"mochi" arg:"N,s,s2" help:"hard negatives to mix from, synthetic ones from pairs, synthetic ones from the query; 0,0,0 is MoCo-v2"`
	// Pairs says of which hard negatives the two of a pair are: of all N, as in the
	// paper, or of one shard (loss.Config.PairsInShard). "" is what the queue
	// allows (PairsInShard); YAML writes the word that it stands for.
	Pairs       string `yaml:"pairs" json:"pairs" digest:"nonzero" arg:"P" oneof:"all,shard" help:"what a pair is drawn from: all N hardest, as published, or one shard, without a key twice; shard where the queue is spread (--queue-copies R)"`
	MoCHiWarmup int    `yaml:"mochi-warmup" json:"mochi_warmup" arg:"EPOCHS" range:"at least 0 and at most 2147483647" help:"epochs without synthetic negatives"`
	Oracle      bool   `yaml:"oracle" json:"oracle" help:"class oracle: drop same-class negatives (needs labels)"`
	// Supervised is the baseline: no keys, no queue, cross-entropy of a linear classifier
	// with Labels classes in place of the projection head. Learn makes the settings that
	// it does not have what they must be.
	Supervised     bool    `yaml:"supervised" json:"supervised,omitempty" digest:"nonzero" keeps:"tensors" help:"learn from the labels instead, as a baseline: a linear classifier in place of the head, cross-entropy, no keys and no queue; accuracy on the test split after every epoch"`
	LabelSmoothing float64 `yaml:"label-smoothing" json:"label_smoothing,omitempty" digest:"nonzero" arg:"x" range:"at least 0 and below 1" help:"of --supervised: the part of a target that is spread over all classes"`

	Epochs      int     `yaml:"epochs" json:"epochs" arg:"n" range:"at least 1 and at most 2147483647" group:"Optimisation" help:"epochs; the horizon of the schedule"`
	Steps       int64   `yaml:"steps" json:"steps" arg:"n" range:"at least 0" keeps:"result" help:"stop after this many commits in all; 0 = all epochs"`
	LR          float64 `yaml:"lr" json:"lr" arg:"x" range:"above 0" help:"learning rate for the global batch"`
	LRWarmup    int     `yaml:"lr-warmup" json:"lr_warmup" arg:"EPOCHS" range:"at least 0 and at most 2147483647" help:"epochs in which the learning rate rises from 0, step by step; the schedule follows"`
	Schedule    string  `yaml:"schedule" json:"schedule" arg:"S" oneof:"cosine,step" help:"learning rate by epoch: {values}"`
	Optimizer   string  `yaml:"optimizer" json:"optimizer" arg:"O" oneof:"sgd,lars" keeps:"tensors" help:"sgd, lars (for large batches: trust 0.001; BatchNorm and biases without it, and without weight decay)"`
	SGDMomentum float64 `yaml:"sgd-momentum" json:"sgd_momentum" arg:"x" help:"momentum of SGD"`
	WeightDecay float64 `yaml:"weight-decay" json:"weight_decay" arg:"x" help:"weight decay, on every parameter"`

	Precision string `yaml:"precision" json:"precision" arg:"P" oneof:"fp32,tf32,bf16" group:"Precision and seed" help:"fp32; tf32 (fp32 on a GPU's tensor cores), bf16 where the engine has them"`
	Wire      string `yaml:"wire" json:"wire" arg:"W" oneof:"fp32,bf16" help:"gradients on the network: fp32 (exact sums), bf16 (half the bytes)"`
	// RingLane is how gradients go between neighbours (package allreduce/natsring). "" is
	// auto. With wire fp32 it changes no bit; with bf16 what is not sent is not rounded.
	RingLane string `yaml:"ring-lane" json:"ring_lane" arg:"L" oneof:"auto,nats,direct" keeps:"result" help:"how gradients go between neighbours: auto (in place within a process, else over NATS), nats (over NATS, always), direct (auto, with TCP connections of their own for NATS where they can be made)"`
	// RingSecurity is how gradients are protected on the network (package
	// allreduce/natsring). "" is tls. It changes no bit.
	RingSecurity string `yaml:"ring-security" json:"ring_security,omitempty" arg:"W" oneof:"tls,plain" keeps:"result" help:"gradients between replicas: tls, or plain (in the clear, but each frame authenticated, for a network that nobody else hears); without tokens (--insecure, --nats) they are in the clear and not authenticated"`
	Seed         uint64 `yaml:"seed" json:"seed" arg:"n" keeps:"tensors" help:"seed of initial weights, order, augmentation, mixing"`

	KNNEvery int `yaml:"knn-every" json:"knn_every" arg:"EPOCHS" range:"at least 0 and at most 2147483647" keeps:"result" group:"What is watched and kept" help:"evaluate kNN, alignment and uniformity every so many epochs (--supervised: accuracy, every epoch); 0 = never"`
	// Probe trains a linear classifier beside the encoder (package model/probe). It
	// changes no bit of the encoder. Labels is how many classes the training data has,
	// written down when a job that learns from them starts (Learn); 0 for others.
	Probe           bool  `yaml:"probe" json:"probe,omitempty" digest:"nonzero" help:"train a linear classifier on the backbone's features beside the encoder, which it does not change, and log its accuracy (needs labels)"`
	Labels          int   `yaml:"labels" json:"labels,omitempty" digest:"nonzero" arg:"C" range:"at least 0 and at most 1048576" help:"classes that --probe and --supervised tell apart: 0 = those of the training data, and no other number will do"`
	CheckpointEvery int64 `yaml:"checkpoint-every" json:"checkpoint_every" arg:"STEPS" range:"at least 0" keeps:"result" help:"write a checkpoint every so many steps, 10,000 at most; 0 = only at the end and every 10,000"`
	Keep            int   `yaml:"keep" json:"keep" arg:"n" range:"at least 0 and at most 2147483647" keeps:"result" help:"checkpoints to keep besides the latest"`
	SampleLog       bool  `yaml:"sample-log" json:"sample_log" keeps:"result" help:"write samples.jsonl: the sample indices of every step"`
	StrictData      bool  `yaml:"strict-data" json:"strict_data" keeps:"result" help:"an image, folder or shard that cannot be read ends the job; else it is reported once and another takes its place"`
	// Audit is which part of the groups a second member computes too, so that wrong
	// arithmetic is found (package coordinator/protocol/audit). It changes no result.
	Audit       float64 `yaml:"audit" json:"audit" arg:"x" range:"at least 0 and at most 1" keeps:"result" help:"part of the groups that a second replica computes too, compared to the bit: who computes wrongly is found and left out; one step in 1/x of every replica; 0 = off, and nobody looks at sums a second time either"`
	MinReplicas int     `yaml:"min-replicas" json:"min_replicas" arg:"n" range:"at least 1 and at most 2147483647" keeps:"result" help:"wait for this many replicas before the first step"`
	MaxReplicas int     `yaml:"max-replicas" json:"max_replicas" arg:"n" range:"at least 0 and at most 2147483647" keeps:"result" help:"replicas beyond this many stand by; 0 = one for each unit of work (batch / bn-group / groups-at-once)"`
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

// PairsInShard says whether both members of a pair come from one shard of the
// queue: where it is asked for, and where nothing is and the queue is spread.
func (c Job) PairsInShard() bool {
	return c.Pairs == "shard" || c.Pairs == "" && c.Copies() > 0
}

// Drawn is what pairs are drawn from, the word that Pairs is or stands for.
func (c Job) Drawn() string {
	if c.PairsInShard() {
		return "shard"
	}
	return "all"
}

// wholeShards is how many shards a queue is cut into whose pairs are of all: sums
// are by shard, so it is one number, and no setting, for all.
const wholeShards = 16

// Shards is V, how many virtual shards the queue is cut into: QueueShards where
// pairs stay inside one.
func (c Job) Shards() int {
	if c.PairsInShard() {
		return c.QueueShards
	}
	return max(1, min(wholeShards, c.Queue))
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

// What an image and its file may be at most where a job says nothing.
const (
	MostImagePixels = 25_000_000
	MostImageBytes  = 256 << 20
)

// ImagePixels is the largest image that is decoded, width times height.
func (c Job) ImagePixels() int {
	if c.MaxImagePixels == 0 {
		return MostImagePixels
	}
	return c.MaxImagePixels
}

// ImageBytes is the largest image file that is read.
func (c Job) ImageBytes() int64 {
	if c.MaxImageBytes == 0 {
		return MostImageBytes
	}
	return c.MaxImageBytes
}

// Learns says whether the job learns from labels, if only beside the encoder.
func (c Job) Learns() bool { return c.Probe || c.Supervised }

// Learn writes down that the training data has so many classes, where the job learns
// from them. A supervised one then has as many logits, a queue of one key that is never
// looked at, and a key encoder that is a copy: its state has the form of all others.
func (c *Job) Learn(classes int) {
	if c.Labels = 0; c.Learns() {
		c.Labels = classes
	}
	if c.Supervised {
		c.Dim, c.Queue, c.QueueShards, c.QueueCopies, c.Pairs = max(1, classes), 1, 1, "all", ""
		c.MoCHi, c.MoCHiWarmup, c.Momentum = MoCHi{}, 0, 0
	}
}

// EvaluateEvery is after how many epochs the network is evaluated; 0: never. A
// supervised job's accuracy costs one pass over the test split, and is wanted of all.
func (c Job) EvaluateEvery() int {
	if c.Supervised {
		return min(c.KNNEvery, 1)
	}
	return c.KNNEvery
}

// Network describes the job's encoders, of RGB images.
func (c Job) Network() (*network.Network, error) {
	o := network.Options{Channels: 3, ImageSize: c.ImageSize, Dim: c.Dim, Head: c.Head}
	if c.Supervised {
		o.Head = network.HeadClasses
	}
	return network.Build(c.Arch, o)
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
