package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mochi/cmd/mochi/engines"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/network"
	"mochi/replica"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
	"mochi/replica/input"
	"mochi/replica/queue"
	"mochi/replica/replicatest"
)

// TestParity compares an engine with PyTorch on whole networks, with the files
// that tools/parity/generate.py writes:
//
//	MOCHI_PARITY=DIR MOCHI_PARITY_ENGINE=onednn go test -tags onednn -run Parity -v ./cmd/mochi
//
// In fp32, every gradient has a cosine of at least 0.9999 with PyTorch's. In
// bf16 the cosine with the engine's own fp32 (which stands for PyTorch's, being
// within 1e-4 of it) is at least that of PyTorch's bf16 with its fp32 minus
// 0.005, tensor by tensor, each the mean over the file's batches: for one batch
// either moves by more than that. How many tensors would fall below with the
// first batch alone is logged. The same goes for embeddings and batch
// statistics. The losses of ten training steps are within 1e-3 (fp32) and 2e-2
// (bf16) of PyTorch's fp32, relatively.
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
				path := filepath.Join(dir, arch+".safetensors")
				if precision == engine.FP32 {
					parityFP32(t, openParityEngine(t, name, engine.FP32), path)
				} else {
					parityBF16(t, openParityEngine(t, name, engine.FP32), openParityEngine(t, name, engine.BF16), path)
				}
			})
		}
		t.Run("ten steps "+string(precision), func(t *testing.T) {
			parityOfSteps(t, openParityEngine(t, name, precision), filepath.Join(dir, "resnet18-cifar-steps.safetensors"), precision)
		})
	}
}

func openParityEngine(t *testing.T, name string, precision engine.Precision) engine.Engine {
	t.Helper()
	eng, why, err := engines.Open(name, engine.Config{Precision: precision})
	if err != nil {
		t.Skip(err)
	}
	t.Log(why)
	t.Cleanup(func() { eng.Close() })
	return eng
}

// paritySettings are the metadata of a network's file.
type paritySettings struct {
	Arch, Head               string
	Size, Dim, Batch, Passes int
	BF16                     map[string]float64 // mean over passes
	First                    map[string]float64 `json:"bf16_first"`
}

// parityFP32 compares the first batch's values with PyTorch's.
func parityFP32(t *testing.T, eng engine.Engine, path string) {
	var s paritySettings
	g := openTensors(t, path, &s)
	worst, which := 2.0, ""
	for name, got := range newParityProgram(t, eng, g, s).pass(0) {
		c := cosine(got, g.floats(name))
		if c < worst {
			worst, which = c, name
		}
		if !(c >= 0.9999) {
			t.Errorf("%s: cosine %.6f with PyTorch's fp32, want at least 0.9999", name, c)
		}
	}
	t.Logf("lowest cosine: %.6f, %s", worst, which)
}

// parityBF16 compares how far bf16 leads from fp32, here and in PyTorch.
func parityBF16(t *testing.T, fp32, bf16 engine.Engine, path string) {
	var s paritySettings
	g := openTensors(t, path, &s)
	exact, rough := newParityProgram(t, fp32, g, s), newParityProgram(t, bf16, g, s)
	mean := map[string]float64{}
	below := 0
	for i := range s.Passes {
		want := exact.pass(i)
		for name, got := range rough.pass(i) {
			c := cosine(got, want[name])
			mean[name] += c / float64(s.Passes)
			if i == 0 && !(c >= s.First[name]-0.005) {
				below++
			}
		}
	}
	worst, which := 2.0, ""
	var ours, theirs float64
	for _, name := range slices.Sorted(maps.Keys(mean)) {
		d := mean[name] - s.BF16[name]
		if d < worst {
			worst, which = d, name
		}
		if strings.HasPrefix(name, "grad.") {
			ours, theirs = ours+mean[name]/float64(len(exact.net.Params)), theirs+s.BF16[name]/float64(len(exact.net.Params))
		}
		if !(d >= -0.005) {
			t.Errorf("%s: cosine %.5f with fp32, PyTorch's bf16 has %.5f", name, mean[name], s.BF16[name])
		}
	}
	t.Logf("mean cosine of gradients over %d batches: %.5f, PyTorch's bf16 %.5f; furthest below PyTorch's: %s, by %.5f", s.Passes, ours, theirs, which, -worst)
	t.Logf("with the first batch alone %d of %d tensors are more than 0.005 below", below, len(mean))
}

// parityProgram is a network with the file's weights.
type parityProgram struct {
	t       *testing.T
	s       paritySettings
	net     *network.Network
	program engine.Program
	file    *tensors
}

func newParityProgram(t *testing.T, eng engine.Engine, g *tensors, s paritySettings) *parityProgram {
	t.Helper()
	net, err := network.Build(s.Arch, network.Options{Channels: 3, ImageSize: s.Size, Dim: s.Dim, Head: s.Head})
	if err != nil {
		t.Fatal(err)
	}
	state, err := eng.NewState(net)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	state.Set(engine.QueryParams, g.flat("param.", net.Params))
	program, err := state.Compile(engine.Spec{Encoder: engine.Query, Batch: s.Batch, Mode: engine.Train})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return &parityProgram{t, s, net, program, g}
}

