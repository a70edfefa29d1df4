// Package engines lists the engines of this build and opens the one that
// --engine names, or the best that works here. It checks --engine, --device and
// --precision before anything is started, and knows the identity of the build.
package engines

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
)

// AddFlag adds --engine to a command; note says what it is for, where that is
// not plain.
func AddFlag(c *cli.Command, name *string, note string) {
	words := []string{"auto"}
	for _, b := range builders() {
		words = append(words, b.name)
	}
	c.StringVar(name, "engine", "auto", "`E`: auto (the best that is built in and works here), "+strings.Join(words[1:], ", ")+note)
	c.Complete("engine", words...)
}

// TuneHelp is what --tune says in every command's help.
const TuneHelp = "choose convolution algorithms by measurement, once on this machine (engine cuda); replicas must have the choices in common"

// builder is an engine that mochi knows. open is nil where this build does not
// have it; missing then says what would bring it.
type builder struct {
	name     string
	open     func(engine.Config) (engine.Engine, error)
	missing  string
	expected bool // auto says so where this build does not have it
	gpu      bool // it computes on the GPU that engine.Config.Device numbers
}

// builders lists the engines, the best first.
func builders() []builder {
	return []builder{
		cudaBuilder(),
		onednnBuilder(),
		{name: gorgonia.Name, open: gorgonia.New},
	}
}

// BuiltIn names the engines of this build, the best first.
func BuiltIn() []string {
	var names []string
	for _, b := range builders() {
		if b.open != nil {
			names = append(names, b.name)
		}
	}
	return names
}

// Open makes the engine named by --engine; auto takes the best that this
// build has and this machine can run, and why says which and why.
func Open(name string, cfg engine.Config) (e engine.Engine, why string, err error) {
	var known, passed []string
	var unsupported error // why none will do: ErrPrecision before other reasons
	for _, b := range builders() {
		known = append(known, b.name)
		switch {
		case name != "auto" && name != b.name:
		case b.open != nil:
			if e, err = b.open(cfg); err == nil {
				return e, chosen(name, e.Info(), passed), nil
			}
			if name != "auto" || !errors.Is(err, engine.ErrUnsupported) {
				return nil, "", err
			}
			if !errors.Is(unsupported, engine.ErrPrecision) {
				unsupported = engine.ErrUnsupported
				if errors.Is(err, engine.ErrPrecision) {
					unsupported = engine.ErrPrecision
				}
			}
			passed = append(passed, err.Error())
		case name != "auto":
			return nil, "", fmt.Errorf("%s is not part of this build (%s); it has %s", name, b.missing, strings.Join(BuiltIn(), " and "))
		case b.expected:
			passed = append(passed, "engine "+b.name+" is not part of this build ("+b.missing+")")
		}
	}
	if unsupported != nil {
		return nil, "", fmt.Errorf("no engine of this build can do it (%w): %s", unsupported, strings.Join(passed, "; "))
	}
	return nil, "", fmt.Errorf("%q is not known; there are auto, %s", name, strings.Join(known, ", "))
}

// chosen says which engine runs and why, on one line.
func chosen(name string, info engine.Info, passed []string) string {
	why := "the best of this build"
	switch {
	case name != "auto":
		why = "as asked"
	case len(passed) > 0:
		why = strings.Join(passed, "; ")
	}
	return fmt.Sprintf("engine %s: %s (%s)", info.Name, why, WithVersions(info.Device, info.Versions))
}

// WithVersions is a device and the versions of what its engine stands on:
// "CPU, 2 threads, AVX2 kernels; onednn 2.6.3".
func WithVersions(device string, versions map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		list = append(list, name+" "+versions[name])
	}
	if len(list) == 0 {
		return device
	}
	return device + "; " + strings.Join(list, ", ")
}

// Check finds out whether an engine can be had, by starting and ending one, and
// what it would be. Where none can be, it tells f, and the name in Info is "".
func Check(f *cli.Faults, name string, cfg engine.Config) engine.Info {
	info, err := probe(name, cfg)
	refuse(f, err, "")
	return info
}

// probe starts and ends an engine.
func probe(name string, cfg engine.Config) (engine.Info, error) {
	e, _, err := Open(name, cfg)
	if err != nil {
		return engine.Info{}, err
	}
	defer e.Close()
	return e.Info(), nil
}

// refuse tells f why an engine cannot be had, if err does, and a hint.
func refuse(f *cli.Faults, err error, hint string) {
	switch {
	case err == nil:
	case errors.Is(err, engine.ErrPrecision):
		f.Add("precision", "%v%s", err, hint)
	default: // a device or library that is missing, too
		f.Add("engine", "%v%s", err, hint)
	}
}

// onGPU says whether the engine described computes on a GPU.
func onGPU(info engine.Info) bool {
	return slices.ContainsFunc(builders(), func(b builder) bool { return b.gpu && b.name == info.Name })
}

// ConfigOf is the part of a job's configuration that an engine needs.
func ConfigOf(c config.Job, threads, device int) engine.Config {
	return engine.Config{Precision: engine.Precision(c.Precision), Threads: threads, Device: device}
}
