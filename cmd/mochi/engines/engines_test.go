package engines

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"mochi/model/engine"
)

// auto takes the first engine of the list that this build has and that can do
// what is asked, and says why not an earlier one.
func TestEngineAuto(t *testing.T) {
	have := BuiltIn()
	e, why, err := Open("auto", engine.Config{Precision: engine.FP32, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if got := e.Info(); got.Name != have[0] || got.Numerics == "" {
		t.Errorf("%+v of %v", got, have)
	}
	if !strings.Contains(why, "engine "+have[0]) || !slices.Contains(have, "onednn") && !strings.Contains(why, "libdnnl-dev") {
		t.Errorf("says only: %s", why)
	}
}

func TestEngineCannot(t *testing.T) {
	if _, _, err := Open("gorgonia", engine.Config{Precision: engine.BF16, Threads: 1}); !errors.Is(err, engine.ErrUnsupported) {
		t.Errorf("gorgonia in bf16: %v", err)
	}
	_, _, err := Open("auto", engine.Config{Precision: "fp64", Threads: 1})
	if !errors.Is(err, engine.ErrUnsupported) || !strings.Contains(err.Error(), "gorgonia") {
		t.Errorf("fp64: %v", err)
	}
	for _, name := range []string{"cuda", "abacus"} {
		if _, _, err := Open(name, engine.Config{Threads: 1}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
