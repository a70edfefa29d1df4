package enginetest

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"mochi/model/engine"
	"mochi/model/network"
)

// backwardProtocol: ready names every parameter once, when its gradient is
// final; Backward follows a Forward, once.
func (s suite) backwardProtocol(t *testing.T) {
	e := s.engine(t, engine.Config{Threads: 2})
	for _, c := range cases(t) {
		f := newFixture(c, 7)
		p := compile(t, s.state(t, e, c.net, f), engine.Spec{Batch: c.batch, Mode: engine.Train})
		grads := make([]float32, c.net.NumParams())
		if err := p.Backward(f.dEmbeddings, grads, nil); err == nil {
			t.Errorf("%s: Backward before any Forward gives no error", c.name)
		}
		want := run(t, p, c.net, f)
		if err := p.Backward(f.dEmbeddings, grads, nil); err == nil {
			t.Errorf("%s: a second Backward gives no error", c.name)
		}

		// Two forwards in a row: the second counts.
		other := slices.Clone(f.images)
		slices.Reverse(other)
		embeddings := make([]float32, c.batch*c.net.Dim)
		check(t, p.Forward(other, embeddings))
		check(t, p.Forward(f.images, embeddings))
		seen := make([]int, len(c.net.Params))
		copy(grads, garbage(len(grads)))
		check(t, p.Backward(f.dEmbeddings, grads, func(param int) {
			seen[param]++
			at := c.net.Params[param]
			if !slices.Equal(grads[at.Offset:at.Offset+at.Size], want.grads[at.Offset:at.Offset+at.Size]) {
				t.Errorf("%s: gradient of %s is not final when ready is called", c.name, at.Name)
			}
		}))
		for i, n := range seen {
			if n != 1 {
				t.Errorf("%s: ready was called %d times for %s", c.name, n, c.net.Params[i].Name)
			}
		}
		if !slices.Equal(grads, want.grads) {
			t.Errorf("%s: gradients differ after a repeated Forward", c.name)
		}

		// Backward is linear in its argument, exactly for powers of two.
		twice := slices.Clone(f.dEmbeddings)
		for i := range twice {
			twice[i] *= 2
		}
		check(t, p.Forward(f.images, embeddings))
		check(t, p.Backward(twice, grads, nil))
		for i, g := range want.grads {
			if grads[i] != 2*g {
				t.Errorf("%s: twice the gradient of the embeddings gives %g, want %g", c.name, grads[i], 2*g)
				break
			}
		}
	}
}

// large has enough parameters for an update to be cut into parts, tensors of
// one value and of many, and weights of one piece of LARS and of several.
func large(t *testing.T) *network.Network {
	b := network.NewBuilder("large", 3, 4)
	x := b.Conv("tiny", 0, 1, 1, 1, 0)
	x = b.GlobalAvgPool(b.BatchNorm("bn", b.Conv("conv", x, 301, 1, 1, 0), true))
	net, err := b.Build(x, b.L2Normalize(b.Linear("fc.2", b.ReLU(b.Linear("fc.1", x, 151)), 203)))
	check(t, err)
	return net
}

// update is right to the bit: every product and sum rounded to float32.
func (s suite) update(t *testing.T) {
	t.Run("sgd", func(t *testing.T) { s.updates(t, 0) })
	t.Run("lars", func(t *testing.T) { s.updates(t, 0.02) })
}

