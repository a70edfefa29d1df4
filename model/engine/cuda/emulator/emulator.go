// Package emulator stands in for a GPU in tests: libraries with the names of
// NVIDIA's, made from C by the test, that record and check every call and
// compute on the CPU, slowly and by definition. With it the whole engine runs
// on a machine without a GPU, from the trampolines of package driver to the
// gradients. What it shows is that calls come in a right order with right
// shapes, strides, sizes and buffers, and that the numbers are right if the
// libraries do what their references say. It says nothing about time, nor
// about what NVIDIA's libraries do beyond or against their references.
//
//	cuda.c   libcuda.so.1: memory between guards, streams that run their work
//	         as late as is allowed, two devices of compute capability 8.0
//	dnn.c    libcudnn.so.8: descriptors, algorithms, workspaces, convolutions
//	blas.c   libcublas.so.12: leading dimensions, products
//	nvrtc.c  libnvrtc.so.12: no compiler; it only answers
//	kernels  libkernels.so: package kernel's source on the CPU, by the same
//	         host header as its own tests
//
// A test binary calls Main from TestMain. Faults that the emulated libraries
// find fail the binary even where the code under test forgets an error.
package emulator

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"mochi/model/engine/cuda/kernel"
)

//go:embed emu.h
var header []byte

//go:embed cuda.c
var cudaSource []byte

//go:embed dnn.c
var dnnSource []byte

//go:embed blas.c
var blasSource []byte

//go:embed nvrtc.c
var nvrtcSource []byte

// The environment of a test binary that runs on the emulator.
const (
	folder  = "MOCHI_CUDA_LIBRARIES" // as packages driver and library read it
	logFile = "MOCHI_EMULATOR_LOG"
)

// Build makes the emulated libraries in dir.
func Build(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "emu.h"), header, 0o644); err != nil {
		return err
	}
	for _, l := range []struct {
		soname string
		source []byte
		needs  string
	}{
		{"libcuda.so.1", cudaSource, ""},
		{"libcudnn.so.8", dnnSource, "libcuda.so.1"},
		{"libcublas.so.12", blasSource, "libcuda.so.1"},
		{"libnvrtc.so.12", nvrtcSource, ""},
	} {
		source := filepath.Join(dir, l.soname+".c")
		if err := os.WriteFile(source, l.source, 0o644); err != nil {
			return err
		}
		args := []string{"-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-Wl,-soname," + l.soname, "-o", filepath.Join(dir, l.soname), source}
		if l.needs != "" {
			args = append(args, "-Wl,-rpath,$ORIGIN", filepath.Join(dir, l.needs))
		}
		if err := compile("gcc", append(args, "-lpthread", "-ldl")...); err != nil {
			return err
		}
	}
	return nil
}

// BuildKernels makes libkernels.so beside them. It is apart because compiling
// takes some seconds.
func BuildKernels(dir string) error {
	root, err := repository()
	if err != nil {
		return err
	}
	var text strings.Builder
	testdata := filepath.Join(root, "model/engine/cuda/kernel/testdata")
	fmt.Fprintf(&text, "#include %q\n#include <string>\n%s\n", filepath.Join(testdata, "host.h"), kernel.Source())
	text.WriteString("static void (*dispatch(const std::string &))(void **) { return nullptr; }\n")
	// Its main answers requests; here launches come by emu_kernels.
	fmt.Fprintf(&text, "#define main host_main\n#include %q\n#undef main\n", filepath.Join(testdata, "host.cpp"))
	text.WriteString(table())
	source := filepath.Join(dir, "kernels.cpp")
	if err := os.WriteFile(source, []byte(text.String()), 0o644); err != nil {
		return err
	}
	return compile("g++", "-std=c++17", "-O1", "-w", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-shared",
		"-I"+dir, "-o", filepath.Join(dir, "libkernels.so"), source)
}

