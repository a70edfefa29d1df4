package main

import (
	"errors"
	"fmt"

	"mochi/coordinator/protocol"
	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
)

// engineFlag is what --engine says in every command's help.
const engineFlag = "`E`: auto, gorgonia (onednn and cuda where they are built in)"

// openEngine makes the engine named by --engine; auto takes the best this
// build and machine have, and why says which and why.
func openEngine(name string, cfg engine.Config) (e engine.Engine, why string, err error) {
	switch name {
	case "auto":
		why = "engine gorgonia: the only one in this build"
	case gorgonia.Name:
		why = "engine gorgonia: as asked"
	case "onednn", "cuda":
		return nil, "", fmt.Errorf("%s is not part of this build; use auto or gorgonia", name)
	default:
		return nil, "", fmt.Errorf("%q is not known; there are auto, gorgonia, onednn, cuda", name)
	}
	if e, err = gorgonia.New(cfg); err != nil {
		return nil, "", err
	}
	return e, why + " (" + e.Info().Device + ")", nil
}

// checkEngine finds out whether an engine can be had, by starting and ending
// one.
func (f *faults) checkEngine(name string, precision string) {
	e, _, err := openEngine(name, engine.Config{Precision: engine.Precision(precision), Threads: 1})
	switch {
	case err == nil:
		e.Close()
	case errors.Is(err, engine.ErrUnsupported):
		f.add("precision", "%v", err)
	default:
		f.add("engine", "%v", err)
	}
}

// engineConfig is the part of a job's configuration that an engine needs.
func engineConfig(c protocol.Config, threads, device int) engine.Config {
	return engine.Config{Precision: engine.Precision(c.Precision), Threads: threads, Device: device}
}