func (s suite) updates(t *testing.T, trust float32) {
	net := large(t)
	f := newFixture(testCase{name: "large", net: net, batch: 2}, 8)
	st := s.state(t, s.engine(t, engine.Config{Threads: 3}), net, f)
	rng := rand.New(rand.NewPCG(9, 9))
	normal := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		return v
	}
	rates := map[float32]bool{}
	for step := range 4 {
		u := engine.Update{
			Grads: normal(net.NumParams()), QueryStatistics: normal(net.NumBuffers()), KeyStatistics: normal(net.NumBuffers()),
			LR: 0.03 * (1 + rng.Float32()), SGDMomentum: 0.9, WeightDecay: 1e-4, EncoderMomentum: 0.999, Trust: trust,
		}
		of := net.Params[slices.IndexFunc(net.Params, func(p network.Tensor) bool { return p.Name == "fc.1.weight" })]
		switch part := f.query[of.Offset:][:of.Size]; step {
		case 2: // a weight of zeros
			clear(part)
			st.Set(engine.QueryParams, f.query)
		case 3: // u = 0
			for i, w := range part {
				part[i] = w + 1
				u.Grads[of.Offset+i] = -mul(u.WeightDecay, part[i])
			}
			st.Set(engine.QueryParams, f.query)
		}
		for _, p := range net.Params {
			weights, grads := f.query[p.Offset:][:p.Size], u.Grads[p.Offset:][:p.Size]
			decay, rate := u.WeightDecay, float32(1)
			if trust != 0 {
				if rate = larsRate(p, trust, decay, weights, grads); len(p.Shape) < 2 {
					decay = 0
				}
				rates[rate] = true
			}
			for i, g := range grads {
				at := p.Offset + i
				g := mul(rate, add(g, mul(decay, f.query[at])))
				f.momentum[at] = add(mul(u.SGDMomentum, f.momentum[at]), g)
				f.query[at] = add(f.query[at], -mul(u.LR, f.momentum[at]))
				f.key[at] = add(mul(u.EncoderMomentum, f.key[at]), mul(add(1, -u.EncoderMomentum), f.query[at]))
			}
		}
		for i := range u.QueryStatistics {
			f.queryBuffers[i] = add(mul(0.9, f.queryBuffers[i]), mul(0.1, u.QueryStatistics[i]))
			f.keyBuffers[i] = add(mul(0.9, f.keyBuffers[i]), mul(0.1, u.KeyStatistics[i]))
		}
		kept := slices.Clone(u.Grads)
		check(t, st.Update(u))
		if !slices.Equal(u.Grads, kept) {
			t.Error("Update changed the caller's gradients")
		}
		for v, want := range map[engine.Vector][]float32{
			engine.QueryParams: f.query, engine.KeyParams: f.key, engine.Momentum: f.momentum,
			engine.QueryBuffers: f.queryBuffers, engine.KeyBuffers: f.keyBuffers,
		} {
			if !slices.Equal(st.Host(v), want) {
				t.Errorf("step %d: vector %d is not right to the bit after an update", step, v)
			}
		}
	}
	if trust != 0 && len(rates) < 10 {
		t.Errorf("only %d different rates: the test shows little", len(rates))
	}
}

// larsRate is q of a tensor as optim.Lanes says, written as a recursion.
func larsRate(p network.Tensor, trust, decay float32, weights, grads []float32) float32 {
	if len(p.Shape) < 2 {
		return 1
	}
	norm := func(value func(i int) float32) float64 {
		var pieces []float64
		for from := 0; from < p.Size; from += 16384 {
			n := min(16384, p.Size-from)
			pieces = append(pieces, laneSum(n, 0, 1, func(i int) float64 {
				x := float64(value(from + i))
				return x * x
			}))
		}
		return math.Sqrt(laneSum(len(pieces), 0, 1, func(i int) float64 { return pieces[i] }))
	}
	w := norm(func(i int) float32 { return weights[i] })
	u := norm(func(i int) float32 { return add(grads[i], mul(decay, weights[i])) })
	if w == 0 || u == 0 {
		return 1
	}
	return float32(float64(trust) * w / u)
}

// laneSum is the sum of the values i = lane mod every of n: a lane's own in
// their order, two lanes' after they have been halved.
func laneSum(n, lane, every int, value func(i int) float64) (sum float64) {
	if every < 256 {
		return laneSum(n, lane, 2*every, value) + laneSum(n, lane+every, 2*every, value)
	}
	for i := lane; i < n; i += every {
		sum += value(i)
	}
	return sum
}

// mul and add round once, to float32: the functions are not inlined, so that
// no product can be fused with a sum.
//
//go:noinline
func mul(a, b float32) float32 { return a * b }

