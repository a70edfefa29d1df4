//go:build gpu

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/model/engine/cuda/emulator"
)

// onGPUs lets processes that the test starts find an emulated GPU, n times, and
// returns where it records calls.
func onGPUs(t *testing.T, n string) (record string) {
	t.Helper()
	dir := t.TempDir()
	if err := emulator.Build(dir); err != nil {
		t.Fatal(err)
	}
	if err := emulator.BuildKernels(dir); err != nil {
		t.Fatal(err)
	}
	record = filepath.Join(dir, "record")
	for name, value := range map[string]string{
		"MOCHI_CUDA_LIBRARIES": dir, "MOCHI_EMULATOR_DEVICES": n, "MOCHI_EMULATOR_LOG": record, "XDG_CACHE_HOME": dir,
	} {
		t.Setenv(name, value)
	}
	return record
}

// The program on emulated GPUs.
func TestGPU(t *testing.T) {
	record := onGPUs(t, "2")
	t.Run("replicas", func(t *testing.T) { replicasTakeGPUs(t, record) })
	t.Run("status", statusOfGPU)
	t.Run("loss", func(t *testing.T) { lossOnGPU(t, record) })
}

// Replicas take GPU 0, 1, … or those that --device names, and give the
// checkpoint that one replica gives, to the bit. More than there are is
// refused before anything starts.
func replicasTakeGPUs(t *testing.T, record string) {
	data := writeIDX(t, t.TempDir(), 40, 8)
	root := t.TempDir()
	used := func() (devices string) {
		text, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "FAULT") {
			t.Error("the emulator has found faults")
		}
		if !strings.Contains(string(text), "launch contrast_mix\n") {
			t.Error("the loss was not computed on the GPU")
		}
		for _, d := range []string{"0", "1", "2"} {
			if strings.Contains(string(text), "context of device "+d+"\n") {
				devices += d
			}
		}
		if err := os.Remove(record); err != nil {
			t.Fatal(err)
		}
		return devices
	}
	train := func(name string, args ...string) (run string, p *process) {
		run = filepath.Join(root, name)
		all := append([]string{"train", "--data", data, "--out", run, "--engine", "cuda", "--steps", "2"}, tiny...)
		return run, start(t, append(all, args...)...)
	}
	ends := func(name, devices string, args ...string) string {
		t.Helper()
		run, p := train(name, args...)
		p.mustEnd(0)
		if got := used(); got != devices {
			t.Errorf("%v: devices %q are used, want %q", args, got, devices)
		}
		if strings.Contains(p.errs.String(), "one BatchNorm group at a time") {
			t.Errorf("%v: groups are not computed together:\n%s", args, p.errs.String())
		}
		return run
	}
	one := ends("one", "0")
	mustEqual(t, one, ends("two", "01", "--replicas", "2"))
	inShard := ends("shard", "0", "--pairs", "shard")
	mustEqual(t, inShard, ends("spread", "01", "--replicas", "2", "--queue-copies", "2")) // shards apart, queries together
	mustEqual(t, one, ends("second", "1", "--device", "1"))
	mustEqual(t, one, ends("shared", "1", "--device", "1,1"))
	// Several groups in one program give the same bits, since the emulator's
	// convolutions do not depend on how many samples there are.
	mustEqual(t, one, ends("together", "0", "--groups-at-once", "2"))
	mustEqual(t, one, ends("together-two", "01", "--groups-at-once", "2", "--replicas", "2"))
	mustEqual(t, inShard, ends("together-spread", "01", "--groups-at-once", "2", "--replicas", "2", "--queue-copies", "2"))
	mustEqual(t, one, ends("together-all", "0", "--groups-at-once", "4"))

	refuse := func(args []string, says ...string) {
		t.Helper()
		run, p := train("refused", args...)
		p.mustEnd(2)
		for _, w := range says {
			if !strings.Contains(p.errs.String(), w) {
				t.Errorf("%v: does not say %q:\n%s", args, w, p.errs.String())
			}
		}
		if _, err := os.Stat(run); err == nil {
			t.Errorf("%v: the run was begun", args)
		}
	}
	refuse([]string{"--replicas", "3"}, "device 2: there are devices 0 to 1", "3 replicas take GPU 0 to 2: start fewer, or let some share one with --device")
	refuse([]string{"--device", "0,2"}, "device 2: there are devices 0 to 1")
}

// mochi bench loss computes the loss on the GPU, to which keys go once.
func lossOnGPU(t *testing.T, record string) {
	os.Remove(record)
	var r struct {
		Device float64 `json:"device_mb"`
		Engine string
	}
	if err := json.Unmarshal([]byte(mochi(t, "bench", "loss", "--engine", "cuda", "--batch", "3", "--queue", "2000", "--dim", "32", "--mochi", "20,10,5",
		"--iterations", "3", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	count := func(what string) int { return strings.Count(string(text), what+"\n") }
	// With MoCHi and without, each once more than it is timed.
	if r.Engine != "cuda" || r.Device < 2000*32*4/1e6 || count("launch contrast_scan") != 8 || count("launch contrast_mix") != 4 || count("launch contrast_put_f32") != 4 {
		t.Errorf("%+v, scan %d, mix %d, put %d", r, count("launch contrast_scan"), count("launch contrast_mix"), count("launch contrast_put_f32"))
	}
	if strings.Contains(string(text), "FAULT") {
		t.Error("the emulator has found faults")
	}
}

// mochi status shows what a replica on a GPU stands on.
func statusOfGPU(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 40, 8)
	addr := freePort(t)
	state := filepath.Join(t.TempDir(), "run")
	c := start(t, append([]string{"coordinator", "--listen", addr, "--state", state}, tiny...)...)
	r := start(t, "replica", "--join", "nats://"+addr, "--data", data, "--engine", "cuda", "--device", "0", "--name", "a")
	awaitStep(t, state, 1, c)
	var status struct {
		Replicas []struct {
			Engine, Device string
			Versions       map[string]string
		}
	}
	if err := json.Unmarshal([]byte(mochi(t, "status", "--join", "nats://"+addr, "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if len(status.Replicas) != 1 {
		t.Fatalf("%+v", status)
	}
	s := status.Replicas[0]
	if s.Engine != "cuda" || !strings.HasPrefix(s.Device, "GPU 0: Emulated GPU, ") || s.Versions["cudnn"] != "8.9.7" ||
		s.Versions["cublas"] != "12.1" || s.Versions["nvrtc"] != "12.4" || s.Versions["cuda"] != "12.4" {
		t.Errorf("%+v", s)
	}
	if text := mochi(t, "status", "--join", "nats://"+addr); !strings.Contains(text, "cublas 12.1, cuda 12.4, cudnn 8.9.7") {
		t.Errorf("the text:\n%s", text)
	}
	r.cmd.Process.Kill()
	c.cmd.Process.Kill()
}
