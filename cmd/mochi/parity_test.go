package main

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"mochi/coordinator/protocol"
	"mochi/model/engine"
	"mochi/model/network"
)

// TestParity compares an engine with PyTorch on whole networks, with the files
// that tools/parity/generate.py writes:
//
//	MOCHI_PARITY=DIR MOCHI_PARITY_ENGINE=onednn go test -tags onednn -run Parity -v ./cmd/mochi
//
// In fp32, every gradient has a cosine of at least 0.9999 with PyTorch's; in
// bf16, at least that of one pass of PyTorch's own bf16 minus 0.005, tensor by
// tensor and on average; for those that lie below, the log says whether they
// reach the lowest of four passes (a weaker bar, not the one to meet). ResNet-34
// and -50 do not meet it in bf16 yet.
// The same goes for embeddings and batch statistics. The losses of ten training
// steps are within 1e-3 (fp32) and 2e-2 (bf16) of PyTorch's fp32, relatively.
func TestParity(t *testing.T) {
	dir, name := os.Getenv("MOCHI_PARITY"), os.Getenv("MOCHI_PARITY_ENGINE")
	if dir == "" {
		t.Skip("MOCHI_PARITY names no folder of tools/parity/generate.py")
	}
	if name == "" {
		name = "auto"
	}
	for _, precision := range []engine.Precision{engine.FP32, engine.BF16} {
		for _, arch := range []string{"resnet18-cifar", "resnet18", "resnet34", "resnet50"} {
			t.Run(arch+" "+string(precision), func(t *testing.T) {
				parityOfNetwork(t, openParityEngine(t, name, precision), filepath.Join(dir, arch+".safetensors"), precision)
			})
		}
		t.Run("ten steps "+string(precision), func(t *testing.T) {
			parityOfSteps(t, openParityEngine(t, name, precision), filepath.Join(dir, "resnet18-cifar-steps.safetensors"), precision)
		})
	}
}

func openParityEngine(t *testing.T, name string, precision engine.Precision) engine.Engine {
	t.Helper()
	eng, why, err := openEngine(name, engine.Config{Precision: precision})
	if err != nil {
		t.Skip(err)
	}
	t.Log(why)
	t.Cleanup(func() { eng.Close() })
	return eng
}

func parityOfNetwork(t *testing.T, eng engine.Engine, path string, precision engine.Precision) {
	var s struct {
		Arch, Head       string
		Size, Dim, Batch int
		BF16             map[string]float64 // of one pass
		Lowest           map[string]float64 `json:"bf16_lowest"` // of four, three with images moved by 1e-3
		Mean             float64            `json:"bf16_mean"`   // over gradients
	}
	g := openTensors(t, path, &s)
	net, err := network.Build(s.Arch, network.Options{Channels: 3, ImageSize: s.Size, Dim: s.Dim, Head: s.Head})
	if err != nil {
		t.Fatal(err)
	}
	state, err := eng.NewState(net)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	state.Set(engine.QueryParams, g.flat("param.", net.Params))
	program, err := state.Compile(engine.Spec{Encoder: engine.Query, Batch: s.Batch, Mode: engine.Train})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	embeddings := make([]float32, s.Batch*s.Dim)
	grads, stats := make([]float32, net.NumParams()), make([]float32, net.NumBuffers())
	if err := program.Forward(g.floats("images"), embeddings); err != nil {
		t.Fatal(err)
	}
	program.Statistics(stats)
	if err := program.Backward(g.floats("u"), grads, nil); err != nil {
		t.Fatal(err)
	}

	worst, margin := 2.0, ""
	mean := 0.0
	check := func(name string, got []float32) {
		want, c := 0.9999, cosine(got, g.floats(name))
		if precision == engine.BF16 {
			want = s.BF16[name] - 0.005
		}
		if d := c - want; d < worst {
			worst, margin = d, name
		}
		if !(c >= want) {
			t.Errorf("%s: cosine %.5f with PyTorch's fp32, want at least %.5f", name, c, want)
			if precision == engine.BF16 {
				t.Logf("%s: four passes of PyTorch's bf16 go down to %.5f", name, s.Lowest[name])
			}
		}
	}
	check("embedding", embeddings)
	for _, p := range net.Buffers {
		check("stat."+p.Name, stats[p.Offset:p.Offset+p.Size])
	}
	for _, p := range net.Params {
		got := grads[p.Offset : p.Offset+p.Size]
		check("grad."+p.Name, got)
		mean += cosine(got, g.floats("grad."+p.Name)) / float64(len(net.Params))
	}
	if precision == engine.BF16 && !(mean >= s.Mean-0.005) {
		t.Errorf("gradients: mean cosine %.5f with PyTorch's fp32, want at least %.5f", mean, s.Mean-0.005)
	}
	t.Logf("gradients: mean cosine %.5f with PyTorch's fp32; PyTorch's own bf16: %.5f", mean, s.Mean)
	t.Logf("closest to its bound: %s, %.5f above", margin, worst)
}