// table is C++ that lists every kernel for cuda.c.
func table() string {
	var b strings.Builder
	b.WriteString("extern \"C\" {\n#include \"emu.h\"\n}\n")
	b.WriteString("static void start_launch(const unsigned long long *a, const unsigned *g, const unsigned *bl, unsigned shared, void (*f)(void **)) {\n" +
		"    void *list[32];\n    for (int i = 0; i < 32; i++) list[i] = (void *)&a[i];\n    arguments = list; kernel = f; body = call;\n" +
		"    launch({g[0], g[1], g[2]}, {bl[0], bl[1], bl[2]}, shared, 0);\n}\n")
	b.WriteString("extern \"C\" const emu_kernel emu_kernels[] = {\n")
	for _, k := range kernel.Table {
		names := map[string]string{k.Name: ""}
		if k.Typed {
			names = map[string]string{kernel.Name(k.Name, kernel.F32): "float", kernel.Name(k.Name, kernel.BF16): "bf16"}
		}
		for name, t := range names {
			var args []string
			for i, p := range k.Params {
				args = append(args, fmt.Sprintf("*(%s *)a[%d]", strings.ReplaceAll(string(p.Kind), "T *", t+" *"), i))
			}
			fmt.Fprintf(&b, "{%q, %d, [](const unsigned long long *a, const unsigned *g, const unsigned *bl, unsigned s) {\n"+
				"    start_launch(a, g, bl, s, [](void **a) { %s(%s); }); }},\n", name, len(k.Params), name, strings.Join(args, ", "))
		}
	}
	b.WriteString("{nullptr, 0, nullptr}};\n")
	return b.String()
}

func compile(compiler string, args ...string) error {
	if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", compiler, err, out)
	}
	return nil
}

// repository is the folder with go.mod.
func repository() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// realGPU is the environment variable with which a test binary runs on the
// machine's own GPU and libraries instead; tools/gpucheck sets it.
const realGPU = "MOCHI_TEST_REAL_GPU"

// Only skips a test that is about the emulator's records or devices where
// there is none.
func Only(t testing.TB) {
	t.Helper()
	if os.Getenv(realGPU) != "" {
		t.Skip("a test of calls and faults, on the emulated GPU only")
	}
}

// Main runs a test binary on the emulator: it builds the libraries and runs
// the binary again with them, because a program opens libcuda.so.1 before
// main. It returns the exit status.
func Main(m *testing.M, kernels bool) int {
	if os.Getenv(realGPU) != "" {
		return m.Run()
	}
	if os.Getenv(logFile) != "" {
		status := m.Run()
		for _, fault := range faults(unread()) {
			fmt.Fprintln(os.Stderr, "emulator:", fault)
			status = 1
		}
		return status
	}
	dir, err := os.MkdirTemp("", "mochi-emulator-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = Build(dir)
	}
	if err == nil && kernels {
		err = BuildKernels(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "emulator:", err)
		return 1
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), folder+"="+dir, logFile+"="+filepath.Join(dir, "log"), "XDG_CACHE_HOME="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) {
			fmt.Fprintln(os.Stderr, "emulator:", err)
		}
		return 1
	}
	return 0
}

// read is how far the log has been read.
var read struct {
	sync.Mutex
	offset int64
}

func unread() []string {
	read.Lock()
	defer read.Unlock()
	f, err := os.Open(os.Getenv(logFile))
	if err != nil {
		return nil // nothing was recorded yet
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := f.Seek(read.offset, 0); err != nil {
		return []string{"FAULT " + err.Error()}
	}
	n, err := b.ReadFrom(f)
	if err != nil {
		return []string{"FAULT " + err.Error()}
	}
	read.offset += n
	return strings.Split(strings.TrimSpace(b.String()), "\n")
}

func faults(lines []string) (found []string) {
	for _, l := range lines {
		if strings.HasPrefix(l, "FAULT ") {
			found = append(found, l)
		}
	}
	return found
}

// Record returns what was recorded since the last call, one line a call that
// reaches the device; it fails t where a fault is among them.
func Record(t testing.TB) []string {
	t.Helper()
	lines := unread()
	for _, fault := range faults(lines) {
		t.Error(fault)
	}
	return lines
}

// Fault returns the faults recorded since the last call, for a test that
// provokes one; it fails t where there is none.
func Fault(t testing.TB) []string {
	t.Helper()
	found := faults(unread())
	if len(found) == 0 {
		t.Error("the emulator has found no fault")
	}
	return found
}
