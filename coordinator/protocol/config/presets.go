package config

import (
	"fmt"
	"strings"
)

// Default is the imagenet100 preset without its name: MoCHi
// (1024,1024,128) on MoCo-v2 with a ResNet-50, as in the paper's ablations.
func Default() Job {
	return Job{
		Arch:      "resnet50",
		Head:      "mlp",
		ImageSize: 224,
		Recipe:    "moco-v2",

		Batch:        128,
		BNGroup:      32,
		GroupsAtOnce: 1,

		Queue:        16384,
		QueueShards:  16,
		QueueCopies:  "all",
		QueueStorage: "auto",
		Dim:          128,
		Temperature:  0.2,
		Momentum:     0.999,
		MoCHi:        MoCHi{N: 1024, S: 1024, S2: 128},
		MoCHiWarmup:  10,

		Epochs:      200,
		LR:          0.03,
		Schedule:    "cosine",
		Optimizer:   "sgd",
		SGDMomentum: 0.9,
		WeightDecay: 1e-4,

		Precision: "fp32",
		Wire:      "fp32",
		RingLane:  "auto",

		RingSecurity: SecurityTLS,

		Seed:            1,
		KNNEvery:        10,
		CheckpointEvery: 500,
		Keep:            3,
		Audit:           0.002,
		MinReplicas:     1,
	}
}

// preset is a published run: how it differs from Default.
type preset struct {
	name   string
	change func(c *Job)
}

// presets are MoCHi (Kalantidis et al. 2020) on MoCo-v2 (Chen et al. 2020) on
// ImageNet; the CIFAR-10 demonstration of facebookresearch/moco with MoCHi
// scaled down; and Fashion-MNIST on a CPU, in minutes.
func presets() []preset {
	return []preset{
		{"imagenet100", func(*Job) {}},
		{"imagenet1k", func(c *Job) {
			c.Batch = 256
			c.Queue = 65536
			c.MoCHi = MoCHi{N: 1024, S: 512, S2: 256}
			c.MoCHiWarmup = 15
		}},
		{"cifar10", func(c *Job) {
			c.Arch, c.Head, c.ImageSize, c.Recipe = "resnet18-cifar", "linear", 32, "cifar"
			c.Batch, c.BNGroup = 512, 64
			c.Queue = 4096
			c.Temperature, c.Momentum = 0.1, 0.99
			c.MoCHi = MoCHi{N: 256, S: 256, S2: 32}
			c.LR, c.WeightDecay = 0.06, 5e-4
		}},
		{"demo", func(c *Job) {
			c.Arch, c.Head, c.ImageSize, c.Recipe = "resnet8", "linear", 28, "moco-v2"
			c.Batch, c.BNGroup = 128, 32
			c.Queue = 4096
			c.Dim = 64
			c.Temperature, c.Momentum = 0.1, 0.99
			c.MoCHi = MoCHi{N: 256, S: 256, S2: 32}
			c.MoCHiWarmup = 0
			c.Epochs = 2
			c.LR, c.WeightDecay = 0.06, 5e-4
			c.KNNEvery = 2 // before and after training
			c.CheckpointEvery = 200
		}},
	}
}

// Presets lists what Preset knows.
func Presets() []string {
	var names []string
	for _, p := range presets() {
		names = append(names, p.name)
	}
	return names
}

// Preset returns the configuration of a published run by name.
func Preset(name string) (Job, error) {
	for _, p := range presets() {
		if p.name == name {
			c := Default()
			c.Preset = name
			p.change(&c)
			return c, nil
		}
	}
	return Job{}, Faults{{"preset", fmt.Sprintf("%q is not known; there are %s%s", name, strings.Join(Presets(), ", "), didYouMean(name, Presets()))}}
}
