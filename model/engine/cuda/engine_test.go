//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/emulator"
	"mochi/model/network"
)

func TestMain(m *testing.M) { os.Exit(emulator.Main(m, true)) }

func start(t testing.TB, cfg engine.Config) *gpu {
	t.Helper()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e.(*gpu)
}

// small is a network with both kinds of blocks, a max pooling behind a
// BatchNorm and a head of two layers.
func small(t testing.TB) *network.Network {
	t.Helper()
	b := network.NewBuilder("small", 3, 12)
	x := b.MaxPool(b.BatchNorm("bn", b.Conv("stem", 0, 8, 5, 1, 2), true), 3, 2, 1)
	y := b.BatchNorm("a.bn1", b.Conv("a.1", x, 8, 1, 1, 0), true)
	y = b.BatchNorm("a.bn2", b.Conv("a.2", y, 16, 3, 1, 1), false)
	x = b.Add(y, b.BatchNorm("a.bn3", b.Conv("a.3", x, 16, 1, 1, 0), false), true)
	y = b.BatchNorm("b.bn1", b.Conv("b.1", x, 16, 3, 1, 1), false)
	x = b.Add(y, x, true)
	x = b.ReLU(b.Conv("c", x, 7, 3, 2, 1))
	f := b.GlobalAvgPool(x)
	net, err := b.Build(f, b.L2Normalize(b.Linear("fc.2", b.ReLU(b.Linear("fc.0", f, 9)), 5)))
	if err != nil {
		t.Fatal(err)
	}
	return net
}

func values(n, seed int) []float32 {
	v := make([]float32, n)
	x := uint32(seed)*2654435761 + 1
	for i := range v {
		x = x*1664525 + 1013904223
		v[i] = float32(x>>8)/(1<<23) - 1
	}
	return v
}

func ready(t testing.TB, e *gpu, net *network.Network, spec engine.Spec) (*state, *program) {
	t.Helper()
	st, err := e.NewState(net)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	params, buffers := net.Init(1)
	for _, v := range []engine.Vector{engine.QueryParams, engine.KeyParams} {
		st.Set(v, params)
	}
	for _, v := range []engine.Vector{engine.QueryBuffers, engine.KeyBuffers} {
		st.Set(v, buffers)
	}
	p, err := st.Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return st.(*state), p.(*program)
}

// The host waits once in a forward, and in a backward only for gradients: all
// work is in the streams before the first wait, and copies go beside it.
func TestHostWaitsOnlyWhereItMust(t *testing.T) {
	emulator.Only(t)
	e, net := start(t, engine.Config{}), large(t)
	_, p := ready(t, e, net, engine.Spec{Batch: 2})
	images, out := values(p.calls.Images(), 1), make([]float32, p.calls.Embeddings())
	emulator.Record(t)
	if err := p.Forward(images, out); err != nil {
		t.Fatal(err)
	}
	record := emulator.Record(t)
	if n := count(record, "synchronize"); n != 1 || record[len(record)-1] != "synchronize stream" {
		t.Errorf("a forward waits %d times:\n%s", n, strings.Join(record, "\n"))
	}
	calls := 0
	grads := make([]float32, net.NumParams())
	if err := p.Backward(out, grads, func(int) { calls++ }); err != nil {
		t.Fatal(err)
	}
	record = emulator.Record(t)
	if len(p.backward) < 3 {
		t.Fatalf("a backward of %d parts shows nothing", len(p.backward))
	}
	first := slices.IndexFunc(record, func(l string) bool { return strings.HasPrefix(l, "synchronize") })
	if n := count(record, "synchronize"); n != len(p.backward) || first != len(record)-n {
		t.Errorf("a backward of %d parts waits %d times, first at call %d of %d", len(p.backward), n, first, len(record))
	}
	last := slices.IndexFunc(record, func(l string) bool { return strings.HasPrefix(l, "download") })
	if !slices.ContainsFunc(record[last:], func(l string) bool { return strings.HasPrefix(l, "conv") }) {
		t.Error("no gradient leaves before the last convolution")
	}
	if count(record, "waits") > 0 || count(record, "staged") > 0 {
		t.Error("a copy is not from or to pinned memory")
	}
	if calls != len(net.Params) {
		t.Errorf("ready was called %d times for %d parameters", calls, len(net.Params))
	}
}

