//go:build gpu

package library

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/emulator"
	"mochi/model/engine/cuda/kernel"
)

func TestMain(m *testing.M) { os.Exit(emulator.Main(m, false)) }

// gpu opens the emulated device for one test.
func gpu(t *testing.T) (*driver.Device, driver.Stream) {
	t.Helper()
	d, err := driver.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	leave, err := d.Enter()
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, err := range []error{s.Close(), d.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
		leave()
	})
	return d, s
}

// opened is cuDNN, open until the test ends.
func opened(t *testing.T, s driver.Stream) *DNN {
	t.Helper()
	dnn, err := OpenDNN(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dnn.Close() })
	return dnn
}

// upload allocates and fills; download reads all of it.
func upload(t *testing.T, d *driver.Device, s driver.Stream, values []float32) driver.Memory {
	t.Helper()
	m, err := d.Alloc(4 * len(values))
	if err == nil {
		err = s.Upload(m.Pointer, values)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Release() })
	return m
}

func download(t *testing.T, s driver.Stream, m driver.Memory, n int) []float32 {
	t.Helper()
	v := make([]float32, n)
	if err := s.Download(v, m.Pointer); err != nil {
		t.Fatal(err)
	}
	if err := s.Synchronize(); err != nil {
		t.Fatal(err)
	}
	return v
}

// rising is 1, 2, 3, …, small enough that sums are exact.
func rising(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i%7 + 1)
	}
	return v
}

