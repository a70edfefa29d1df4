package model_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"mochi/model"
	"mochi/model/engine"
	"mochi/model/figures"
	"mochi/model/loss"
	"mochi/model/network"
)

const (
	testPixels = 3 * 2 * 2
	testDim    = 4
	testK      = 30
	testGroup  = 4
)

func tinyNetwork() *network.Network {
	return &network.Network{Arch: "fake", Channels: 3, ImageSize: 2, Dim: testDim, FeatureDim: testPixels,
		Params:  []network.Tensor{{Name: "fc.weight", Shape: []int{testDim, testPixels}, Size: testDim * testPixels, Init: network.InitLinearUniform, FanIn: testPixels}},
		Buffers: []network.Tensor{{Name: "running_mean", Shape: []int{1}, Size: 1}}}
}

func tinyConfig() model.Config {
	return model.Config{BNGroup: testGroup, Queue: testK,
		Loss:     loss.Config{N: 8, S: 12, S2: 5, Temperature: 0.2, Shards: 4, Seed: 3},
		Momentum: 0.99, SGDMomentum: 0.9, WeightDecay: 1e-4}
}

func newTiny(t *testing.T) (*model.MoCo, *fakeEngine) {
	t.Helper()
	eng := &fakeEngine{failCompile: -1}
	m, err := model.New(eng, tinyNetwork(), tinyConfig())
	if err != nil {
		t.Fatal(err)
	}
	m.InitState(1)
	return m, eng
}