// A step's launches are made when the program is compiled. Seen: about one small
// allocation a launch, in cgo's calls; making them anew would be four more.
func TestStepAllocatesLittle(t *testing.T) {
	e, net := start(t, engine.Config{}), small(t)
	_, p := ready(t, e, net, engine.Spec{Batch: 2})
	images, out, grads := values(p.calls.Images(), 1), make([]float32, p.calls.Embeddings()), make([]float32, net.NumParams())
	launches := len(p.forward.launches)
	for _, s := range p.backward {
		launches += len(s.launches)
	}
	n := testing.AllocsPerRun(3, func() {
		if err := errors.Join(p.Forward(images, out), p.Backward(out, grads, nil)); err != nil {
			t.Fatal(err)
		}
	})
	if n > 1.5*float64(launches) {
		t.Errorf("a step of %d launches allocates %v times", launches, n)
	}
	t.Logf("%d launches, %v allocations", launches, n)
}

func count(record []string, what string) (n int) {
	for _, l := range record {
		if strings.Contains(l, what) {
			n++
		}
	}
	return n
}

// large has more than one segment's worth of gradients in several layers.
func large(t testing.TB) *network.Network {
	t.Helper()
	b := network.NewBuilder("large", 3, 2)
	x := 0
	for i := range 3 {
		x = b.BatchNorm(fmt.Sprint("bn", i), b.Conv(fmt.Sprint("conv", i), x, 520, 1, 1, 0), true)
	}
	f := b.GlobalAvgPool(x)
	net, err := b.Build(f, b.L2Normalize(b.Linear("fc", f, 600)))
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// tf32 asks cuDNN and cuBLAS for tensor cores on fp32 tensors, in the layers
// only: products of evaluation stay fp32, as all is in the other precisions.
// bf16 has tensor cores for its convolutions alone.
func TestPrecisionsSayTheirMath(t *testing.T) {
	emulator.Only(t)
	const fma, tensor, tf32, plain = " math 3", " math 1", " math 3", " math 0" // of cuDNN, of cuBLAS
	for precision, want := range map[engine.Precision]struct{ conv, head string }{
		engine.FP32: {"type 0 algorithm 4" + fma, plain}, engine.TF32: {"type 0 algorithm 3" + tensor, tf32}, engine.BF16: {"type 9 algorithm 3" + tensor, plain},
	} {
		e, net := start(t, engine.Config{Precision: precision}), small(t)
		_, p := ready(t, e, net, engine.Spec{Batch: 2})
		out := make([]float32, p.calls.Embeddings())
		emulator.Record(t)
		if err := errors.Join(p.Forward(values(p.calls.Images(), 1), out), p.Backward(out, make([]float32, net.NumParams()), nil)); err != nil {
			t.Fatal(err)
		}
		convs, heads := 0, 0
		for _, l := range emulator.Record(t) {
			switch {
			case strings.HasPrefix(l, "conv"):
				if convs++; !strings.HasSuffix(l, want.conv) {
					t.Errorf("%s: %s, want%s", precision, l, want.conv)
				}
			case strings.HasPrefix(l, "sgemm"):
				if heads++; !strings.HasSuffix(l, want.head) {
					t.Errorf("%s: %s, want%s", precision, l, want.head)
				}
			}
		}
		if convs < 15 || heads != 6 {
			t.Errorf("%s: %d convolutions and %d products", precision, convs, heads)
		}
		e.Products().NT(2, 2, 2, out, out, make([]float32, 4))
		if record := emulator.Record(t); count(record, "sgemm") != 1 || count(record, "math 0") != 1 {
			t.Errorf("%s: a product of evaluation: %v", precision, record)
		}
	}
}

// Older devices have no tensor cores for bf16 and tf32.
func TestOldDeviceHasNoTensorCores(t *testing.T) {
	emulator.Only(t)
	t.Setenv("MOCHI_EMULATOR_CAPABILITY", "75")
	for _, precision := range []engine.Precision{engine.TF32, engine.BF16} {
		_, err := New(engine.Config{Precision: precision})
		if !errors.Is(err, engine.ErrUnsupported) || !strings.Contains(err.Error(), "precision "+string(precision)) || !strings.Contains(err.Error(), "Emulated GPU has 7.5; use --precision fp32") {
			t.Errorf("%s on a device of 7.5: %v", precision, err)
		}
	}
	start(t, engine.Config{})
}

// free is the device memory that nobody has.
func free(t *testing.T, e *gpu) int64 {
	t.Helper()
	leave, err := e.enter()
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	n, err := e.device.Free()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Everything is given back, in any order of closing.
func TestCloseFreesMemory(t *testing.T) {
	emulator.Only(t)
	e := start(t, engine.Config{Precision: engine.BF16})
	free := func() int64 { return free(t, e) + int64(e.space.Bytes) } // which the engine keeps
	before := free()
	for _, closeProgram := range []bool{true, false} {
		st, err := e.NewState(small(t))
		if err != nil {
			t.Fatal(err)
		}
		p, err := st.Compile(engine.Spec{Batch: 2})
		if err != nil {
			t.Fatal(err)
		}
		if closeProgram {
			err = p.Close()
		}
		if err := errors.Join(err, st.Close(), st.Close(), p.Close()); err != nil {
			t.Error(err)
		}
		if after := free(); after != before {
			t.Errorf("%d bytes are lost", before-after)
		}
		if err := p.Forward(make([]float32, 1), nil); err == nil {
			t.Error("a closed program runs")
		}
		if err := st.Update(engine.Update{}); err == nil {
			t.Error("a closed state is updated")
		}
	}
	emulator.Record(t)
}

// An engine that is closed too early makes the rest fail, not hang.
func TestCloseInTheWrongOrder(t *testing.T) {
	emulator.Only(t)
	e, err := New(engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := e.NewState(small(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Compile(engine.Spec{Batch: 2}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := st.Close(); err == nil || !strings.Contains(err.Error(), "the engine is closed") {
		t.Errorf("closing a state after its engine: %v", err)
	}
}

// Two devices give the same bits; a device that is not there is refused, but
// not as something that another engine could do instead.
func TestDevices(t *testing.T) {
	emulator.Only(t)
	net := small(t)
	var first []float32
	for device := range 2 {
		emulator.Record(t)
		e := start(t, engine.Config{Device: device})
		if record := emulator.Record(t); count(record, "context of device") != 1 || count(record, fmt.Sprintf("context of device %d", device)) != 1 {
			t.Errorf("device %d:\n%s", device, strings.Join(record, "\n"))
		}
		if !strings.Contains(e.Info().Device, fmt.Sprintf("GPU %d: Emulated GPU, 4 GiB, compute capability 8.0", device)) {
			t.Errorf("device %q", e.Info().Device)
		}
		versions := map[string]string{"cuda": "12.4", "cudnn": "8.9.7", "cublas": "12.1", "nvrtc": "12.4"}
		if release := driver.Release(); release != "" {
			versions["driver"] = release
		}
		if got := e.Info().Versions; !maps.Equal(got, versions) {
			t.Errorf("versions %v, want %v", got, versions)
		}
		_, p := ready(t, e, net, engine.Spec{Batch: 3})
		out := make([]float32, p.calls.Embeddings())
		if err := p.Forward(values(p.calls.Images(), 5), out); err != nil {
			t.Fatal(err)
		}
		if first != nil && !slices.Equal(out, first) {
			t.Error("two devices give different bits")
		}
		first = out
	}
	if _, err := New(engine.Config{Device: 2}); err == nil || errors.Is(err, engine.ErrUnsupported) || !strings.Contains(err.Error(), "devices 0 to 1") {
		t.Errorf("device 2: %v", err)
	}
}

// A launch with arguments that the table does not have panics when the program
// is compiled.
func TestKindsAreChecked(t *testing.T) {
	for name, args := range map[string][]any{
		"to_bf16":  {int32(1), driver.Pointer(0), driver.Pointer(0)},
		"to_f32":   {int64(1), driver.Pointer(0)},
		"no_such":  {},
		"relu_f32": {int64(1), int64(2), driver.Pointer(0)},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s%v does not panic", name, args)
				}
			}()
			checkKinds(name, args)
		}()
	}
	checkKinds("relu_f32", []any{int64(1), driver.Pointer(0), driver.Pointer(0)})
}
