// Command fidelity shows what mochi's packages compute, for run.py to compare
// with independent code. It is the only part of tools/fidelity that uses mochi.
//
//	go run ./tools/fidelity PART SPEC OUT
//
// SPEC is a JSON object, OUT a file in the layout of safetensors. Parts, and the
// fields of their specifications, are the functions of parts.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// parts are what can be shown.
var parts = map[string]func(spec []byte, out *tensors) error{
	"draws":    as(showDraws),
	"views":    as(showViews),
	"decoded":  as(showDecoded),
	"features": as(showFeatures),
	"order":    as(showOrder),
	"rates":    as(showRates),
	"mixing":   as(showMixing),
	"step":     as(showStep),
	"eval":     as(showEval),
}

// as reads a specification into what a part wants.
func as[T any](part func(T, *tensors) error) func([]byte, *tensors) error {
	return func(text []byte, out *tensors) error {
		var spec T
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&spec); err != nil {
			return fmt.Errorf("the specification: %w", err)
		}
		return part(spec, out)
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fidelity:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	names := strings.Join(slices.Sorted(maps.Keys(parts)), ", ")
	if len(args) != 3 {
		return errors.New("want a part, its specification and a file: the parts are " + names)
	}
	part := parts[args[0]]
	if part == nil {
		return fmt.Errorf("no part is called %q; there are %s", args[0], names)
	}
	var out tensors
	if err := part([]byte(args[1]), &out); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return out.write(args[2])
}
