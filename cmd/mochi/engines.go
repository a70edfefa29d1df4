package main

import (
	"fmt"

	"mochi/coordinator/protocol"
	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
)

// openEngine makes the engine named by --engine; auto takes the best this
// build and machine have, and why says which and why.
func openEngine(name string, cfg engine.Config) (e engine.Engine, why string, err error) {
	switch name {
	case "auto":
		e, err = gorgonia.New(cfg)
		why = "engine gorgonia: the only one in this build"
	case "gorgonia":
		e, err = gorgonia.New(cfg)
		why = "engine gorgonia: as asked"
	case "onednn", "cuda":
		return nil, "", usagef("--engine %s is not part of this build; use --engine auto or gorgonia", name)
	default:
		return nil, "", usagef("--engine %q: one of auto, gorgonia, onednn, cuda", name)
	}
	if err != nil {
		return nil, "", fmt.Errorf("start engine %s: %w", name, err)
	}
	return e, why + " (" + e.Info().Device + ")", nil
}

// engineConfig is the part of a job's configuration that an engine needs.
func engineConfig(c protocol.Config, threads, device int) engine.Config {
	return engine.Config{Precision: engine.Precision(c.Precision), Threads: threads, Device: device}
}
