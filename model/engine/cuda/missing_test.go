//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cuda/emulator"
	"mochi/model/engine/cuda/fallback"
	"mochi/model/engine/cuda/kernel"
)

// sonames of a library, as package library looks for them.
var sonames = map[string][]string{
	"libcuda":   {"libcuda.so.1"},
	"libcudnn":  {"libcudnn.so.9", "libcudnn.so.8", "libcudnn.so"},
	"libcublas": {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11", "libcublas.so"},
	"libnvrtc":  {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so.11.1", "libnvrtc.so.11.0", "libnvrtc.so"},
}

// without runs a test of this binary once more, where the emulated libraries
// are all there but one, and the machine's own, should it have one, cannot be
// loaded: an empty file stands before it on the loader's way.
func without(t *testing.T, missing, test string, env ...string) (out string, err error) {
	t.Helper()
	from, dir, broken := os.Getenv("MOCHI_CUDA_LIBRARIES"), t.TempDir(), t.TempDir()
	for _, name := range []string{"libcuda.so.1", "libcudnn.so.8", "libcublas.so.12", "libnvrtc.so.12", "libkernels.so"} {
		if strings.HasPrefix(name, missing+".") {
			continue
		}
		if err := os.Link(filepath.Join(from, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range sonames[missing] {
		if err := os.WriteFile(filepath.Join(broken, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), "MOCHI_TEST_WITHOUT="+missing, "MOCHI_CUDA_LIBRARIES="+dir, "LD_LIBRARY_PATH="+broken), env...)
	all, err := cmd.CombinedOutput()
	return string(all), err
}

// Without a library the engine is not supported, and says what was looked for;
// without a driver too.
func TestMissingLibraries(t *testing.T) {
	emulator.Only(t)
	if os.Getenv("MOCHI_TEST_WITHOUT") != "" {
		_, err := New(engine.Config{})
		if !errors.Is(err, engine.ErrUnsupported) {
			t.Errorf("%v does not wrap ErrUnsupported", err)
		}
		fmt.Println("says:", err)
		return
	}
	for missing, says := range map[string]string{
		"libcuda":   "cannot open",
		"libcudnn":  "cuDNN: looked for",
		"libcublas": "cuBLAS: looked for",
	} {
		if out, err := without(t, missing, t.Name()); err != nil || !strings.Contains(out, says) || !strings.Contains(out, sonames[missing][0]) {
			t.Errorf("without %s: %v\n%s", missing, err, out)
		}
	}
}

// Without NVRTC the engine takes the kernels that the build has, says so, and
// finds all of them with the parameters that it will give; where the build has
// none, it is not supported, and says both. The emulated GPU cannot execute
// PTX: that the driver loads it, and what it computes, is gpucheck's to show.
func TestWithoutNVRTC(t *testing.T) {
	emulator.Only(t)
	_, none := fallback.For(kernel.Source(), 80)
	if os.Getenv("MOCHI_TEST_WITHOUT") == "" {
		if none != nil && os.Getenv("MOCHI_TEST_GPU") != "" {
			t.Error(none) // make test-gpu makes them
		}
		if out, err := without(t, "libnvrtc", t.Name()); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		// With NVRTC there, but not wanted.
		t.Setenv("MOCHI_TEST_WITHOUT", "nothing")
		t.Setenv(withoutNVRTC, "none")
	}
	emulator.Record(t)
	if none != nil {
		if _, err := New(engine.Config{}); !errors.Is(err, engine.ErrUnsupported) || !strings.Contains(err.Error(), "NVRTC") || !strings.Contains(err.Error(), "this build") {
			t.Errorf("with no kernels in the build: %v", err)
		}
		return
	}
	e := start(t, engine.Config{})
	info := e.Info()
	if !strings.Contains(info.Device, "kernels of the build") || !strings.HasPrefix(info.Versions["ptx"], "compute_80 by NVRTC ") ||
		info.Versions["nvrtc"] != "" || !strings.Contains(info.Numerics, " compute_80 ") {
		t.Errorf("%+v", info)
	}
	if record := emulator.Record(t); count(record, "module of PTX for sm_80") != 1 || count(record, "module of NVRTC") != 0 {
		t.Errorf("loaded:\n%s", strings.Join(record, "\n"))
	}
	_, p := ready(t, e, small(t), engine.Spec{Batch: 2})
	if err := p.Forward(values(p.calls.Images(), 1), make([]float32, p.calls.Embeddings())); err != nil {
		t.Error(err)
	}
}

// A device for which neither NVRTC nor the build has kernels is not supported;
// one that this NVRTC no longer compiles for gets the build's.
func TestOldDevices(t *testing.T) {
	emulator.Only(t)
	if _, err := compileKernels(6, 1); !errors.Is(err, engine.ErrUnsupported) || !strings.Contains(err.Error(), "compute capability 6.1") {
		t.Errorf("6.1: %v", err)
	}
	k, err := compileKernels(7, 2) // the emulated NVRTC has 7.0: PTX
	if err != nil || k.embedded || k.target.String() != "compute_70" {
		t.Errorf("7.2: %v %v", k.target, err)
	}
}
