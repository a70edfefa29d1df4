package loss

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cpu"
)

func mustNew(t testing.TB, cfg Config, d, b, k int) *Loss {
	t.Helper()
	return mustNewOn(t, best, cfg, d, b, k)
}

func mustNewOn(t testing.TB, contrast engine.Contrast, cfg Config, d, b, k int) *Loss {
	t.Helper()
	l, err := New(cfg, d, b, k, contrast)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func mustCompute(t testing.TB, l *Loss, in problem) Output {
	t.Helper()
	if in.Shards == nil {
		in.split(l)
	}
	out := Output{DQ: make([]float32, len(in.Q))}
	if err := l.Compute(in.Input, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// split cuts the queue into the shards of l.
func (in *problem) split(l *Loss) {
	var labels []int32
	if in.Labels != nil {
		labels = in.QueueLabels
	}
	in.Shards = Split(in.Queue, labels, l.dim, l.cfg.Shards)
}

// checkAgainstPlain compares with the implementation that builds every
// synthetic vector: the loss to 1e-5, the gradient to 1e-4 of its terms. (What
// is left is the rounding of float32 similarities, some 1e-7, divided by τ.)
func checkAgainstPlain(t testing.TB, cfg Config, d int, in problem) (all deviation) {
	t.Helper()
	for name, c := range contrasts {
		all.add(checkContrast(t, name, c, cfg, d, in))
	}
	return all
}

// deviation is how far a result is from the plain one's.
type deviation struct {
	loss     float64 // relative
	absolute float64 // of the loss, a query
	grad     float64 // largest difference, against the terms of which the gradient is the sum
}

func (a *deviation) add(b deviation) {
	a.loss, a.absolute, a.grad = max(a.loss, b.loss), max(a.absolute, b.absolute), max(a.grad, b.grad)
}

func checkContrast(t testing.TB, name string, contrast engine.Contrast, cfg Config, d int, in problem) (off deviation) {
	t.Helper()
	b, k := len(in.Samples), len(in.Queue)/d
	l, err := New(cfg, d, b, k, contrast)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := mustCompute(t, l, in)
	want, dq, terms := plainLoss{cfg, d, similarities(t, contrast, in, d, cfg.Shards)}.compute(in)
	// A loss below 1e-30 may have lost exponentials that float32 does not hold.
	if math.Abs(got.Loss-want.Loss) > 1e-5*want.Loss+1e-30*float64(b) {
		t.Errorf("%s: loss %.9g, plain %.9g", name, got.Loss, want.Loss)
	}
	for i := range dq {
		if diff := math.Abs(float64(got.DQ[i]) - dq[i]); !(diff <= 1e-4*terms+1e-30) {
			t.Fatalf("%s: dq[%d] = %g, plain %g (its terms %g)", name, i, got.DQ[i], dq[i], terms)
		}
		if terms > 1e-24 { // below, float32 has lost digits of the exponentials
			off.grad = max(off.grad, math.Abs(float64(got.DQ[i])-dq[i])/terms)
		}
	}
	off.absolute = math.Abs(got.Loss-want.Loss) / float64(b)
	if want.Loss > 1e-30*float64(b) {
		off.loss = math.Abs(got.Loss-want.Loss) / want.Loss
	}
	for _, c := range []struct {
		name      string
		got, want float64
	}{{"PosSim", got.PosSim, want.PosSim}, {"NegSim", got.NegSim, want.NegSim}, {"HardSim", got.HardSim, want.HardSim}, {"HardestSim", got.HardestSim, want.HardestSim}} {
		if math.Abs(c.got-c.want) > 1e-6*float64(b) {
			t.Errorf("%s: %s %g, plain %g", name, c.name, c.got, c.want)
		}
	}
	if got.ProxyHard > got.Proxy {
		t.Errorf("ProxyHard %v exceeds Proxy %v", got.ProxyHard, got.Proxy)
	}
	return off
}

func TestAgainstMaterialisedSynthetics(t *testing.T) {
	for _, c := range []struct{ b, d, k, n, s, s2, v int }{
		{8, 16, 64, 16, 16, 8, 4},
		{8, 16, 64, 16, 100, 70, 4}, // s, s′ > N
		{5, 8, 33, 33, 7, 3, 16},    // N = K, K prime to everything
		{3, 4, 1, 1, 5, 5, 1},       // K = 1
		{3, 4, 1, 1, 5, 5, 16},      // more shards than slots
		{4, 8, 20, 6, 0, 9, 3},      // s = 0
		{4, 8, 20, 6, 9, 0, 3},      // s′ = 0
		{4, 8, 20, 6, 0, 0, 3},      // (N,0,0) is MoCo-v2
		{4, 8, 20, 0, 0, 0, 3},      // MoCo-v2
		{7, 32, 501, 20, 50, 10, 16},
	} {
		for i, tau := range []float64{0.2, 0.07, 0.01, 0.2, 0.01} {
			t.Run(fmt.Sprintf("%+v/τ=%v/%d", c, tau, i), func(t *testing.T) {
				in := example(uint64(c.k), c.b, c.d, c.k)
				cfg := Config{N: c.n, S: c.s, S2: c.s2, PairsInShard: i > 2, Temperature: tau, Shards: c.v, Seed: 3, Threads: 2}
				checkAgainstPlain(t, cfg, c.d, in)
				out := mustCompute(t, mustNew(t, cfg, c.d, c.b, c.k), in)
				want, _, _ := plainLoss{cfg, c.d, similarities(t, best, in, c.d, c.v)}.compute(in)
				if out.Proxy != want.Proxy || out.ProxyHard != want.ProxyHard {
					t.Errorf("proxy %v, %v; plain %v, %v", out.Proxy, out.ProxyHard, want.Proxy, want.ProxyHard)
				}
			})
		}
	}
}

// The gradient is that of the loss with synthetic points held constant.
func TestFiniteDifferences(t *testing.T) {
	const b, d, k, eps = 3, 6, 40, 1e-5
	cfg := Config{N: 10, S: 25, S2: 12, Temperature: 0.2, Shards: 4, Seed: 9}
	in := example(5, b, d, k)
	out := mustCompute(t, mustNew(t, cfg, d, b, k), in)
	plain := plainLoss{cfg, d, similarities(t, best, in, d, cfg.Shards)}
	for i := range b {
		one := plain.query(in, i)
		q := wide(in.Q[i*d : (i+1)*d])
		for x := range q {
			old := q[x]
			q[x] = old + eps
			up, _ := plain.value(q, one)
			q[x] = old - eps
			down, _ := plain.value(q, one)
			q[x] = old
			want := in.Scale * (up - down) / (2 * eps)
			if got := float64(out.DQ[i*d+x]); math.Abs(got-want) > 2e-5 {
				t.Errorf("query %d, dq[%d] = %g, finite difference %g", i, x, got, want)
			}
		}
	}
}

func TestWarmUpIsMoCo(t *testing.T) {
	in := example(11, 6, 8, 50)
	in.Mix = false
	mochi := mustCompute(t, mustNew(t, Config{N: 10, S: 5, S2: 5, Temperature: 0.2, Shards: 4}, 8, 6, 50), in)
	in.Mix = true
	moco := mustCompute(t, mustNew(t, Config{Temperature: 0.2, Shards: 4}, 8, 6, 50), in)
	sameOutput(t, "warm-up against MoCo-v2", mochi, moco)
	if mochi.ProxyHard != mochi.Proxy {
		t.Errorf("without synthetic negatives ProxyHard %v differs from Proxy %v", mochi.ProxyHard, mochi.Proxy)
	}
}

// An untrained pair has about the loss of chance, ln(K+1+s+s′) at most.
func TestUniformLogitsGiveChance(t *testing.T) {
	const k, d = 30, 4
	in := problem{Input: Input{Queries: Queries{Q: []float32{1, 0, 0, 0}, Samples: []int{0}}, Pos: []float32{0, 1, 0, 0}, Scale: 1},
		Queue: make([]float32, k*d)}
	for i := range k {
		in.Queue[i*d+2] = 1
	}
	out := mustCompute(t, mustNew(t, Config{Temperature: 0.2}, d, 1, k), in)
	if want := math.Log(k + 1); math.Abs(out.Loss-want) > 1e-8 {
		t.Errorf("loss %.10f, want ln(K+1) = %.10f", out.Loss, want)
	}
}

func TestDegenerateVectors(t *testing.T) {
	const d, k = 4, 12
	for _, tau := range []float64{0.2, 0.01} {
		in := example(2, 3, d, k)
		copy(in.Q[:d], []float32{1, 0, 0, 0})
		for i := range k {
			row := in.Queue[i*d : (i+1)*d]
			clear(row)
			row[0] = 1 // identical to query 0, and to each other
			if i%2 == 1 {
				row[0] = -1 // opposite: mixtures may vanish
			}
		}
		n, s, s2 := k, 4, 6
		in.Draws = &Draws{First: make([]int32, 3*s), Second: make([]int32, 3*s), Alpha: make([]float32, 3*s),
			Partner: make([]int32, 3*s2), Beta: make([]float32, 3*s2)}
		for i := range in.Draws.First {
			in.Draws.First[i], in.Draws.Second[i] = 0, k-1 // opposite
			in.Draws.Alpha[i] = []float32{0.5, 0.5001, 0.49, 0}[i%4]
		}
		for i := range in.Draws.Partner {
			in.Draws.Partner[i], in.Draws.Beta[i] = k-1, []float32{0.5, 0.4999, 0.45, 0}[i%4]
		}
		checkAgainstPlain(t, Config{N: n, S: s, S2: s2, Temperature: tau}, d, in)
	}
}

func TestClassOracle(t *testing.T) {
	const b, d, k = 6, 8, 40
	in := example(21, b, d, k)
	in.Labels = []int32{0, 1, 2, -1, 3, 4}
	in.QueueLabels = make([]int32, k)
	for i := range in.QueueLabels {
		in.QueueLabels[i] = int32(i%5) - 1 // unknown too
		if i%2 == 0 {
			in.QueueLabels[i] = 4
		}
	}
	cfg := Config{N: 30, S: 40, S2: 10, Temperature: 0.2, Shards: 4, Seed: 1}
	checkAgainstPlain(t, cfg, d, in) // N exceeds what is eligible

	for i := range in.QueueLabels {
		in.QueueLabels[i] = 0
	}
	in.Labels = make([]int32, b)
	out := mustCompute(t, mustNew(t, cfg, d, b, k), in)
	if out.Loss != 0 || out.Proxy != b || out.NegSim != 0 {
		t.Errorf("no negative left: loss %g, proxy %v, want 0 and %d", out.Loss, out.Proxy, b)
	}
	for i, x := range out.DQ {
		if x != 0 {
			t.Fatalf("no negative left, but dq[%d] = %g", i, x)
		}
	}
}

func sameOutput(t testing.TB, what string, a, b Output) {
	t.Helper()
	if a.Loss != b.Loss || a.Proxy != b.Proxy || a.PosSim != b.PosSim || a.NegSim != b.NegSim {
		t.Fatalf("%s: %+v against %+v", what, a, b)
	}
	for i := range a.DQ {
		if math.Float32bits(a.DQ[i]) != math.Float32bits(b.DQ[i]) {
			t.Fatalf("%s: dq[%d] %g against %g", what, i, a.DQ[i], b.DQ[i])
		}
	}
}

// A query's result depends on nothing but the query: not on the batch, the
// blocks, the threads or what was computed before.
func TestIndependentOfBatchBlocksAndThreads(t *testing.T) {
	const b, d, k = 77, 16, 1500
	in := example(31, b, d, k)
	cfg := Config{N: 20, S: 30, S2: 15, Temperature: 0.1, Shards: 8, Seed: 5, Threads: 1}
	whole := mustCompute(t, mustNew(t, cfg, d, b, k), in)
	for _, threads := range []int{2, 3, 7} {
		cfg.Threads = threads
		l := mustNew(t, cfg, d, b, k)
		mustCompute(t, l, example(32, 3, d, k))
		sameOutput(t, fmt.Sprintf("%d threads", threads), mustCompute(t, l, in), whole)
	}
	l := mustNew(t, cfg, d, b, k)
	var sum float64
	for i := range b {
		one := in
		one.Q, one.Pos, one.Samples = in.Q[i*d:(i+1)*d], in.Pos[i*d:(i+1)*d], in.Samples[i:i+1]
		out := mustCompute(t, l, one)
		sum += out.Loss
		for x := range out.DQ {
			if out.DQ[x] != whole.DQ[i*d+x] {
				t.Fatalf("query %d alone: dq[%d] %g, in the batch %g", i, x, out.DQ[x], whole.DQ[i*d+x])
			}
		}
	}
	if sum != whole.Loss {
		t.Errorf("sum of single losses %v, batch %v", sum, whole.Loss)
	}
}

func TestNoAllocations(t *testing.T) {
	in := example(41, 8, 16, 200)
	in.Shards = Split(in.Queue, nil, 16, 16)
	for _, threads := range []int{1, 2} {
		l := mustNewOn(t, cpu.Contrast{}, Config{N: 50, S: 100, S2: 20, Temperature: 0.2, Shards: 16, Threads: threads}, 16, 8, 200)
		out := Output{DQ: make([]float32, len(in.Q))}
		if n := testing.AllocsPerRun(20, func() {
			if err := l.Compute(in.Input, &out); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%d threads: %v allocations a call", threads, n)
		}
	}
}

func TestRefusals(t *testing.T) {
	err := Config{N: 10, S: -1, Temperature: 0, Shards: -2, Threads: -1}.Validate(4)
	for _, part := range []string{"N = 10", "s = -1 must be at least 0", "temperature", "queue-shards: -2", "threads: -1"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Validate: %v does not mention %q", err, part)
		}
	}
	if err := (Config{S: 3, Temperature: 1}).Validate(4); err == nil || !strings.Contains(err.Error(), "without hard ones to mix (N = 0)") {
		t.Errorf("s without N: %v", err)
	}
	if err := DefaultConfig().Validate(16384); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{Temperature: 1}, 0, 1, 4, best); err == nil {
		t.Error("dimension 0 accepted")
	}

	l := mustNew(t, Config{N: 4, S: 2, S2: 2, Temperature: 0.2}, 8, 4, 20)
	for name, spoil := range map[string]func(*problem, *Output){
		"queries":       func(in *problem, out *Output) { in.Samples = nil },
		"Q, Pos and DQ": func(in *problem, out *Output) { out.DQ = out.DQ[1:] },
		"queue shard":   func(in *problem, out *Output) { in.Queue = in.Queue[8:] },
		"class oracle":  func(in *problem, out *Output) { in.Labels = make([]int32, 4) },
		"queue labels":  func(in *problem, out *Output) { in.Labels, in.QueueLabels = make([]int32, 4), make([]int32, 3) },
		"draws":         func(in *problem, out *Output) { in.Draws = &Draws{} },
		"rank 4": func(in *problem, out *Output) {
			in.Draws = &Draws{make([]int32, 8), make([]int32, 8), make([]float32, 8), []int32{0, 4, 0, 0, 0, 0, 0, 0}, make([]float32, 8)}
		},
		"rank -1": func(in *problem, out *Output) {
			in.Draws = &Draws{[]int32{-1, 0, 0, 0, 0, 0, 0, 0}, make([]int32, 8), make([]float32, 8), make([]int32, 8), make([]float32, 8)}
		},
		"not finite": func(in *problem, out *Output) { in.Q[9] = float32(math.NaN()) },
	} {
		in := example(1, 4, 8, 20)
		out := Output{DQ: make([]float32, 32)}
		spoil(&in, &out)
		in.split(l)
		err := l.Compute(in.Input, &out)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "not finite" && (!errors.Is(err, ErrNotFinite) || !strings.Contains(err.Error(), fmt.Sprint("sample ", in.Samples[1]))) {
			t.Errorf("not finite: %v, want ErrNotFinite with the sample", err)
		}
	}
	in := example(1, 4, 8, 20)
	for i := range in.Queue[:8] {
		in.Queue[i] = float32(math.Inf(-1))
	}
	for range 2 {
		in.split(l)
		if err := l.Compute(in.Input, &Output{DQ: make([]float32, 32)}); !errors.Is(err, ErrNotFinite) {
			t.Errorf("infinite queue entry: %v", err)
		}
		in.Labels, in.QueueLabels = []int32{1, 1, 1, 1}, make([]int32, 20) // the same beside dropped ones
		in.QueueLabels[7] = 1
	}
}

// At the temperature of the paper, against a reference in float64 that builds
// every synthetic vector: the loss to 1e-6 relative, and the gradient of every
// query to 1e-6 of its length.
func TestAgainstMaterialisedSyntheticsTo1e6(t *testing.T) {
	const b, d, k = 6, 128, 3000
	for _, c := range []struct{ n, s, s2 int }{{0, 0, 0}, {256, 256, 32}, {128, 1024, 512}, {1024, 1024, 128}} {
		for _, v := range []int{1, 16} {
			for _, inShard := range []bool{false, true} {
				in := example(uint64(c.n), b, d, k)
				cfg := Config{N: c.n, S: c.s, S2: c.s2, PairsInShard: inShard, Temperature: 0.2, Shards: v, Seed: 3, Threads: 2}
				for name, contrast := range contrasts {
					got := mustCompute(t, mustNewOn(t, contrast, cfg, d, b, k), in)
					in.Shards = nil
					want, dq, _ := plainLoss{cfg, d, similarities(t, contrast, in, d, v)}.compute(in)
					if off := math.Abs(got.Loss-want.Loss) / want.Loss; !(off <= 1e-6) {
						t.Errorf("%s, %+v, V = %d, in a shard %v: loss %.9g, plain %.9g: off by %.1e", name, c, v, inShard, got.Loss, want.Loss, off)
					}
					for i := range b {
						var squares, off float64
						for x := i * d; x < (i+1)*d; x++ {
							squares += dq[x] * dq[x]
							off += (float64(got.DQ[x]) - dq[x]) * (float64(got.DQ[x]) - dq[x])
						}
						if off := math.Sqrt(off / squares); !(off <= 1e-6) {
							t.Errorf("%s, %+v, V = %d, in a shard %v: gradient of query %d is off by %.1e", name, c, v, inShard, i, off)
						}
					}
				}
			}
		}
	}
}
