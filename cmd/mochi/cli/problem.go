package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"mochi/coordinator/protocol/config"
)

// problem is an error of package pflag in the words of this program.
func (c *Command) problem(err error) string {
	var unknown *pflag.NotExistError
	var bare *pflag.ValueRequiredError
	var bad *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if all := unknown.GetSpecifiedShortnames(); all != "" { // -bogus
			name, _, _ = strings.Cut(all, "=")
		}
		return "unknown flag --" + name + c.similar(name)
	case errors.As(err, &bare):
		return "--" + bare.GetSpecifiedName() + " needs a value"
	case errors.As(err, &bad):
		return fmt.Sprintf("--%s: invalid value %q: %s", bad.GetFlag().Name, bad.GetValue(), whyInvalid(bad))
	}
	return err.Error()
}

// whyInvalid says what is wrong with a flag's value.
func whyInvalid(err *pflag.InvalidValueError) string {
	if f := err.GetFlag(); wanted(f) != "" {
		return "not " + wanted(f)
	}
	return err.Unwrap().Error()
}

// wanted says what the value of a flag of a basic type is, "" for others: those
// say themselves what is wrong.
func wanted(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "int", "int64", "uint64":
		return "a whole number"
	case "float64":
		return "a number"
	case "duration":
		return "a duration, such as 30s"
	case "bool":
		return "true or false"
	}
	return ""
}

// similar proposes a flag for a misspelt one: the same letters, one that begins
// or goes on alike, or the nearest.
func (c *Command) similar(name string) (hint string) {
	letters := func(s string) string { return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s)) }
	var names []string
	c.VisitAll(func(f *pflag.Flag) {
		names = append(names, f.Name)
		a, b := letters(name), letters(f.Name)
		if hint == "" && len(a) > 2 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a)) {
			hint = f.Name
		}
	})
	if is := foreignFlags[strings.ReplaceAll(strings.ToLower(name), "_", "-")]; slices.Contains(names, is) {
		hint = is
	}
	if hint == "" {
		hint = config.Nearest(name, names)
	}
	if hint == "" {
		return ""
	}
	return "; did you mean --" + hint + "?"
}

// foreignFlags are what other trainers call what flags here mean (moco, lightly,
// solo-learn, timm), by their name.
var foreignFlags = map[string]string{
	"learning-rate": "lr", "base-lr": "lr", "batch-size": "batch", "total-batch-size": "batch", "bs": "batch",
	"num-epochs": "epochs", "max-epochs": "epochs", "max-steps": "steps", "wd": "weight-decay",
	"model": "arch", "backbone": "arch", "network": "arch", "architecture": "arch",
	"dataset": "data", "data-dir": "data", "data-path": "data", "train-dir": "data", "root": "data", "input": "data",
	"output": "out", "output-dir": "out", "save-dir": "out", "checkpoint-dir": "out", "exp-dir": "out", "log-dir": "out",
	"img-size": "image-size", "input-size": "image-size", "crop-size": "image-size", "size": "image-size",
	"moco-k": "queue", "queue-size": "queue", "memory-bank-size": "queue", "moco-dim": "dim", "proj-output-dim": "dim", "feature-dim": "dim",
	"moco-t": "temperature", "tau": "temperature", "temp": "temperature", "moco-m": "momentum", "ema": "momentum", "base-tau-momentum": "momentum",
	"num-workers": "workers", "nproc-per-node": "replicas", "world-size": "replicas", "gpus": "device", "gpu": "device", "devices": "device",
	"random-seed": "seed", "resume-from-checkpoint": "resume", "ckpt-path": "resume", "pretrained": "init", "weights": "init", "finetune": "init",
	"amp": "precision", "fp16": "precision", "bf16": "precision", "dtype": "precision", "optim": "optimizer", "opt": "optimizer", "sched": "schedule", "lr-scheduler": "schedule",
	"warmup-epochs": "lr-warmup", "augmentation": "recipe", "aug": "recipe", "knn-k": "k", "ckpt": "checkpoint", "checkpoint-path": "checkpoint",
}