// pass returns embeddings, statistics and gradients of batch i, by the names
// they have in the file.
func (p *parityProgram) pass(i int) map[string][]float32 {
	p.t.Helper()
	images, u := p.s.Batch*3*p.s.Size*p.s.Size, p.s.Batch*p.s.Dim
	embeddings := make([]float32, u)
	grads, stats := make([]float32, p.net.NumParams()), make([]float32, p.net.NumBuffers())
	if err := p.program.Forward(p.file.part("images", i*images, images), embeddings); err != nil {
		p.t.Fatal(err)
	}
	p.program.Statistics(stats)
	if err := p.program.Backward(p.file.part("u", i*u, u), grads, nil); err != nil {
		p.t.Fatal(err)
	}
	out := map[string][]float32{"embedding": embeddings}
	for _, v := range p.net.Buffers {
		out["stat."+v.Name] = stats[v.Offset : v.Offset+v.Size]
	}
	for _, v := range p.net.Params {
		out["grad."+v.Name] = grads[v.Offset : v.Offset+v.Size]
	}
	return out
}

func parityOfSteps(t *testing.T, eng engine.Engine, path string, precision engine.Precision) {
	var s struct {
		Steps, Batch, K    int
		Tau, M, LR, Mu, WD float64
		FP32               []float64 `json:"loss_fp32"`
		BF16               []float64 `json:"loss_bf16"`
	}
	g := openTensors(t, path, &s)
	cfg, err := config.Preset("cifar10")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Batch, cfg.BNGroup, cfg.Queue, cfg.MoCHi = s.Batch, s.Batch, s.K, config.MoCHi{}
	cfg.Temperature, cfg.Momentum, cfg.LR, cfg.SGDMomentum, cfg.WeightDecay = s.Tau, s.M, s.LR, s.Mu, s.WD
	bound := map[engine.Precision]float64{engine.FP32: 1e-3, engine.BF16: 2e-2}[precision]
	for i, got := range replayedLosses(t, eng, cfg, g, s.Steps) {
		d := math.Abs(got - s.FP32[i])
		t.Logf("step %2d: loss %.5f, PyTorch fp32 %.5f bf16 %.5f", i+1, got, s.FP32[i], s.BF16[i])
		if !(d <= bound*max(1, s.FP32[i])) {
			t.Errorf("step %d: loss %.5f, PyTorch's fp32 %.5f: %.1e relative, want at most %.0e", i+1, got, s.FP32[i], d/s.FP32[i], bound)
		}
	}
}

// replayedLosses trains a replica on the views of a file, from the file's
// parameters and queue, and returns the mean loss of each step.
func replayedLosses(t *testing.T, eng engine.Engine, job config.Job, g *tensors, steps int) []float64 {
	t.Helper()
	net, err := job.Network()
	if err != nil {
		t.Fatal(err)
	}
	_, buffers := net.Init(job.Seed)
	params := g.flat("param.", net.Params)
	labels := slices.Repeat([]int32{queue.Unlabelled}, job.Queue)
	var start bytes.Buffer
	err = checkpoint.Write(&start, &checkpoint.State{
		Arch: job.Arch, Seed: job.Seed, Net: net,
		QueryParams: params, KeyParams: params, Momentum: make([]float32, len(params)),
		QueryBuffers: buffers, KeyBuffers: buffers,
		K: job.Queue, Dim: job.Dim, Queue: g.floats("queue"), QueueLabels: labels, QueueFilled: int64(job.Queue),
	})
	if err != nil {
		t.Fatal(err)
	}
	script := replicatest.NewScript(job, int64(steps))
	script.Source, script.Blob, script.Save = protocol.FromCheckpoint, start.Bytes(), false
	images := &recorded{query: g.floats("images_q"), key: g.floats("images_k"), size: net.Channels * net.ImageSize * net.ImageSize}
	err = replica.New(replica.Config{
		ID: "parity", Link: script, Data: replicatest.Pictures{N: steps * job.Batch, Size: job.ImageSize}.Set(),
		Engine: func(engine.Precision) (engine.Engine, error) { return kept{eng}, nil },
		Images: func(config.Job) input.Source { return images },
		Ring:   aloneInRing,
	}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var losses []float64
	for _, c := range script.Commits {
		losses = append(losses, c.Groups[0].Mean(job.Batch).Loss)
	}
	return losses
}

// kept is an engine that its test closes.
type kept struct{ engine.Engine }

func (kept) Close() error { return nil }

// recorded delivers the views of a file, those of one batch a step: whatever
// sample stands at place i of the batch has the views of row i.
type recorded struct {
	query, key []float32 // [steps·B, 3, S, S]
	size       int       // values of a view
	requested  []data.Request
}

func (r *recorded) Submit(q data.Request) error {
	r.requested = append(r.requested, q)
	return nil
}

func (r *recorded) Next(context.Context) (*data.Batch, time.Duration, error) {
	q := r.requested[0]
	r.requested = r.requested[1:]
	n := len(q.Query[0]) * r.size
	at := int(q.Step-1) * n
	keys := make([]float32, 0, n)
	for _, ref := range q.Key[0] {
		row := at + slices.Index(q.Query[0], ref)*r.size
		keys = append(keys, r.key[row:row+r.size]...)
	}
	return &data.Batch{Step: q.Step, Query: [][]float32{r.query[at : at+n]}, Key: [][]float32{keys}}, 0, nil
}

func (r *recorded) Ready() *data.Batch { return nil }
func (r *recorded) Reset()             { r.requested = nil }
func (r *recorded) Close()             {}

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

// floats returns a whole tensor.
func (f *tensors) floats(name string) []float32 { return f.part(name, 0, -1) }

// part returns n values of a tensor, from value at on; all of them if n < 0.
func (f *tensors) part(name string, at, n int) []float32 {
	f.t.Helper()
	var entry struct {
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(f.header[name], &entry); err != nil {
		f.t.Fatalf("%s: %v", name, err)
	}
	if n < 0 {
		n = (entry.Offsets[1] - entry.Offsets[0]) / 4
	}
	x := make([]float32, n)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(f.data[entry.Offsets[0]+4*(at+i):]))
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