func noise(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func unitRows(r *rand.Rand, n, d int) []float32 {
	x := noise(r, n*d)
	for i := range n {
		var s float64
		for _, v := range x[i*d : (i+1)*d] {
			s += float64(v) * float64(v)
		}
		for j := range d {
			x[i*d+j] /= float32(math.Sqrt(s))
		}
	}
	return x
}

func tinyInput(seed uint64) model.StepInput {
	r := rand.New(rand.NewPCG(seed, 1))
	return model.StepInput{Images: noise(r, testGroup*testPixels), Positives: unitRows(r, testGroup, testDim),
		Samples: []int{3, 1, 4, 15}, Shards: loss.Split(unitRows(rand.New(rand.NewPCG(9, 9)), testK, testDim), nil, testDim, 4),
		Step: 5, BatchSize: 3 * testGroup, Mix: true}
}

func TestInitState(t *testing.T) {
	m, _ := newTiny(t)
	q, k := m.State().Host(engine.QueryParams), m.State().Host(engine.KeyParams)
	if !slices.Equal(q, k) {
		t.Error("the key encoder does not start as a copy of the query encoder")
	}
	params, _ := m.Network().Init(1)
	if !slices.Equal(q, params) || slices.Max(q) == 0 {
		t.Error("the query encoder does not start as network.Init draws it")
	}
	m.State().Set(engine.Momentum, params)
	m.InitState(2)
	if slices.Equal(q, params) {
		t.Error("another seed gives the same parameters")
	}
	if v := m.State().Host(engine.Momentum); slices.Max(v) != 0 || slices.Min(v) != 0 {
		t.Error("momentum does not start at 0")
	}
}

// What a group leaves is the gradient of its part of the mean loss, to be
// added up over groups.
func TestStepGradientIsThatOfTheMeanLoss(t *testing.T) {
	m, eng := newTiny(t)
	in := tinyInput(1)
	in.Mix = false // with mixing, the loss that is differentiated holds the synthetic points constant
	grads, stats := make([]float32, testDim*testPixels), make([]float32, 1)
	var readied []int
	reports, err := m.Step(in, grads, stats, func(p int) { readied = append(readied, p) })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(readied, []int{0}) {
		t.Errorf("ready called for %v, want [0]", readied)
	}
	if reports[0].Samples != testGroup || reports[0].Loss <= 0 {
		t.Errorf("report %+v", reports[0])
	}
	w := eng.state.vectors[engine.QueryParams]
	lossAt := func() float64 {
		r, err := m.Step(in, make([]float32, len(grads)), make([]float32, 1), nil)
		if err != nil {
			t.Fatal(err)
		}
		return r[0].Loss
	}
	const eps = 1e-2
	for i := range w {
		old := w[i]
		w[i] = old + eps
		up := lossAt()
		w[i] = old - eps
		down := lossAt()
		w[i] = old
		want := (up - down) / (2 * eps) / float64(in.BatchSize)
		if math.Abs(float64(grads[i])-want) > 2e-3 {
			t.Errorf("gradient %d is %g, finite difference %g", i, grads[i], want)
		}
	}
}

// A group leaves the same bits whatever ran before it on the same pair.
func TestGroupsAreIndependent(t *testing.T) {
	a, _ := newTiny(t)
	b, _ := newTiny(t)
	run := func(m *model.MoCo, seed uint64) ([]float32, []float32, float64) {
		grads, stats := make([]float32, testDim*testPixels), make([]float32, 1)
		r, err := m.Step(tinyInput(seed), grads, stats, nil)
		if err != nil {
			t.Fatal(err)
		}
		return grads, stats, r[0].Loss
	}
	run(a, 1)
	g1, s1, l1 := run(a, 2)
	g2, s2, l2 := run(b, 2)
	if !slices.Equal(g1, g2) || !slices.Equal(s1, s2) || l1 != l2 {
		t.Error("a group's gradient depends on the group before it")
	}
}

func TestKeysUseTheKeyEncoder(t *testing.T) {
	m, eng := newTiny(t)
	images := tinyInput(1).Images
	keys, again, stats := make([]float32, testGroup*testDim), make([]float32, testGroup*testDim), make([]float32, 1)
	if err := m.Keys(images, keys, stats); err != nil {
		t.Fatal(err)
	}
	if stats[0] == 0 {
		t.Error("no batch statistics")
	}
	for i := range eng.state.vectors[engine.QueryParams] {
		eng.state.vectors[engine.QueryParams][i]++
	}
	if err := m.Keys(images, again, stats); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(keys, again) {
		t.Error("keys depend on the query encoder")
	}
}

func TestApplyPassesTheSettings(t *testing.T) {
	m, eng := newTiny(t)
	grads, qs, ks := make([]float32, testDim*testPixels), []float32{1}, []float32{2}
	if err := m.Apply(grads, qs, ks, 0.03); err != nil {
		t.Fatal(err)
	}
	u := eng.state.updates[0]
	if u.Trust != 0 || u.LR != 0.03 || u.SGDMomentum != 0.9 || u.WeightDecay != 1e-4 || u.EncoderMomentum != 0.99 ||
		&u.Grads[0] != &grads[0] || u.QueryStatistics[0] != 1 || u.KeyStatistics[0] != 2 {
		t.Errorf("update %+v", u)
	}
}

// LARS is the engine's, with the coefficient of its authors' code.
func TestApplyWithLARS(t *testing.T) {
	eng, cfg := &fakeEngine{failCompile: -1}, tinyConfig()
	cfg.LARS = true
	m, err := model.New(eng, tinyNetwork(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(make([]float32, testDim*testPixels), []float32{1}, []float32{2}, 0.03); err != nil {
		t.Fatal(err)
	}
	if u := eng.state.updates[0]; u.Trust != 0.001 || u.WeightDecay != 1e-4 {
		t.Errorf("update %+v", u)
	}
}

func TestReportAdds(t *testing.T) {
	one := model.Report{Samples: 1, Figures: figures.Figures{Loss: 2, Proxy: 3, ProxyHard: 4, PosSim: 5, NegSim: 6, HardSim: 7}, Forward: 8, Criterion: 9, Backward: 10}
	sum := one
	sum.Add(one)
	want := model.Report{Samples: 2, Figures: figures.Figures{Loss: 4, Proxy: 6, ProxyHard: 8, PosSim: 10, NegSim: 12, HardSim: 14}, Forward: 16, Criterion: 18, Backward: 20}
	if sum != want {
		t.Errorf("%+v, want %+v", sum, want)
	}
}

func TestRefusals(t *testing.T) {
	m, eng := newTiny(t)
	params, one := make([]float32, testDim*testPixels), make([]float32, 1)
	keys := make([]float32, testGroup*testDim)
	step := func(spoil func(*model.StepInput)) error {
		in := tinyInput(1)
		spoil(&in)
		_, err := m.Step(in, params, one, nil)
		return err
	}
	for want, err := range map[string]error{
		"images: 1 values, want 48":    m.Keys(one, keys, one),
		"keys: 1 values, want 16":      m.Keys(tinyInput(1).Images, one, one),
		"statistics: 48 values":        m.Keys(tinyInput(1).Images, keys, params),
		"step 5: images: 47":           step(func(in *model.StepInput) { in.Images = in.Images[1:] }),
		"3 samples, want a group of 4": step(func(in *model.StepInput) { in.Samples = in.Samples[1:] }),
		"global batch of 3":            step(func(in *model.StepInput) { in.BatchSize = 3 }),
		"3 shards":                     step(func(in *model.StepInput) { in.Shards = in.Shards[1:] }),
		"not finite":                   step(func(in *model.StepInput) { in.Images[0] = float32(math.NaN()) }),
		"gradients: 1 values":          m.Apply(one, one, one, 1),
		"query statistics: 48 values":  m.Apply(params, params, one, 1),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if err := step(func(in *model.StepInput) { in.Images[0] = float32(math.NaN()) }); !errors.Is(err, loss.ErrNotFinite) {
		t.Errorf("NaN image: %v, want ErrNotFinite", err)
	}
	if err := m.Close(); err != nil || eng.open != 0 {
		t.Errorf("Close: %v, %d states and programs left open", err, eng.open)
	}
}

func TestNewRefusals(t *testing.T) {
	bad := model.Config{BNGroup: 1, Queue: 4, Momentum: 1, SGDMomentum: -0.1, WeightDecay: -1, Loss: loss.Config{N: 9, Temperature: 0.2}}
	_, err := model.New(&fakeEngine{failCompile: -1}, tinyNetwork(), bad)
	for _, part := range []string{"bn-group", "momentum", "sgd-momentum", "weight-decay", "N = 9"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not mention %q", err, part)
		}
	}
	if err := model.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for _, mode := range []engine.Mode{engine.Train, engine.Forward} {
		eng := &fakeEngine{failCompile: mode}
		_, err := model.New(eng, tinyNetwork(), tinyConfig())
		if err == nil || !strings.Contains(err.Error(), "compile") || eng.open != 0 {
			t.Errorf("mode %v does not compile: %v, %d left open", mode, err, eng.open)
		}
	}
}

// newTogether makes a pair that is to compute n groups at once, and does
// unless the engine's state has no such programs (-2), or none of a mode.
func newTogether(t *testing.T, n int, unsupported engine.Mode) (*model.MoCo, *fakeEngine) {
	t.Helper()
	eng := &fakeEngine{failCompile: -1, together: unsupported > -2, unsupported: unsupported}
	cfg := tinyConfig()
	cfg.GroupsAtOnce = n
	m, err := model.New(eng, tinyNetwork(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.InitState(1)
	return m, eng
}

// Several groups at once leave what they leave one after the other: keys,
// statistics, gradients, each in its row, and a report each. The loss and its
// gradient go through one pass over the queue.
func TestGroupsAtOnceAreThoseOneByOne(t *testing.T) {
	const n = 3
	one, _ := newTiny(t)
	all, _ := newTogether(t, n, -1)
	if one.GroupsAtOnce() != 1 || all.GroupsAtOnce() != n {
		t.Fatalf("%d and %d groups at once", one.GroupsAtOnce(), all.GroupsAtOnce())
	}
	const params = testDim * testPixels
	type left struct{ keys, keyStats, q, qStats, grads, stats, again []float32 }
	run := func(m *model.MoCo, in model.StepInput, n int) (l left, reports []model.Report) {
		t.Helper()
		l = left{make([]float32, n*testGroup*testDim), make([]float32, n), make([]float32, n*testGroup*testDim), make([]float32, n),
			make([]float32, n*params), make([]float32, n), make([]float32, n*params)}
		readied := 0
		err := errors.Join(m.Keys(in.Images, l.keys, l.keyStats), m.Forward(in.Images, l.q, l.qStats), m.Backward(l.keys, l.again, nil))
		if err != nil {
			t.Fatal(err)
		}
		step, err := m.Step(in, l.grads, l.stats, func(int) { readied++ })
		if err != nil {
			t.Fatal(err)
		}
		if readied != 1 || len(step) != n {
			t.Errorf("%d groups: ready was called %d times for one parameter, %d reports", n, readied, len(step))
		}
		for _, r := range step {
			r.Forward, r.Criterion, r.Backward = 0, 0, 0
			reports = append(reports, r)
		}
		return l, reports
	}
	classes := make([]int32, testK)
	for i := range classes {
		classes[i] = int32(i % 6)
	}
	for _, mix := range []bool{false, true} {
		var in model.StepInput
		var want left
		var wantReports []model.Report
		for j := range n {
			of := tinyInput(uint64(j + 1))
			of.Mix, of.Samples, of.Labels = mix, []int{4 * j, 4*j + 1, 4*j + 2, 4*j + 3}, []int32{0, 1, 2, int32(j)}
			of.Shards = loss.Split(unitRows(rand.New(rand.NewPCG(9, 9)), testK, testDim), classes, testDim, 4)
			l, reports := run(one, of, 1)
			want = left{append(want.keys, l.keys...), append(want.keyStats, l.keyStats...), append(want.q, l.q...), append(want.qStats, l.qStats...),
				append(want.grads, l.grads...), append(want.stats, l.stats...), append(want.again, l.again...)}
			wantReports = append(wantReports, reports...)
			images, positives, samples, labels := in.Images, in.Positives, in.Samples, in.Labels
			in = of
			in.Images, in.Positives = append(images, of.Images...), append(positives, of.Positives...)
			in.Samples, in.Labels = append(samples, of.Samples...), append(labels, of.Labels...)
		}
		got, reports := run(all, in, n)
		for name, v := range map[string][2][]float32{"keys": {got.keys, want.keys}, "key statistics": {got.keyStats, want.keyStats},
			"queries": {got.q, want.q}, "query statistics": {got.qStats, want.qStats}, "gradients": {got.grads, want.grads},
			"statistics": {got.stats, want.stats}, "gradients of Backward": {got.again, want.again}} {
			if !slices.Equal(v[0], v[1]) {
				t.Errorf("mix %v: %s are not those of one group at a time", mix, name)
			}
		}
		if !slices.Equal(reports, wantReports) {
			t.Errorf("mix %v: reports\n%+v, want\n%+v", mix, reports, wantReports)
		}
		if wantReports[0] == wantReports[1] {
			t.Error("two groups report the same: the test shows nothing")
		}
	}
}

// An engine that has no programs of several groups, or not of both encoders,
// computes one at a time; an engine that fails is not asked again.
func TestGroupsAtOnceWhereTheEngineCannot(t *testing.T) {
	for _, unsupported := range []engine.Mode{-2, engine.Forward, engine.Train} {
		m, eng := newTogether(t, 3, unsupported)
		if m.GroupsAtOnce() != 1 || eng.open != 3 {
			t.Errorf("unsupported %d: %d groups at once; %d states and programs are open, want a state and two programs", unsupported, m.GroupsAtOnce(), eng.open)
		}
		if _, err := m.Step(tinyInput(1), make([]float32, testDim*testPixels), make([]float32, 1), nil); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil || eng.open != 0 {
			t.Errorf("Close: %v, %d left open", err, eng.open)
		}
	}
	cfg := tinyConfig()
	cfg.GroupsAtOnce = 3
	eng := &fakeEngine{failCompile: engine.Train, together: true, unsupported: -1}
	if _, err := model.New(eng, tinyNetwork(), cfg); err == nil || errors.Is(err, engine.ErrUnsupported) {
		t.Errorf("does not compile: %v", err)
	}
	m, _ := newTogether(t, 3, -1)
	in := tinyInput(1)
	for want, err := range map[string]error{
		"images: 48 values, want 144": m.Keys(in.Images, nil, nil),
		"4 samples, want 3 groups of 4": func() error {
			_, err := m.Step(in, nil, nil, nil)
			return err
		}(),
		"gradients: 1 values, want 144": m.Backward(nil, make([]float32, 1), nil),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	cfg.GroupsAtOnce = -1
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "groups-at-once") {
		t.Errorf("-1 groups at once: %v", err)
	}
}
