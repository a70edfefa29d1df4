package main

import (
	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
)

// openEngine opens the engine that mochi would choose, but for a GPU's: the first
// that is built in.
func openEngine() (engine.Engine, error) {
	cfg := engine.Config{Precision: engine.FP32}
	if openFast != nil {
		return openFast(cfg)
	}
	return gorgonia.New(cfg)
}

// openFast opens an engine that is better than gorgonia; nil where none is built in.
var openFast func(engine.Config) (engine.Engine, error)
