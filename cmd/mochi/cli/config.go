package cli

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"mochi/coordinator/protocol/config"
	"mochi/model/network"
)

// setting is one key of config.yaml as a flag. A setting without a kind is a
// switch.
type setting struct{ name, kind, usage string }

func settings() []setting {
	return []setting{
		{"arch", "A", "encoder: " + strings.Join(network.Architectures(), ", ")},
		{"head", "H", "projection head: linear, mlp"},
		{"image-size", "S", "height and width of a view, pixels"},
		{"recipe", "R", "augmentation: moco-v2, cifar, none"},
		{"batch", "B", "global batch, samples"},
		{"bn-group", "g", "samples that share BatchNorm statistics"},
		{"groups-at-once", "n", "BatchNorm groups dealt and computed together, the unit of work. GPU: raise until its memory is full (batch 256, bn-group 32: 8); CPU engines compute one at a time"},
		{"queue", "K", "length of the negative queue, keys"},
		{"queue-shards", "V", "virtual shards of the queue"},
		{"queue-copies", "R", "copies of each shard: all, or 2 and more (then a replica holds K·R/P keys)"},
		{"queue-storage", "S", fmt.Sprintf("format of its keys in memory: fp32, bf16 (half of it, rounded), auto (fp32 up to %d MiB, then bf16)", config.ExactQueueBytes>>20)},
		{"dim", "d", "embedding dimension"},
		{"temperature", "T", "softmax temperature"},
		{"momentum", "m", "momentum of the key encoder"},
		{"mochi", "N,s,s2", "hard negatives to mix from, synthetic ones from pairs, synthetic ones from the query; 0,0,0 is MoCo-v2"},
		{"mochi-warmup", "EPOCHS", "epochs without synthetic negatives"},
		{"oracle", "", "class oracle: drop same-class negatives (needs labels)"},
		{"epochs", "n", "epochs; the horizon of the schedule"},
		{"steps", "n", "stop after this many commits in all; 0 = all epochs"},
		{"lr", "x", "learning rate for the global batch"},
		{"lr-warmup", "EPOCHS", "epochs in which the learning rate rises from 0, step by step; the schedule follows"},
		{"schedule", "S", "learning rate by epoch: cosine, step"},
		{"optimizer", "O", "sgd, lars (for large batches: trust 0.001; BatchNorm and biases without it, and without weight decay)"},
		{"sgd-momentum", "x", "momentum of SGD"},
		{"weight-decay", "x", "weight decay, on every parameter"},
		{"precision", "P", "fp32; tf32 (fp32 on a GPU's tensor cores), bf16 where the engine has them"},
		{"wire", "W", "gradients on the network: fp32 (exact sums), bf16 (half the bytes)"},
		{"seed", "n", "seed of initial weights, order, augmentation, mixing"},
		{"knn-every", "EPOCHS", "evaluate kNN, alignment and uniformity every so many epochs; 0 = never"},
		{"checkpoint-every", "STEPS", "write a checkpoint every so many steps; 0 = only at the end"},
		{"keep", "n", "checkpoints to keep besides the latest"},
		{"sample-log", "", "write samples.jsonl: the sample indices of every step"},
		{"strict-data", "", "an image, folder or shard that cannot be read ends the job; else it is reported once and another takes its place"},
		{"min-replicas", "n", "wait for this many replicas before the first step"},
		{"max-replicas", "n", "replicas beyond this many stand by; 0 = one for each unit of work (batch / bn-group / groups-at-once)"},
	}
}

// Training collects the configuration from --preset, --config and
// flags: flags win over the file, the file over the preset.
type Training struct {
	preset, file string
	set          map[string]string // flags given, by YAML key
}

// AddTraining adds --preset, --config and the settings that use keeps.
func AddTraining(fs *FlagSet, use func(name string) bool) *Training {
	t := &Training{set: map[string]string{}}
	defaults := map[string]any{}
	if text, err := config.Default().YAML(); err == nil {
		_ = yaml.Unmarshal(text, &defaults) // only for the help text
	}
	fs.StringVar(&t.preset, "preset", "", "`NAME` of the paper's settings: "+strings.Join(config.Presets(), ", "))
	fs.StringVar(&t.file, "config", "", "YAML `FILE` of settings, such as a RUN's config.yaml")
	for _, s := range settings() {
		if !use(s.name) {
			continue
		}
		fs.settings = append(fs.settings, s.name)
		note := func(v string) error { t.set[s.name] = v; return nil }
		if s.kind == "" {
			fs.BoolFunc(s.name, s.usage, note)
		} else {
			fs.Func(s.name, fmt.Sprintf("`%s`: %s (default %v)", s.kind, s.usage, defaults[s.name]), note)
		}
	}
	return t
}

// Based says whether the settings stand on a preset or a file.
func (t *Training) Based() bool { return t.preset != "" || t.file != "" }

// Given says whether a setting was given as a flag.
func (t *Training) Given(name string) bool { _, is := t.set[name]; return is }

// processKeys are the keys of a --config file that belong to this process,
// not to the job: a RUN's config.yaml does not have them, a hand-written file
// may.
var processKeys = []string{"engine", "threads", "workers", "replicas", "data", "out", "device", "knn-images"}

// Job is the effective configuration, adjusted by the command and checked
// as a whole; what is wrong with it goes to f. fs receives the process keys of
// the file for flags not given.
func (t *Training) Job(fs *FlagSet, f *Faults, adjust func(c *config.Job)) config.Job {
	cfg := config.Default()
	if t.preset != "" {
		p, err := config.Preset(t.preset)
		f.AddErr("preset", err)
		if err == nil {
			cfg = p
		}
	}
	if t.file != "" {
		cfg = t.overlayFile(cfg, fs, f)
	}
	for _, name := range slices.Sorted(maps.Keys(t.set)) {
		over, err := yaml.Marshal(map[string]yaml.Node{name: {Kind: yaml.ScalarNode, Value: t.set[name]}})
		if err == nil {
			cfg, err = config.Overlay(cfg, over)
		}
		f.AddErr(name, flagged(err))
	}
	adjust(&cfg)
	f.AddErr("configuration", cfg.Validate())
	return cfg
}

// flagged is err without the line number, which a flag does not have.
func flagged(err error) error {
	list, ok := err.(config.Faults)
	for i := range list {
		list[i].Problem = strings.TrimPrefix(list[i].Problem, "line 1: ")
	}
	if ok {
		return list
	}
	return err
}

func (t *Training) overlayFile(cfg config.Job, fs *FlagSet, f *Faults) config.Job {
	text, err := os.ReadFile(t.file)
	if err != nil {
		f.Add("config", "%v", err)
		return cfg
	}
	mine, rest, err := config.TakeKeys(text, processKeys...)
	f.AddErr("config", err)
	fileFlags(fs, mine, f)
	if t.preset == "" {
		cfg, err = config.Parse(rest)
	} else {
		cfg, err = config.Overlay(cfg, rest)
		cfg.Preset = t.preset
	}
	f.AddErr("config", err)
	return cfg
}

// fileFlags sets flags from a file unless they were given.
func fileFlags(fs *FlagSet, values map[string]string, f *Faults) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch {
		case fs.Given(name):
		case fs.Lookup(name) == nil:
			f.Add(name, "not a setting of mochi %s; take it out of the file", fs.Name())
		default:
			if err := fs.Set(name, values[name]); err != nil {
				f.Add(name, "%q is not %s", values[name], wanted(kind(fs.Lookup(name))))
			}
		}
	}
}
