// Package enginetest checks an engine.Engine against the contract of package
// engine: every operation and small residual networks against a deliberately
// plain float64 executor (itself checked by finite differences), statistics,
// the arithmetic of an update to the bit, the order and meaning of callbacks,
// independence of the number of threads, and the reaction to bad input.
//
// An engine's test calls Run; it takes a few seconds.
//
// # bf16
//
// Rounding decorrelates a deep network from its fp32 self within a few layers:
// one value that rounds the other way moves hundreds in the next. So a cosine
// with fp32 says little about one layer. The reference therefore rounds, in
// float64, exactly what an engine stores: weights of convolutions, feature maps
// and their gradients, with BatchNorm, addition and ReLU as one operation.
// Engine onednn is then within a unit of bf16 on every network of the suite but
// one, which amplifies any difference a hundred thousand times and is left out;
// without the rounding it is on none. What is left is luck: fp32 arithmetic puts
// a few values in a hundred thousand on the other side of a boundary between two
// numbers of bf16, and one of them moves hundreds behind it.
//
// An engine whose programs show what they store (engine.Tracer) is held to more:
// every stored value must be what the float64 layer makes of the engine's own
// input, rounded. The reference goes on with the engine's value, so that all
// else is compared as in fp32, on every network. Engine cuda is, on the emulated
// GPU; its gradients of convolutions' weights are rounded to bf16 besides, as
// cuDNN gives them (Promise.RoundsWeightGrads). As whole networks three of them
// are farther than a unit from the reference, by one or two such values each.
// Whole networks are compared with PyTorch's bf16 in tools/parity, as means over
// batches.
package enginetest

import (
	"errors"
	"math"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/network"
)

// Tolerance is the largest accepted difference of small networks from the
// float64 reference, relative to the largest magnitude of the tensor.
const Tolerance = 1e-4

// ToleranceBF16 is the same for bf16, where the reference rounds as the engine
// does: one unit of bf16's last place, which is what a value that falls on the
// other side of a tie moves the largest of its tensor by.
const ToleranceBF16 = 1.0 / 256

// New makes the engine under test.
type New func(engine.Config) (engine.Engine, error)

// Promise is what an engine promises beyond the contract, and is held to.
type Promise struct {
	// SameBits is the largest number of threads with which the engine gives
	// the bits of one thread; 0 = any number. Of run to run it is always asked.
	SameBits int
	// Precision of feature maps: FP32 unless given.
	Precision engine.Precision
	// RoundsWeightGrads says that the gradients of convolutions' weights are
	// rounded to bf16, as a library that has no other output gives them.
	RoundsWeightGrads bool
}

// Run runs the whole suite in subtests of t, on an engine whose bits do not
// depend on the number of threads.
func Run(t *testing.T, newEngine func(engine.Config) (engine.Engine, error)) {
	RunPromise(t, newEngine, Promise{})
}

// RunPromise runs the whole suite on an engine that promises p.
func RunPromise(t *testing.T, newEngine func(engine.Config) (engine.Engine, error), p Promise) {
	s := suite{newEngine, p}
	t.Run("training", s.training)
	t.Run("eval", s.eval)
	t.Run("forward only", s.forwardOnly)
	t.Run("statistics far from zero", s.farStatistics)
	t.Run("zero embedding", s.zeroEmbedding)
	t.Run("threads", s.threads)
	t.Run("backward protocol", s.backwardProtocol)
	t.Run("update", s.update)
	t.Run("programs see updates", s.programsSeeUpdates)
	t.Run("states are independent", s.independentStates)
	t.Run("products", s.products)
	t.Run("configuration", s.configuration)
	t.Run("bad arguments", s.badArguments)
	t.Run("nan", s.nan)
}

// tolerance is that of the precision under test.
func (s suite) tolerance() float64 {
	if s.promise.Precision == engine.BF16 {
		return ToleranceBF16
	}
	return Tolerance
}

// bar is the tolerance of a case. ok is false where a whole network cannot be
// compared: in bf16, without a trace, the one that multiplies the smallest
// difference by a hundred thousand.
func (s suite) bar(c testCase, traced bool) (tolerance float64, ok bool) {
	if s.promise.Precision != engine.BF16 || traced { // nothing is left that rounding to bf16 has moved
		return c.tolerance, true
	}
	return ToleranceBF16, c.tolerance == Tolerance
}

type suite struct {
	new     New
	promise Promise
}

func (s suite) engine(t testing.TB, cfg engine.Config) engine.Engine {
	t.Helper()
	if cfg.Precision == "" {
		cfg.Precision = s.promise.Precision
	}
	e, err := s.new(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, e.Close()) })
	return e
}