func parityOfSteps(t *testing.T, eng engine.Engine, path string, precision engine.Precision) {
	var s struct {
		Steps, Batch, K    int
		Tau, M, LR, Mu, WD float64
		FP32               []float64 `json:"loss_fp32"`
		BF16               []float64 `json:"loss_bf16"`
	}
	g := openTensors(t, path, &s)
	cfg, err := protocol.Preset("cifar10")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Batch, cfg.BNGroup, cfg.Queue, cfg.MoCHi = s.Batch, s.Batch, s.K, protocol.MoCHi{}
	cfg.Temperature, cfg.Momentum, cfg.LR, cfg.SGDMomentum, cfg.WeightDecay = s.Tau, s.M, s.LR, s.Mu, s.WD
	b, err := newStepBencher(eng, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	state := b.moco.State()
	params := g.flat("param.", state.Network().Params)
	state.Set(engine.QueryParams, params)
	state.Set(engine.KeyParams, params)
	if err := b.queue.Enqueue(g.floats("queue"), make([]int32, s.K)); err != nil { // once around
		t.Fatal(err)
	}
	views, n := [2][]float32{g.floats("images_k"), g.floats("images_q")}, s.Batch*3*32*32
	bound := map[engine.Precision]float64{engine.FP32: 1e-3, engine.BF16: 2e-2}[precision]
	for i := range s.Steps {
		for v := range views {
			b.images[v] = views[v][i*n : (i+1)*n]
		}
		if err := b.step(int64(i + 1)); err != nil {
			t.Fatal(err)
		}
		got, d := b.loss, math.Abs(b.loss-s.FP32[i])
		t.Logf("step %2d: loss %.5f, PyTorch fp32 %.5f bf16 %.5f", i+1, got, s.FP32[i], s.BF16[i])
		if !(d <= bound*max(1, s.FP32[i])) {
			t.Errorf("step %d: loss %.5f, PyTorch's fp32 %.5f: %.1e relative, want at most %.0e", i+1, got, s.FP32[i], d/s.FP32[i], bound)
		}
	}
}

func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}

// tensors is a file of float32 tensors in safetensors layout.
type tensors struct {
	t      *testing.T
	header map[string]json.RawMessage
	data   []byte
}

// openTensors reads a file and its settings.
func openTensors(t *testing.T, path string, settings any) *tensors {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 8 + binary.LittleEndian.Uint64(raw)
	f := &tensors{t: t, data: raw[n:]}
	var meta struct{ Settings string }
	if err := json.Unmarshal(raw[8:n], &f.header); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(f.header["__metadata__"], &meta); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(meta.Settings), settings); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *tensors) floats(name string) []float32 {
	f.t.Helper()
	var entry struct {
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(f.header[name], &entry); err != nil {
		f.t.Fatalf("%s: %v", name, err)
	}
	x := make([]float32, (entry.Offsets[1]-entry.Offsets[0])/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(f.data[entry.Offsets[0]+4*i:]))
	}
	return x
}

// flat gathers prefix+name of every tensor into one vector.
func (f *tensors) flat(prefix string, list []network.Tensor) []float32 {
	f.t.Helper()
	var all []float32
	for _, p := range list {
		x := f.floats(prefix + p.Name)
		if len(x) != p.Size || len(all) != p.Offset {
			f.t.Fatalf("%s%s has %d values, want %d", prefix, p.Name, len(x), p.Size)
		}
		all = append(all, x...)
	}
	return all
}