//go:noinline
func add(a, b float32) float32 { return a + b }

// programsSeeUpdates: a program compiled before an update computes like one
// compiled after it on the new vectors.
func (s suite) programsSeeUpdates(t *testing.T) {
	for _, c := range []testCase{named(t, "resnet8, linear head"), named(t, "resnet8, mlp head")} {
		f := newFixture(c, 10)
		e := s.engine(t, engine.Config{Threads: 2})
		old := s.state(t, e, c.net, f)
		specs := []engine.Spec{
			{Encoder: engine.Query, Batch: c.batch, Mode: engine.Train},
			{Encoder: engine.Query, Batch: c.batch, Mode: engine.Eval},
			{Encoder: engine.Key, Batch: c.batch, Mode: engine.Forward},
			{Encoder: engine.Key, Batch: c.batch, Mode: engine.Eval},
		}
		var programs []engine.Program
		var before []result
		for _, spec := range specs {
			p := compile(t, old, spec)
			programs = append(programs, p)
			before = append(before, run(t, p, c.net, f))
		}
		check(t, old.Update(engine.Update{
			Grads: before[0].grads, QueryStatistics: before[0].statistics, KeyStatistics: before[2].statistics,
			LR: 0.5, SGDMomentum: 0.9, WeightDecay: 1e-2, EncoderMomentum: 0.5,
		}))
		fresh := s.state(t, e, c.net, f)
		for _, v := range engine.Vectors {
			fresh.Set(v, slices.Clone(old.Host(v)))
		}
		for i, spec := range specs {
			got := run(t, programs[i], c.net, f)
			if slices.Equal(got.embeddings, before[i].embeddings) {
				t.Errorf("%s: %+v computes as before the update", c.name, spec)
			}
			sameBits(t, c.name, got, run(t, compile(t, fresh, spec), c.net, f))
		}
	}
}

// independentStates run at the same time without changing each other's bits.
func (s suite) independentStates(t *testing.T) {
	c := named(t, "resnet8, linear head")
	e := s.engine(t, engine.Config{Threads: 2})
	const steps = 3
	train := func(seed uint64) []float32 {
		f := newFixture(c, seed)
		st, err := e.NewState(c.net)
		if err != nil {
			t.Error(err)
			return nil
		}
		defer func() { check(t, st.Close()) }()
		st.Set(engine.QueryParams, f.query)
		st.Set(engine.KeyParams, f.key)
		query, err := st.Compile(engine.Spec{Encoder: engine.Query, Batch: c.batch, Mode: engine.Train})
		if err != nil {
			t.Error(err)
			return nil
		}
		key, err := st.Compile(engine.Spec{Encoder: engine.Key, Batch: c.batch, Mode: engine.Forward})
		if err != nil {
			t.Error(err)
			return nil
		}
		embeddings := make([]float32, c.batch*c.net.Dim)
		u := engine.Update{
			Grads:           make([]float32, c.net.NumParams()),
			QueryStatistics: make([]float32, c.net.NumBuffers()), KeyStatistics: make([]float32, c.net.NumBuffers()),
			LR: 0.1, SGDMomentum: 0.9, EncoderMomentum: 0.9,
		}
		for range steps {
			check(t, query.Forward(f.images, embeddings))
			check(t, key.Forward(f.images, embeddings))
			check(t, query.Backward(embeddings, u.Grads, nil))
			query.Statistics(u.QueryStatistics)
			key.Statistics(u.KeyStatistics)
			check(t, st.Update(u))
		}
		check(t, query.Close())
		check(t, key.Close())
		return slices.Clone(st.Host(engine.KeyParams))
	}
	const replicas = 3
	var together [replicas][]float32
	var wg sync.WaitGroup
	for i := range replicas {
		wg.Go(func() { together[i] = train(uint64(i)) })
	}
	wg.Wait()
	for i := range replicas {
		if alone := train(uint64(i)); !slices.Equal(alone, together[i]) {
			t.Errorf("state %d has other bits when others run beside it", i)
		}
	}
}