func (s suite) state(t testing.TB, e engine.Engine, net *network.Network, f fixture) engine.State {
	t.Helper()
	st, err := e.NewState(net)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, st.Close()) })
	for _, v := range engine.Vectors {
		for _, x := range st.Host(v) {
			if x != 0 {
				t.Fatalf("vector %d of a new state is not zero", v)
			}
		}
	}
	st.Set(engine.QueryParams, f.query)
	st.Set(engine.KeyParams, f.key)
	st.Set(engine.Momentum, f.momentum)
	st.Set(engine.QueryBuffers, f.queryBuffers)
	st.Set(engine.KeyBuffers, f.keyBuffers)
	return st
}

func compile(t testing.TB, st engine.State, spec engine.Spec) engine.Program {
	t.Helper()
	p, err := st.Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, p.Close()) })
	if p.Spec() != spec {
		t.Errorf("Spec() is %+v, compiled was %+v", p.Spec(), spec)
	}
	return p
}

// result is what one run of a program gives.
type result struct{ embeddings, features, statistics, grads []float32 }

// run does one forward, and in mode Train one backward.
func run(t testing.TB, p engine.Program, net *network.Network, f fixture) result {
	t.Helper()
	spec := p.Spec()
	r := result{
		embeddings: garbage(spec.Batch * net.Dim),
		features:   garbage(spec.Batch * net.FeatureDim),
	}
	check(t, p.Forward(f.images, r.embeddings))
	p.Features(r.features)
	if spec.Mode != engine.Eval {
		r.statistics = garbage(net.NumBuffers())
		p.Statistics(r.statistics)
	}
	if spec.Mode == engine.Train {
		r.grads = garbage(net.NumParams())
		check(t, p.Backward(f.dEmbeddings, r.grads, nil))
	}
	return r
}

// training compares everything of a training step with the reference.
func (s suite) training(t *testing.T) {
	e := s.engine(t, engine.Config{Threads: 2})
	for _, c := range cases(t) {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(c, 1)
			st := s.state(t, e, c.net, f)
			if st.Network() != c.net {
				t.Error("Network() is another network")
			}
			for _, enc := range []struct {
				encoder         engine.Encoder
				params, buffers []float32
			}{{engine.Query, f.query, f.queryBuffers}, {engine.Key, f.key, f.keyBuffers}} {
				p := compile(t, st, engine.Spec{Encoder: enc.encoder, Batch: c.batch, Mode: engine.Train})
				got := run(t, p, c.net, f)
				want := s.reference(c.net, c.batch, engine.Train, enc.params, enc.buffers)
				if want.bf16 {
					want.trace = newTrace(t, p)
				}
				tolerance, ok := s.bar(c, want.trace != nil)
				if !ok {
					continue
				}
				compare(t, "embeddings", tolerance, got.embeddings, want.forward(widen(f.images)))
				compare(t, "features", tolerance, got.features, want.values[c.net.Feature])
				compareTensors(t, "statistic", evenly(tolerance), c.net.Buffers, got.statistics, want.statistics)
				compareTensors(t, "gradient", s.gradients(tolerance), c.net.Params, got.grads, want.backward(widen(f.dEmbeddings)))
				if tr := want.trace; tr != nil {
					t.Logf("encoder %d: of %d stored values %d are the other neighbour of a boundary", enc.encoder, tr.values, tr.flipped)
				}
				if c.net.Nodes[c.net.Output].Op == network.OpL2Normalize {
					unitRows(t, got.embeddings, c.net.Dim)
				}
			}
		})
	}
}

// gradients is the tolerance of parameters' gradients: bf16's for those of
// convolutions where the engine says that it rounds them.
func (s suite) gradients(tolerance float64) func(network.Tensor) float64 {
	return func(v network.Tensor) float64 {
		if s.promise.RoundsWeightGrads && len(v.Shape) == 4 {
			return max(tolerance, Tolerance+ToleranceBF16)
		}
		return tolerance
	}
}

// eval uses the running statistics.
func (s suite) eval(t *testing.T) {
	e := s.engine(t, engine.Config{Threads: 2})
	for _, c := range cases(t) {
		tolerance, ok := s.bar(c, false)
		if !ok {
			continue
		}
		f := newFixture(c, 2)
		st := s.state(t, e, c.net, f)
		for _, enc := range []struct {
			encoder         engine.Encoder
			params, buffers []float32
		}{{engine.Query, f.query, f.queryBuffers}, {engine.Key, f.key, f.keyBuffers}} {
			p := compile(t, st, engine.Spec{Encoder: enc.encoder, Batch: c.batch, Mode: engine.Eval})
			got := run(t, p, c.net, f)
			want := s.reference(c.net, c.batch, engine.Eval, enc.params, enc.buffers)
			compare(t, c.name+": embeddings", tolerance, got.embeddings, want.forward(widen(f.images)))
			compare(t, c.name+": features", tolerance, got.features, want.values[c.net.Feature])
		}
	}
}

