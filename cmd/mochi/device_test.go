package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

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
