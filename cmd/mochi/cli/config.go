package cli

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"mochi/coordinator/protocol/config"
)

// Training collects the configuration from --preset, --config and
// flags: flags win over the file, the file over the preset.
type Training struct {
	preset, file string
	set          map[string]string // flags given, by YAML key
}

// AddTraining adds --preset, --config and the settings that use keeps.
func AddTraining(fs *FlagSet, use func(name string) bool) *Training {
	t := &Training{set: map[string]string{}}
	fs.StringVar(&t.preset, "preset", "", "`NAME` of the paper's settings: "+strings.Join(config.Presets(), ", "))
	fs.StringVar(&t.file, "config", "", "YAML `FILE` of settings, such as a RUN's config.yaml")
	for _, s := range config.Settings() {
		if !use(s.Name) {
			continue
		}
		fs.settings = append(fs.settings, s.Name)
		note := func(v string) error { t.set[s.Name] = v; return nil }
		if s.Arg == "" {
			fs.BoolFunc(s.Name, s.Help, note)
		} else {
			fs.Func(s.Name, fmt.Sprintf("`%s`: %s (default %s)", s.Arg, s.Help, s.Default), note)
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
		f.AddErr(name, cfg.Set(name, t.set[name]))
	}
	adjust(&cfg)
	f.AddErr("configuration", cfg.Validate())
	return cfg
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
