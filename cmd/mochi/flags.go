package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"

	"mochi/coordinator/protocol"
)

// newFlags makes the flag set of a subcommand. usage is its first line
// without "mochi"; example a full command line.
func newFlags(name, about, example string, out io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {
		fmt.Fprintf(out, "mochi %s: %s\n\nFlags:\n", name, about)
		fs.VisitAll(func(f *flag.Flag) {
			kind, usage := flag.UnquoteUsage(f)
			head := "--" + f.Name
			if kind != "" {
				head += " " + kind
			}
			if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
				usage += " (default " + f.DefValue + ")"
			}
			fmt.Fprintf(out, "  %-28s %s\n", head, usage)
		})
		fmt.Fprintf(out, "\nExample:\n  %s\n", example)
	}
	return fs
}

// parse turns flag errors into usage errors and refuses stray arguments;
// positional is how many arguments without a flag are expected.
func parse(fs *flag.FlagSet, args []string, positional int) ([]string, error) {
	var rest []string
	for {
		err := fs.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			return nil, errHelp
		}
		if err != nil {
			return nil, usagef("%s: %w (mochi %s --help lists the flags)", fs.Name(), err, fs.Name())
		}
		// Flags may follow positional arguments: mochi diff A B --json.
		args = fs.Args()
		if len(args) == 0 {
			break
		}
		rest, args = append(rest, args[0]), args[1:]
	}
	if len(rest) != positional {
		return nil, usagef("%s: %d arguments expected, got %d %q (mochi %s --help)", fs.Name(), positional, len(rest), rest, fs.Name())
	}
	return rest, nil
}

// trainingFlag is one key of config.yaml as a flag.
type trainingFlag struct{ name, kind, usage string }

var trainingFlags = []trainingFlag{
	{"arch", "A", "encoder: resnet18, resnet34, resnet50, resnet18-cifar, resnet20, resnet8"},
	{"head", "H", "projection head: linear, mlp"},
	{"image-size", "S", "height and width of a view, pixels"},
	{"recipe", "R", "augmentation: moco-v2, cifar, none"},
	{"batch", "B", "global batch, samples"},
	{"bn-group", "g", "samples that share BatchNorm statistics; the unit of work"},
	{"queue", "K", "length of the negative queue, keys"},
	{"queue-shards", "V", "virtual shards of the queue"},
	{"queue-copies", "R", "copies of each shard: all"},
	{"dim", "d", "embedding dimension"},
	{"temperature", "T", "softmax temperature"},
	{"momentum", "m", "momentum of the key encoder"},
	{"mochi", "N,s,s2", "hard negatives to mix from, synthetic from pairs, synthetic from the query; 0,0,0 is MoCo-v2"},
	{"mochi-warmup", "EPOCHS", "epochs without synthetic negatives"},
	{"epochs", "E", "epochs; the horizon of the schedule"},
	{"steps", "n", "stop after this many commits in all; 0 = all epochs"},
	{"lr", "x", "learning rate for the global batch"},
	{"schedule", "S", "cosine, step"},
	{"optimizer", "O", "sgd"},
	{"sgd-momentum", "x", "momentum of SGD"},
	{"weight-decay", "x", "weight decay, on every parameter"},
	{"precision", "P", "fp32 (bf16 where the engine has it)"},
	{"wire", "W", "gradients on the network: fp32 (exact sums), bf16 (half the bytes)"},
	{"seed", "n", "seed of initial weights, order, augmentation, mixing"},
	{"knn-every", "EPOCHS", "evaluate kNN every so many epochs; 0 = never"},
	{"checkpoint-every", "STEPS", "write a checkpoint every so many steps; 0 = only at the end"},
	{"keep", "N", "checkpoints to keep besides the latest"},
	{"min-replicas", "N", "wait for this many replicas before the first step"},
	{"max-replicas", "N", "replicas beyond this many stand by; 0 = one per BatchNorm group"},
}

