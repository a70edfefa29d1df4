package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mochi/model/engine"
)

// auto takes the first engine of the list that this build has and that can do
// what is asked, and says why not an earlier one.
func TestEngineAuto(t *testing.T) {
	have := builtIn()
	e, why, err := openEngine("auto", engine.Config{Precision: engine.FP32, Threads: 1})
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
	if _, _, err := openEngine("gorgonia", engine.Config{Precision: engine.BF16, Threads: 1}); !errors.Is(err, engine.ErrUnsupported) {
		t.Errorf("gorgonia in bf16: %v", err)
	}
	_, _, err := openEngine("auto", engine.Config{Precision: "fp64", Threads: 1})
	if !errors.Is(err, engine.ErrUnsupported) || !strings.Contains(err.Error(), "gorgonia") {
		t.Errorf("fp64: %v", err)
	}
	for _, name := range []string{"cuda", "abacus"} {
		if _, _, err := openEngine(name, engine.Config{Threads: 1}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// --device is for GPUs: a CPU engine refuses it, and faults of its form are
// said with all others.
func TestDeviceOfCPUEngine(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 40, 8)
	out := filepath.Join(t.TempDir(), "run")
	train := append([]string{"train", "--data", data, "--out", out, "--engine", "gorgonia"}, tiny...)
	refused(t, 2, append(train, "--device", "1"), "device: chooses a GPU, and engine gorgonia computes on the CPU")
	refused(t, 2, append(train, "--device", "0,1", "--replicas", "3"), "device: names 2 GPUs for 3 replicas")
	refused(t, 2, append(train, "--device", "0,x"), `--device`, `"x" is no GPU number; write 2, or 0,1`)
	refused(t, 2, append(train, "--device", "-1"), `"-1" is no GPU number`)
	refused(t, 2, append(train, "--replicas", "1000000000"), "a batch of 16 has only 4 groups")
	refused(t, 2, []string{"replica", "--join", "nats://127.0.0.1:1", "--data", data, "--engine", "gorgonia", "--device", "0"}, "device: chooses a GPU")
	if _, err := os.Stat(out); err == nil {
		t.Error("a refused command has made its folder")
	}
}

// mochi version names what a report of a fault needs.
func TestVersion(t *testing.T) {
	status, out, _ := call("version")
	want := regexp.MustCompile(`^mochi \S+ \(build [0-9a-f]{16}, engines (\w+ )*gorgonia, JPEG by (libjpeg-turbo \d+\.\d+.*|Go's image/jpeg)\)\n$`)
	if status != 0 || !want.MatchString(out) {
		t.Errorf("status %d: %q", status, out)
	}
}
