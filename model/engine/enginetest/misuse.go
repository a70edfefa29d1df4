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

// products: both matrix products, over odd shapes, any number of threads, and
// from several goroutines.
func (s suite) products(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 1))
	normal := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		return v
	}
	one := s.engine(t, engine.Config{Threads: 1}).Products()
	three := s.engine(t, engine.Config{Threads: 3}).Products()
	for _, shape := range [][3]int{{1, 1, 1}, {2, 3, 4}, {7, 33, 5}, {32, 129, 16}, {17, 64, 128}, {64, 257, 31}} {
		m, n, k := shape[0], shape[1], shape[2]
		a, b := normal(m*k), normal(n*k)
		for _, product := range []struct {
			name   string
			do     func(p engine.Products, c []float32)
			factor func(row, col int) int // index into b
		}{
			{"NT", func(p engine.Products, c []float32) { p.NT(m, n, k, a, b, c) }, func(i, j int) int { return j*k + i }},
			{"NN", func(p engine.Products, c []float32) { p.NN(m, n, k, a, b, c) }, func(i, j int) int { return i*n + j }},
		} {
			want := make([]float64, m*n)
			for r := range m {
				for c := range n {
					for i := range k {
						want[r*n+c] += float64(a[r*k+i]) * float64(b[product.factor(i, c)])
					}
				}
			}
			got, other := garbage(m*n), garbage(m*n)
			var wg sync.WaitGroup
			wg.Go(func() { product.do(one, got) })
			wg.Go(func() { product.do(three, other) })
			wg.Go(func() { product.do(three, make([]float32, m*n)) })
			wg.Wait()
			compare(t, product.name, Tolerance, got, want)
			if !slices.Equal(got, other) {
				t.Errorf("%s %v depends on the number of threads", product.name, shape)
			}
		}
	}
}

// badArguments are refused with an error, or panic where the contract says so.
func (s suite) badArguments(t *testing.T) {
	c := named(t, "resnet8, linear head")
	f := newFixture(c, 12)
	st := s.state(t, s.engine(t, engine.Config{Threads: 1}), c.net, f)
	for _, spec := range []engine.Spec{
		{Batch: 0}, {Batch: -1}, {Batch: 1, Mode: 9}, {Batch: 1, Mode: -1}, {Batch: 1, Encoder: 7},
	} {
		if _, err := st.Compile(spec); err == nil {
			t.Errorf("compiling %+v gives no error", spec)
		}
	}
	p := compile(t, st, engine.Spec{Batch: c.batch, Mode: engine.Train})
	want := run(t, p, c.net, f)
	embeddings, grads := make([]float32, len(want.embeddings)), make([]float32, len(want.grads))
	for name, err := range map[string]error{
		"short images":     p.Forward(f.images[1:], embeddings),
		"no images":        p.Forward(nil, embeddings),
		"short embeddings": p.Forward(f.images, embeddings[1:]),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	check(t, p.Forward(f.images, embeddings))
	for name, err := range map[string]error{
		"short gradient of embeddings": p.Backward(f.dEmbeddings[1:], grads, nil),
		"short gradients":              p.Backward(f.dEmbeddings, grads[1:], nil),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	check(t, p.Backward(f.dEmbeddings, grads, nil)) // nothing was spoilt
	if !slices.Equal(grads, want.grads) {
		t.Error("gradients differ after refused arguments")
	}
	good := engine.Update{Grads: want.grads, QueryStatistics: want.statistics, KeyStatistics: want.statistics}
	for name, spoil := range map[string]func(u *engine.Update){
		"gradients":        func(u *engine.Update) { u.Grads = u.Grads[1:] },
		"query statistics": func(u *engine.Update) { u.QueryStatistics = nil },
		"key statistics":   func(u *engine.Update) { u.KeyStatistics = append(u.KeyStatistics, 0) },
	} {
		u := good
		spoil(&u)
		if err := st.Update(u); err == nil {
			t.Errorf("update with %s of wrong length gives no error", name)
		}
		if !slices.Equal(st.Host(engine.QueryParams), f.query) {
			t.Fatalf("a refused update (%s) changed the parameters", name)
		}
	}
	panics(t, "Set with a wrong length", func() { st.Set(engine.QueryParams, f.query[1:]) })

	// A single value has no variance.
	b := network.NewBuilder("single", 3, 1)
	x := b.GlobalAvgPool(b.BatchNorm("bn", 0, false))
	net, err := b.Build(x, b.L2Normalize(x))
	check(t, err)
	single := s.state(t, s.engine(t, engine.Config{}), net, newFixture(testCase{name: "single", net: net, batch: 1}, 1))
	if _, err := single.Compile(engine.Spec{Batch: 1, Mode: engine.Train}); err == nil {
		t.Error("BatchNorm over a single value gives no error")
	}
	compile(t, single, engine.Spec{Batch: 1, Mode: engine.Eval})
	compile(t, single, engine.Spec{Batch: 2, Mode: engine.Train})
}

// nan: bad pixels give an error or NaN embeddings, never a crash or a number
// that looks right, and leave nothing behind.
func (s suite) nan(t *testing.T) {
	e := s.engine(t, engine.Config{Threads: 2})
	for _, c := range cases(t) {
		f := newFixture(c, 13)
		p := compile(t, s.state(t, e, c.net, f), engine.Spec{Batch: c.batch, Mode: engine.Train})
		want := run(t, p, c.net, f)
		bad := slices.Clone(f.images)
		for i := range bad[:c.net.Channels*c.net.ImageSize*c.net.ImageSize] { // the first image
			bad[i] = float32(math.NaN())
		}
		embeddings := garbage(c.batch * c.net.Dim)
		if err := p.Forward(bad, embeddings); err == nil {
			if !slices.ContainsFunc(embeddings[:c.net.Dim], func(e float32) bool { return e != e }) {
				t.Errorf("%s: NaN pixels give the embedding %v", c.name, embeddings[:c.net.Dim])
			}
			// Backward may refuse, but not crash.
			if err := p.Backward(f.dEmbeddings, make([]float32, c.net.NumParams()), nil); err != nil {
				t.Logf("%s: backward: %v", c.name, err)
			}
		}
		sameBits(t, c.name+" after NaN", run(t, p, c.net, f), want)
	}
}