var trainingSwitches = []trainingFlag{
	{"oracle", "", "class oracle: drop same-class negatives (needs labels)"},
	{"sample-log", "", "write samples.jsonl: the sample indices of every step"},
}

// trainingConfig collects the configuration from --preset, --config and
// flags, in this order of precedence: flags over file over preset.
type trainingConfig struct {
	preset, file string
	set          map[string]string // flags given, by YAML key
}

func addTrainingFlags(fs *flag.FlagSet) *trainingConfig {
	t := &trainingConfig{set: map[string]string{}}
	defaults := map[string]any{}
	if text, err := protocol.DefaultConfig().YAML(); err == nil {
		_ = yaml.Unmarshal(text, &defaults) // only for the help text
	}
	fs.StringVar(&t.preset, "preset", "", "`NAME` of the paper's settings: imagenet100, imagenet1k, cifar10, demo")
	fs.StringVar(&t.file, "config", "", "YAML `FILE` with the same names as these flags, such as a RUN's config.yaml")
	for _, f := range trainingFlags {
		fs.Func(f.name, fmt.Sprintf("`%s` %s (default %v)", f.kind, f.usage, defaults[f.name]), func(v string) error { t.set[f.name] = v; return nil })
	}
	for _, f := range trainingSwitches {
		fs.BoolFunc(f.name, f.usage, func(v string) error { t.set[f.name] = v; return nil })
	}
	return t
}

// processKeys are the keys of a --config file that belong to this process,
// not to the job: a RUN's config.yaml does not have them, a hand-written file
// may.
var processKeys = []string{"engine", "threads", "workers", "replicas", "data", "out", "device"}

// config is the effective configuration, validated as a whole: every fault is
// listed. fs receives the process keys of the file for flags not given.
func (t *trainingConfig) config(fs *flag.FlagSet) (protocol.Config, error) {
	var faults protocol.Faults
	note := func(err error) {
		var fs protocol.Faults
		if errors.As(err, &fs) {
			faults = append(faults, fs...)
		} else if err != nil {
			faults = append(faults, protocol.Fault{Field: "configuration", Problem: err.Error()})
		}
	}
	cfg := protocol.DefaultConfig()
	if t.preset != "" {
		p, err := protocol.Preset(t.preset)
		if err != nil {
			return cfg, usageError{err}
		}
		cfg = p
	}
	if t.file != "" {
		text, err := os.ReadFile(t.file)
		if err != nil {
			return cfg, usagef("--config: %w", err)
		}
		mine, rest, err := protocol.TakeKeys(text, processKeys...)
		note(err)
		note(fileFlags(fs, mine))
		if t.preset == "" {
			cfg, err = protocol.ParseConfig(rest)
		} else {
			cfg, err = protocol.OverlayConfig(cfg, rest)
			cfg.Preset = t.preset
		}
		note(err)
	}
	for _, name := range slices.Sorted(maps.Keys(t.set)) {
		over, err := yaml.Marshal(map[string]yaml.Node{name: {Kind: yaml.ScalarNode, Value: t.set[name]}})
		if err == nil {
			cfg, err = protocol.OverlayConfig(cfg, over)
		}
		note(err)
	}
	note(cfg.Validate())
	if len(faults) > 0 {
		return cfg, usageError{faults}
	}
	return cfg, nil
}

// fileFlags sets flags from a file unless they were given.
func fileFlags(fs *flag.FlagSet, values map[string]string) error {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var faults protocol.Faults
	for name, v := range values {
		switch {
		case given[name]:
		case fs.Lookup(name) == nil:
			faults = append(faults, protocol.Fault{Field: name, Problem: "not a setting of mochi " + fs.Name()})
		default:
			if err := fs.Set(name, v); err != nil {
				faults = append(faults, protocol.Fault{Field: name, Problem: err.Error()})
			}
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}