// forwardOnly gives the same bits as the forward half of training.
func (s suite) forwardOnly(t *testing.T) {
	e := s.engine(t, engine.Config{Threads: 2})
	for _, c := range cases(t) {
		f := newFixture(c, 3)
		st := s.state(t, e, c.net, f)
		train := run(t, compile(t, st, engine.Spec{Batch: c.batch, Mode: engine.Train}), c.net, f)
		p := compile(t, st, engine.Spec{Batch: c.batch, Mode: engine.Forward})
		forward := run(t, p, c.net, f)
		train.grads = nil
		sameBits(t, c.name, forward, train)
		sameBits(t, c.name+", again", run(t, p, c.net, f), train)
		if err := p.Backward(f.dEmbeddings, make([]float32, c.net.NumParams()), nil); err == nil {
			t.Errorf("%s: Backward in mode Forward gives no error", c.name)
		}
	}
}

// farStatistics: a mean a hundred times the deviation must not cost the
// variance its digits.
func (s suite) farStatistics(t *testing.T) {
	b := network.NewBuilder("far", 3, 6)
	x := b.GlobalAvgPool(b.BatchNorm("bn", 0, true))
	net, err := b.Build(x, b.L2Normalize(x))
	check(t, err)
	c := testCase{"far", net, 3, s.tolerance()}
	f := newFixture(c, 4)
	for i := range f.images {
		f.images[i] += 100
	}
	st := s.state(t, s.engine(t, engine.Config{}), net, f)
	got := run(t, compile(t, st, engine.Spec{Batch: c.batch, Mode: engine.Train}), net, f)
	want := s.reference(net, c.batch, engine.Train, f.query, f.queryBuffers)
	compare(t, "embeddings", c.tolerance, got.embeddings, want.forward(widen(f.images)))
	compareTensors(t, "statistic", evenly(c.tolerance), net.Buffers, got.statistics, want.statistics)
}

// zeroEmbedding: rows of zeros stay zeros and their gradients finite.
func (s suite) zeroEmbedding(t *testing.T) {
	b := network.NewBuilder("zero", 3, 4)
	x := b.GlobalAvgPool(b.Conv("conv", 0, 5, 3, 1, 1))
	net, err := b.Build(x, b.L2Normalize(x))
	check(t, err)
	f := newFixture(testCase{name: "zero", net: net, batch: 2}, 5)
	clear(f.images[:3*4*4])
	st := s.state(t, s.engine(t, engine.Config{}), net, f)
	got := run(t, compile(t, st, engine.Spec{Batch: 2, Mode: engine.Train}), net, f)
	for _, e := range got.embeddings[:net.Dim] {
		if e != 0 {
			t.Fatalf("embedding of a zero image is %v", got.embeddings[:net.Dim])
		}
	}
	for _, g := range got.grads {
		if math.IsNaN(float64(g)) || math.IsInf(float64(g), 0) {
			t.Fatalf("gradients are %v", got.grads)
		}
	}
}

// threads do not change a bit, nor do runs.
func (s suite) threads(t *testing.T) {
	for _, c := range cases(t) {
		f := newFixture(c, 6)
		var first result
		for threads := 1; threads <= 3; threads++ {
			e := s.engine(t, engine.Config{Threads: threads})
			if e.Info().Threads != threads || e.Info().Name == "" || e.Info().Device == "" {
				t.Errorf("asked for %d threads, running is %+v", threads, e.Info())
			}
			p := compile(t, s.state(t, e, c.net, f), engine.Spec{Batch: c.batch, Mode: engine.Train})
			if threads == 1 || s.promise.SameBits > 0 && threads > s.promise.SameBits {
				first = run(t, p, c.net, f)
			}
			sameBits(t, c.name, run(t, p, c.net, f), first)
		}
	}
}

func (s suite) configuration(t *testing.T) {
	if e, err := s.new(engine.Config{Precision: "fp7"}); err == nil {
		check(t, e.Close())
		t.Error("precision fp7 gives no error")
	} else if !errors.Is(err, engine.ErrUnsupported) {
		t.Errorf("precision fp7: %v does not wrap ErrUnsupported", err)
	}
	for _, precision := range []engine.Precision{engine.TF32, engine.BF16} {
		e, err := s.new(engine.Config{Precision: precision})
		if err == nil {
			check(t, e.Close())
		} else if !errors.Is(err, engine.ErrUnsupported) || !strings.Contains(err.Error(), string(precision)) || !strings.Contains(err.Error(), string(engine.FP32)) {
			t.Errorf("precision %s: %v does not wrap ErrUnsupported, or does not say what there is", precision, err)
		}
	}
	if e := s.engine(t, engine.Config{Precision: engine.FP32}); e.Info().Threads < 1 {
		t.Errorf("with threads 0 the engine runs %d", e.Info().Threads)
	}
	if e, err := s.new(engine.Config{Threads: -1}); err == nil {
		check(t, e.Close())
		t.Error("-1 threads give no error")
	}
}
