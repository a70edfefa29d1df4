package model_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"testing"

	"mochi/model"
	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
	"mochi/model/loss"
	"mochi/model/network"
)

// golden is testdata/golden.safetensors, written by tools/golden/golden.py.
type golden struct {
	t        *testing.T
	header   map[string]json.RawMessage
	data     []byte
	settings struct {
		Steps, Warmup, Batch, Group, Size, Width, Dim, K, N, S, S2 int
		Tau, M, LR, Mu, WD                                         float64
	}
}

func readGolden(t *testing.T) *golden {
	t.Helper()
	raw, err := os.ReadFile("testdata/golden.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	n := 8 + binary.LittleEndian.Uint64(raw)
	g := &golden{t: t, data: raw[n:]}
	var metadata map[string]string
	for _, err := range []error{
		json.Unmarshal(raw[8:n], &g.header),
		json.Unmarshal(g.header["__metadata__"], &metadata),
		json.Unmarshal([]byte(metadata["settings"]), &g.settings),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// bytes is a tensor's raw data, of the given type.
func (g *golden) bytes(name, dtype string) []byte {
	g.t.Helper()
	var entry struct {
		DType   string `json:"dtype"`
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(g.header[name], &entry); err != nil {
		g.t.Fatalf("%s: %v", name, err)
	}
	if entry.DType != dtype {
		g.t.Fatalf("%s is %s, want %s", name, entry.DType, dtype)
	}
	return g.data[entry.Offsets[0]:entry.Offsets[1]]
}

func (g *golden) floats(name string) []float32 {
	g.t.Helper()
	b := g.bytes(name, "F32")
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}

func (g *golden) ints(name string) []int32 {
	g.t.Helper()
	b := g.bytes(name, "I32")
	x := make([]int32, len(b)/4)
	for i := range x {
		x[i] = int32(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}

func (g *golden) doubles(name string) []float64 {
	g.t.Helper()
	b := g.bytes(name, "F64")
	x := make([]float64, len(b)/8)
	for i := range x {
		x[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return x
}

// tensors gathers prefix+name of every tensor into one flat vector.
func (g *golden) tensors(prefix string, ts []network.Tensor) []float32 {
	g.t.Helper()
	var flat []float32
	for _, t := range ts {
		x := g.floats(prefix + t.Name)
		if len(flat) != t.Offset || len(x) != t.Size {
			g.t.Fatalf("%s%s has %d values at %d, want %d at %d", prefix, t.Name, len(x), len(flat), t.Size, t.Offset)
		}
		flat = append(flat, x...)
	}
	return flat
}

// images is step t's views, [B, 3, S, S].
func (g *golden) images(name string, t int) []float32 {
	n := g.settings.Batch * 3 * g.settings.Size * g.settings.Size
	x := make([]float32, n)
	for i, b := range g.bytes(name, "U8")[t*n : (t+1)*n] {
		x[i] = (float32(b) - 128) / 64
	}
	return x
}

// goldenTolerance is tighter than what a user would notice: weight decay left
// out on BatchNorm's weights, say, moves them by 6e-4. Float32 in PyTorch
// itself differs by 4e-6.
const goldenTolerance = 1e-4

// compare is the largest |got − want| of a tensor over its largest |want|.
func compare(t *testing.T, name string, got, want []float32, tolerance float64) {
	t.Helper()
	var diff, largest float64
	for i := range want {
		diff = math.Max(diff, math.Abs(float64(got[i])-float64(want[i])))
		largest = math.Max(largest, math.Abs(float64(want[i])))
	}
	if !(diff <= tolerance*largest) {
		t.Errorf("%s differs by %.2e of its largest value, tolerance %.0e", name, diff/largest, tolerance)
	}
}

// Ten steps agree with PyTorch: MLP head, residual blocks with projections,
// two warm-up steps, s, s′ > N, a queue whose length is no multiple of the
// batch, ShuffleBN across two groups.
func TestTenStepsAgreeWithPyTorch(t *testing.T) {
	g := readGolden(t)
	c := g.settings
	net, err := network.Build("resnet8", network.Options{Channels: 3, ImageSize: c.Size, Dim: c.Dim, Head: network.HeadMLP, Width: c.Width})
	if err != nil {
		t.Fatal(err)
	}
	eng, err := gorgonia.New(engine.Config{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	m, err := model.New(eng, net, model.Config{BNGroup: c.Group, Queue: c.K,
		Loss:     loss.Config{N: c.N, S: c.S, S2: c.S2, Temperature: c.Tau},
		Momentum: c.M, SGDMomentum: c.Mu, WeightDecay: c.WD})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.InitState(0) // buffers; the parameters are replaced
	m.State().Set(engine.QueryParams, g.tensors("initial.", net.Params))
	m.State().Set(engine.KeyParams, g.tensors("initial.", net.Params))

	queue, pointer := g.floats("input.queue"), 0
	losses, proxies := g.doubles("loss"), g.ints("proxy")
	for step := range c.Steps {
		report, keys := goldenStep(t, g, m, queue, step)
		if got, want := report.Loss/float64(c.Batch), losses[step]; math.Abs(got-want) > 1e-5*want {
			t.Errorf("step %d: loss %.7f, PyTorch %.7f", step, got, want)
		}
		if report.Proxy != float64(proxies[2*step]) || report.ProxyHard != float64(proxies[2*step+1]) {
			t.Errorf("step %d: proxy %v, %v, PyTorch %v", step, report.Proxy, report.ProxyHard, proxies[2*step:2*step+2])
		}
		for b := range c.Batch {
			copy(queue[pointer*c.Dim:(pointer+1)*c.Dim], keys[b*c.Dim:(b+1)*c.Dim])
			pointer = (pointer + 1) % c.K
		}
	}
	if want := g.ints("queue_ptr")[0]; pointer != int(want) {
		t.Errorf("queue pointer %d, PyTorch %d", pointer, want)
	}
	compare(t, "queue", queue, g.floats("queue"), goldenTolerance)
	for _, v := range []struct {
		prefix  string
		vector  engine.Vector
		tensors []network.Tensor
	}{
		{"encoder_q.", engine.QueryParams, net.Params},
		{"encoder_k.", engine.KeyParams, net.Params},
		{"momentum.", engine.Momentum, net.Params},
		{"encoder_q.", engine.QueryBuffers, net.Buffers},
		{"encoder_k.", engine.KeyBuffers, net.Buffers},
	} {
		got := m.State().Host(v.vector)
		for _, tensor := range v.tensors {
			compare(t, v.prefix+tensor.Name, got[tensor.Offset:tensor.Offset+tensor.Size], g.floats(v.prefix+tensor.Name), goldenTolerance)
		}
	}
}

// goldenStep runs one global batch and commits it, as a replica does.
func goldenStep(t *testing.T, g *golden, m *model.MoCo, queue []float32, step int) (total model.Report, keys []float32) {
	t.Helper()
	c, net := g.settings, m.Network()
	pixels := 3 * c.Size * c.Size
	views := g.images("input.images_k", step)
	order := g.ints("input.shuffle")[step*c.Batch : (step+1)*c.Batch]
	keys = make([]float32, c.Batch*c.Dim)
	keyStats, queryStats := make([]float32, net.NumBuffers()), make([]float32, net.NumBuffers())
	stats, grads, sum := make([]float32, net.NumBuffers()), make([]float32, net.NumParams()), make([]float32, net.NumParams())
	groups := float32(c.Batch / c.Group)

	permuted, part := make([]float32, c.Group*pixels), make([]float32, c.Group*c.Dim)
	for j := 0; j < c.Batch; j += c.Group {
		for i, sample := range order[j : j+c.Group] {
			copy(permuted[i*pixels:(i+1)*pixels], views[int(sample)*pixels:])
		}
		if err := m.Keys(permuted, part, stats); err != nil {
			t.Fatal(err)
		}
		for i, sample := range order[j : j+c.Group] {
			copy(keys[int(sample)*c.Dim:], part[i*c.Dim:(i+1)*c.Dim])
		}
		add(keyStats, stats, 1/groups)
	}

	views = g.images("input.images_q", step)
	for j := 0; j < c.Batch; j += c.Group {
		at := step*c.Batch + j
		in := model.StepInput{Images: views[j*pixels : (j+c.Group)*pixels], Positives: keys[j*c.Dim : (j+c.Group)*c.Dim],
			Shards: loss.Split(queue, nil, c.Dim, 1), Step: int64(step), BatchSize: c.Batch, Mix: step >= c.Warmup,
			Draws: &loss.Draws{
				First: g.ints("input.first")[at*c.S : (at+c.Group)*c.S], Second: g.ints("input.second")[at*c.S : (at+c.Group)*c.S],
				Alpha:   g.floats("input.alpha")[at*c.S : (at+c.Group)*c.S],
				Partner: g.ints("input.partner")[at*c.S2 : (at+c.Group)*c.S2], Beta: g.floats("input.beta")[at*c.S2 : (at+c.Group)*c.S2],
			}}
		for _, sample := range g.ints("input.samples")[at : at+c.Group] {
			in.Samples = append(in.Samples, int(sample))
		}
		reports, err := m.Step(in, grads, stats, nil)
		if err != nil {
			t.Fatal(err)
		}
		total.Add(reports[0])
		add(sum, grads, 1)
		add(queryStats, stats, 1/groups)
	}
	if err := m.Apply(sum, queryStats, keyStats, c.LR); err != nil {
		t.Fatal(err)
	}
	return total, keys
}