func TestConv(t *testing.T) {
	emulator.Only(t)
	d, s := gpu(t)
	dnn := opened(t, s)
	if dnn.Version != 8907 || VersionDNN(dnn.Version) != "8.9.7" || VersionDNN(90100) != "9.1.0" || !strings.HasSuffix(dnn.Name, "libcudnn.so.8") {
		t.Errorf("%s, version %s", dnn.Name, VersionDNN(dnn.Version))
	}
	g := Geometry{N: 2, H: 5, W: 5, C: 3, K: 4, OH: 3, OW: 3, Kernel: 3, Stride: 2, Pad: 1}
	c, err := dnn.NewConv(g)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for dir := Forward; dir <= FilterGrad; dir++ {
		a, err := c.Choose(dir, 1<<20)
		// The first offers are not deterministic, too large, not implemented and
		// for tensor cores; the last reports another math than fp32's.
		if want := (Algorithm{Number: 4, Math: fmaMath, Workspace: 1000 + 8*(4+int(dir)), Milliseconds: 4}); err != nil || a != want {
			t.Errorf("%v: %+v, %v; want %+v", dir, a, err, want)
		}
	}
	if want := 1000 + 8*(4+2); c.Workspace() != want {
		t.Errorf("workspace of %d bytes, want %d", c.Workspace(), want)
	}
	xv, wv, dyv := rising(2*5*5*3), rising(4*3*3*3), rising(2*3*3*4)
	x, w, dy := upload(t, d, s, xv), upload(t, d, s, wv), upload(t, d, s, dyv)
	y, dx, dw := upload(t, d, s, make([]float32, len(dyv))), upload(t, d, s, make([]float32, len(xv))), upload(t, d, s, make([]float32, len(wv)))
	space, err := d.Alloc(c.Workspace())
	if err != nil {
		t.Fatal(err)
	}
	defer space.Release()
	for _, err := range []error{
		c.Run(Forward, x.Pointer, w.Pointer, y.Pointer, space),
		c.Run(DataGrad, dy.Pointer, w.Pointer, dx.Pointer, space),
		c.Run(FilterGrad, x.Pointer, dy.Pointer, dw.Pointer, space),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	wantY, wantX, wantW := make([]float32, len(dyv)), make([]float32, len(xv)), make([]float32, len(wv))
	for n := range 2 {
		for oy := range 3 {
			for ox := range 3 {
				for r := range 3 {
					for q := range 3 {
						iy, ix := 2*oy-1+r, 2*ox-1+q
						if iy < 0 || ix < 0 || iy > 4 || ix > 4 {
							continue
						}
						for k := range 4 {
							for ch := range 3 {
								xi, wi, yi := ((n*5+iy)*5+ix)*3+ch, ((k*3+r)*3+q)*3+ch, ((n*3+oy)*3+ox)*4+k
								wantY[yi] += xv[xi] * wv[wi]
								wantX[xi] += dyv[yi] * wv[wi]
								wantW[wi] += xv[xi] * dyv[yi]
							}
						}
					}
				}
			}
		}
	}
	for _, v := range []struct {
		name string
		m    driver.Memory
		want []float32
	}{{"y", y, wantY}, {"dx", dx, wantX}, {"dw", dw, wantW}} {
		if got := download(t, s, v.m, len(v.want)); !slices.Equal(got, v.want) {
			t.Errorf("%s is %v, want %v", v.name, got, v.want)
		}
	}
	record := strings.Join(emulator.Record(t), "\n")
	if !strings.Contains(record, "conv filter x 2,5,5,3 w 4,3,3 y 2,3,3,4 type 0") {
		t.Errorf("recorded:\n%s", record)
	}

	// What the emulator is for: wrong buffers and shapes are seen.
	for name, run := range map[string]func() error{
		"small workspace": func() error {
			return c.Run(Forward, x.Pointer, w.Pointer, y.Pointer, driver.Memory{Pointer: space.Pointer, Bytes: 8})
		},
		"x and y in each other's place": func() error { return c.Run(Forward, y.Pointer, w.Pointer, x.Pointer, space) },
		"not aligned":                   func() error { return c.Run(Forward, x.Pointer.Add(4), w.Pointer, y.Pointer, space) },
	} {
		if run() == nil {
			t.Errorf("%s: no error", name)
		}
		emulator.Fault(t)
	}
	wrong := g
	wrong.OH = 2
	c2, err := dnn.NewConv(wrong)
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	if _, err := c2.Choose(Forward, 1<<20); err == nil {
		t.Error("a wrong output height gives no error")
	}
	emulator.Fault(t)
}

// The fastest is taken, with the arithmetic of the precision, if there is room
// for it; one that was taken before needs no measurement.
func TestMeasure(t *testing.T) {
	emulator.Only(t)
	d, s := gpu(t)
	dnn := opened(t, s)
	for _, v := range []struct {
		tf32 bool
		math int
	}{{false, fmaMath}, {true, 1}} {
		c, err := dnn.NewConv(Geometry{N: 1, H: 4, W: 4, C: 4, K: 4, OH: 4, OW: 4, Kernel: 1, Stride: 1, TF32: v.tf32})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		x, w, y := upload(t, d, s, rising(64)), upload(t, d, s, rising(16)), upload(t, d, s, make([]float32, 64))
		room, err := c.Room(DataGrad, 1<<20)
		if want := 5000 + 8; err != nil || room != want {
			t.Errorf("room for %d bytes, %v; want %d", room, err, want)
		}
		space, err := d.Alloc(room)
		if err != nil {
			t.Fatal(err)
		}
		defer space.Release()
		a, err := c.Measure(DataGrad, y.Pointer, w.Pointer, x.Pointer, space)
		if want := (Algorithm{Number: 5, Math: v.math, Workspace: 5008, Milliseconds: float64(float32(0.2))}); err != nil || a != want {
			t.Errorf("tf32 %v: %+v, %v; want %+v", v.tf32, a, err, want)
		}
		space.Bytes = 2000
		if a, err := c.Measure(Forward, x.Pointer, w.Pointer, y.Pointer, space); err != nil || a.Number == 5 || a.Math != v.math {
			t.Errorf("tf32 %v, with little room: %+v, %v", v.tf32, a, err)
		}
		emulator.Record(t)
		if err := c.Use(Forward, a, 1<<20); err != nil {
			t.Error(err)
		}
		if err := c.Use(Forward, Algorithm{Number: 2, Math: 3}, 1<<20); err == nil {
			t.Error("an algorithm that cuDNN does not accept is taken")
		}
		if record := strings.Join(emulator.Record(t), "\n"); strings.Contains(record, "measure") {
			t.Errorf("recorded:\n%s", record)
		}
	}
}

func TestConvPrecision(t *testing.T) {
	emulator.Only(t)
	_, s := gpu(t)
	dnn := opened(t, s)
	for _, v := range []struct {
		bf16, tf32   bool
		number, math int
	}{{false, false, 4, fmaMath}, {false, true, 3, 1}, {true, false, 3, 1}} {
		c, err := dnn.NewConv(Geometry{N: 1, H: 4, W: 4, C: 8, K: 8, OH: 4, OW: 4, Kernel: 1, Stride: 1, BF16: v.bf16, TF32: v.tf32})
		if err != nil {
			t.Fatal(err)
		}
		if a, err := c.Choose(Forward, 1<<20); err != nil || a.Number != v.number || a.Math != v.math {
			t.Errorf("bf16 %v, tf32 %v: %+v, %v", v.bf16, v.tf32, a, err)
		}
		if _, err := c.Choose(DataGrad, 100); err == nil || !strings.Contains(err.Error(), "not deterministic") {
			t.Errorf("with 100 bytes of workspace: %v", err)
		}
		c.Close()
	}
	emulator.Record(t)
}

// All four ways to lay out a row-major product.
func TestProduct(t *testing.T) {
	emulator.Only(t)
	d, s := gpu(t)
	b, err := OpenBLAS(s, false)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Version != 120103 {
		t.Errorf("version %d", b.Version)
	}
	const m, n, k = 3, 5, 4
	for _, at := range []bool{false, true} {
		for _, bt := range []bool{false, true} {
			av, bv := rising(m*k), rising(k*n)
			want := make([]float32, m*n)
			for i := range m {
				for j := range n {
					for l := range k {
						ai, bi := i*k+l, l*n+j
						if at {
							ai = l*m + i
						}
						if bt {
							bi = j*k + l
						}
						want[i*n+j] += av[ai] * bv[bi]
					}
				}
			}
			a, x, c := upload(t, d, s, av), upload(t, d, s, bv), upload(t, d, s, make([]float32, m*n))
			if err := b.Product(m, n, k, a.Pointer, at, x.Pointer, bt, c.Pointer); err != nil {
				t.Fatal(err)
			}
			if got := download(t, s, c, m*n); !slices.Equal(got, want) {
				t.Errorf("transposed %v, %v: %v, want %v", at, bt, got, want)
			}
		}
	}
	emulator.Record(t)
}

func TestCompiler(t *testing.T) {
	emulator.Only(t)
	c, err := OpenCompiler()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, v := range []struct {
		major, minor int
		want         string
	}{{8, 0, "sm_80"}, {9, 0, "sm_90"}, {8, 9, "compute_80"}, {12, 0, "compute_90"}, {6, 1, ""}} {
		target, err := c.Target(v.major, v.minor)
		if (err == nil) != (v.want != "") || err == nil && target.String() != v.want {
			t.Errorf("%d.%d: %v, %v; want %q", v.major, v.minor, target, err, v.want)
		}
	}
	image, err := c.Compile("__global__ void f() {}", Target{Arch: 80})
	if err != nil || !strings.Contains(string(image), "--gpu-architecture=sm_80") {
		t.Errorf("%q, %v", image, err)
	}
	if _, err := c.Compile("#error no", Target{Arch: 80}); err == nil || !strings.Contains(err.Error(), "mochi.cu(1)") {
		t.Errorf("an error in the source: %v", err)
	}
}

// The machine's own NVRTC, where there is one, compiles the real kernels: a
// cubin for a device that it knows, PTX for one that is newer. It needs no
// device.
func TestRealCompiler(t *testing.T) {
	const again = "MOCHI_TEST_REAL_COMPILER"
	if os.Getenv(again) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRealCompiler$", "-test.v")
		cmd.Env = append(os.Environ(), again+"=1", "MOCHI_TEST_REAL_GPU=1", Folder+"=")
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "--- SKIP") {
			t.Skip("no NVRTC is installed here")
		}
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	c, err := OpenCompiler()
	if missing := (*Missing)(nil); errors.As(err, &missing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, v := range []struct {
		major, minor int
		begins       string
	}{{8, 0, "\x7fELF"}, {99, 0, "//"}} {
		target, err := c.Target(v.major, v.minor)
		if err != nil {
			t.Fatal(err)
		}
		image, err := c.Compile(kernel.Source(), target)
		if err != nil || !strings.HasPrefix(strings.TrimSpace(string(image)), v.begins) || !strings.Contains(string(image), "bn_apply_bf16") {
			t.Errorf("%v: %d bytes, %v", target, len(image), err)
		}
	}
	if _, err := c.Compile("__global__ void f() { nonsense; }", Target{Arch: 80}); err == nil || !strings.Contains(err.Error(), `identifier "nonsense" is undefined`) {
		t.Errorf("an error in the source: %v", err)
	}
}

// What is missing is named with what was looked for; what is too old with its
// version.
func TestMissing(t *testing.T) {
	emulator.Only(t)
	refuse := errors.New("too old")
	s := search{"cuX", []string{"libnowhere.so.2", "libcublas.so.12"}}
	var missing *Missing
	_, err := s.open(func(h unsafe.Pointer) error { return refuse })
	if !errors.As(err, &missing) || !strings.Contains(missing.Why, "libcublas.so.12: too old") {
		t.Errorf("%v", err)
	}
	dir := t.TempDir()
	t.Setenv(Folder, dir)
	s.sonames = []string{"libnowhere.so.2", "libnowhere.so.1"}
	_, err = s.open(func(h unsafe.Pointer) error { return nil })
	want := "cuX: looked for " + filepath.Join(dir, "libnowhere.so.2") + ", " + filepath.Join(dir, "libnowhere.so.1") +
		", libnowhere.so.2, libnowhere.so.1: none is there; install it, or name its folder in " + Folder
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	// There, but no library.
	if err := os.WriteFile(filepath.Join(dir, "libnowhere.so.1"), []byte("no library"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = s.open(func(h unsafe.Pointer) error { return nil })
	if !errors.As(err, &missing) || !strings.Contains(missing.Why, filepath.Join(dir, "libnowhere.so.1")) {
		t.Errorf("a broken file: %v", err)
	}
	// An old cuDNN.
	old := t.TempDir()
	source, err := os.ReadFile(filepath.Join("..", "emulator", "dnn.c"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(old, "dnn.c")
	if err := os.WriteFile(file, source, 0o644); err != nil {
		t.Fatal(err)
	}
	headers, err := filepath.Abs("../emulator")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-DEMU_VERSION=7605", "-I"+headers, "-fPIC", "-shared", "-o", filepath.Join(old, "libolddnn.so"), file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Setenv(Folder, old)
	_, s2 := gpu(t)
	if _, err := openDNN(s2, search{"cuDNN", []string{"libolddnn.so"}}); err == nil || !strings.Contains(err.Error(), "it is version 7.6.5; 8.2.0 or newer is needed") {
		t.Errorf("an old cuDNN: %v", err)
	}
}
