package probe

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mochi/model/engine/cpu"
)

// clouds is n points of classes that overlap.
func clouds(n, dim, classes int, spread float64, seed uint64) Data {
	d := Data{Dim: dim, Classes: classes}
	centres := rand.New(rand.NewPCG(1, uint64(dim)))
	middle := make([]float64, classes*dim)
	for i := range middle {
		middle[i] = centres.NormFloat64()
	}
	rng := rand.New(rand.NewPCG(seed, 2))
	for i := range n {
		c := i % classes
		for j := range dim {
			d.X = append(d.X, float32(middle[c*dim+j]+spread*rng.NormFloat64()))
		}
		d.Labels = append(d.Labels, int32(c))
	}
	return d
}

func team(t testing.TB) *cpu.Team {
	t.Helper()
	team := cpu.NewTeam(2)
	t.Cleanup(team.Close)
	return team
}

// loss is the mean cross-entropy of W [classes, dim], b in float64.
func loss(d Data, w, b []float64) float64 {
	total := 0.0
	for i := range d.Len() {
		z, most := make([]float64, d.Classes), math.Inf(-1)
		for c := range z {
			z[c] = b[c]
			for j, x := range d.row(i) {
				z[c] += float64(x) * w[c*d.Dim+j]
			}
			most = max(most, z[c])
		}
		sum := 0.0
		for _, v := range z {
			sum += math.Exp(v - most)
		}
		total += math.Log(sum) + most - z[d.Labels[i]]
	}
	return total / float64(d.Len())
}

func wide(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func TestGradientsAgainstFiniteDifferences(t *testing.T) {
	d := clouds(37, 5, 4, 1, 3)
	h := NewHeads(team(t), 3, d.Dim, d.Classes, 7)
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range 3 {
		w, b := h.Weights(i)
		for j := range w {
			w[j] = float32(rng.NormFloat64())
		}
		for j := range b {
			b[j] = float32(rng.NormFloat64())
		}
	}
	losses := h.Gradients(d.X, d.Labels)
	const step = 1e-5
	for i := range 3 {
		w32, b32 := h.Weights(i)
		w, b := wide(w32), wide(b32)
		if want := loss(d, w, b); math.Abs(losses[i]-want) > 1e-5 {
			t.Errorf("head %d: loss %g, want %g", i, losses[i], want)
		}
		check := func(name string, p []float64, got []float32) {
			for j := range p {
				p[j] += step
				up := loss(d, w, b)
				p[j] -= 2 * step
				want := (up - loss(d, w, b)) / (2 * step)
				if p[j] += step; math.Abs(float64(got[j])-want) > 1e-5 {
					t.Errorf("head %d: d/d%s[%d] is %g, want %g", i, name, j, got[j], want)
				}
			}
		}
		check("W", w, h.dw[i*len(w):(i+1)*len(w)])
		check("b", b, h.db[i*len(b):(i+1)*len(b)])
	}
}

// Heads beside each other learn what each learns alone.
func TestHeadsDoNotMeet(t *testing.T) {
	d := clouds(300, 6, 3, 1, 3)
	r := Recipe{Rates: []float64{0.01, 1, 3e38}, Epochs: 3, Batch: 64}
	task := Task{Team: team(t), Test: d, Seed: 1, Epoch: Cached([]Data{d}, 1)}
	many := NewHeads(task.Team, 3, d.Dim, d.Classes, 1)
	if err := r.epochs(t.Context(), task, pass{heads: many, rates: r.Rates}); err != nil {
		t.Fatal(err)
	}
	for i, rate := range r.Rates[:2] {
		one := NewHeads(task.Team, 1, d.Dim, d.Classes, 1)
		if err := r.epochs(t.Context(), task, pass{heads: one, rates: []float64{rate}}); err != nil {
			t.Fatal(err)
		}
		w, b := many.Weights(i)
		alone, bias := one.Weights(0)
		if !slices.Equal(w, alone) || !slices.Equal(b, bias) {
			t.Errorf("rate %g beside others is not what it is alone", rate)
		}
	}
	if a := many.Accuracy(d); a[2].Top1 != 0 || a[1].Top1 < 0.5 {
		t.Errorf("accuracies %+v: a head that diverged is never right", a)
	}
}

// SGD as written in the comment of Step, by hand.
func TestStepAgainstByHand(t *testing.T) {
	d := Data{X: []float32{1, 2}, Labels: []int32{1}, Dim: 2, Classes: 2}
	h := NewHeads(team(t), 1, 2, 2, 1)
	w, b := h.Weights(0)
	copy(w, []float32{1, 0, 0, 0})
	p := 1 / (1 + math.Exp(-1)) // of class 0 at first
	h.Step(d.X, d.Labels, []float64{0.5}, 0)
	want := []float64{1 - 0.5*p, -0.5 * 2 * p, 0.5 * p, 0.5 * 2 * p}
	for i := range want {
		if math.Abs(float64(w[i])-want[i]) > 1e-6 {
			t.Fatalf("after a step %v, want %v", w, want)
		}
	}
	q := 1 / (1 + math.Exp(-(want[0]+2*want[1]-0.5*p)+(want[2]+2*want[3]+0.5*p)))
	h.Step(d.X, d.Labels, []float64{0.5}, 0)
	if got, want := float64(b[0]), -0.5*p-0.5*(0.9*p+q); math.Abs(got-want) > 1e-6 {
		t.Errorf("bias after two steps %g, want %g: momentum", got, want)
	}
}

func TestSchedules(t *testing.T) {
	find := func(name string) Recipe {
		r, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	moco, cmc, sweep := find(MoCo), find(CMC), find(Sweep)
	for _, c := range []struct {
		r     Recipe
		epoch int
		want  float64
	}{{moco, 0, 30}, {moco, 59, 30}, {moco, 60, 3}, {moco, 79, 3}, {moco, 80, 0.3}, {moco, 99, 0.3},
		{cmc, 29, 10}, {cmc, 30, 2}, {cmc, 40, 0.4}, {cmc, 50, 0.08}, {moco.For(10), 5, 30}, {moco.For(10), 6, 3}, {moco.For(10), 8, 0.3}} {
		if got := c.r.Rate(c.r.Rates[0], c.epoch); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s, epoch %d: %g, want %g", c.r.Name, c.epoch, got, c.want)
		}
	}
	if got := sweep.Rate(2, 50); math.Abs(got-1) > 1e-12 || len(sweep.Rates) != 13 || sweep.Rates[12] != 1000 || !slices.Contains(sweep.Rates, 30) {
		t.Errorf("half way cosine is %g; rates %v", got, sweep.Rates)
	}
	if _, err := Find("sgd"); err == nil {
		t.Error("an unknown protocol is found")
	}
}

// The sweep comes near the best of its rates alone, and never looks at the test set.
func TestSweepChoosesOnTheTrainingSet(t *testing.T) {
	train, test := clouds(1200, 8, 4, 1.6, 3), clouds(1200, 8, 4, 1.6, 4)
	for i := range train.X {
		train.X[i] *= 0.05 // features of MoCo are small: small rates do not get on
	}
	for i := range test.X {
		test.X[i] *= 0.05
	}
	sweep, err := Find(Sweep)
	if err != nil {
		t.Fatal(err)
	}
	sweep = sweep.For(10)
	task := Task{Team: team(t), Test: test, Seed: 1, Epoch: Cached([]Data{train}, 1), Held: &train}
	o, err := sweep.Train(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	best := 0.0
	for _, rate := range sweep.Rates {
		one := sweep
		one.Rates = []float64{rate}
		a, err := one.Train(t.Context(), task)
		if err == nil {
			best = max(best, a.Final.Top1)
		}
	}
	if o.Final.Top1 < best-0.01 || len(o.Tried) != 13 || o.HeldOut != 120 {
		t.Errorf("%+v with rate %g of %d tried; the best single one has %g", o.Final, o.Rate, len(o.Tried), best)
	}
	shuffled := test
	shuffled.Labels = make([]int32, test.Len())
	task.Test = shuffled
	if other, err := sweep.Train(t.Context(), task); err != nil || other.Rate != o.Rate {
		t.Errorf("with other labels of the test set rate %v is chosen (%v)", other, err)
	}
}

func TestRegressionGradientAndMinimum(t *testing.T) {
	d := clouds(200, 6, 3, 1.5, 3)
	g := NewRegression(team(t), d)
	g.L2 = 0.01
	p := g.Start()
	rng := rand.New(rand.NewPCG(9, 9))
	for i := range p {
		p[i] = rng.NormFloat64()
	}
	grad := make([]float64, len(p))
	value := g.Evaluate(p, grad)
	size := d.Classes * d.Dim
	objective := func(p []float64) float64 {
		s := loss(d, p[:size], p[size:])
		for _, v := range p[:size] {
			s += g.L2 / 2 * v * v
		}
		return s
	}
	if want := objective(p); math.Abs(value-want) > 1e-5 {
		t.Errorf("objective %g, want %g", value, want)
	}
	for i := range p {
		q := slices.Clone(p)
		q[i] += 1e-5
		up := objective(q)
		q[i] -= 2e-5
		if want := (up - objective(q)) / 2e-5; math.Abs(grad[i]-want) > 1e-4 {
			t.Errorf("component %d of the gradient is %g, want %g", i, grad[i], want)
		}
	}
	if _, err := g.Fit(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	least := objective(p)
	// The objective is convex: what plain descent reaches from elsewhere is no less.
	q := g.Start()
	for range 3000 {
		g.Evaluate(q, grad)
		axpy(-0.3, grad, q)
	}
	if other := objective(q); math.Abs(least-other) > 1e-5 {
		t.Errorf("L-BFGS ends at %g, gradient descent at %g", least, other)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Fit(ctx, g.Start()); err == nil {
		t.Error("a cancelled fit goes on")
	}
}

func TestRegressChoosesAPenalty(t *testing.T) {
	train, test := clouds(400, 20, 4, 3, 3), clouds(1000, 20, 4, 3, 4)
	task := Task{Team: team(t), Test: test, Seed: 1, Held: &train}
	o, err := Regress(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	if o.L2 <= 0 || o.HeldOut != 40 || o.Final.Top1 < 0.5 || len(o.Logits) != 4*test.Len() {
		t.Errorf("%+v, penalty %g, held out %d", o.Final, o.L2, o.HeldOut)
	}
}

// Where one class is larger, the strong penalties all say that it is that one: they are
// no reason to try no weaker ones.
func TestRegressGoesBeyondPenaltiesThatPredictAlike(t *testing.T) {
	unbalanced := func(d Data) Data {
		var kept []int
		for i, label := range d.Labels {
			if label == 0 || i%3 == 0 {
				kept = append(kept, i)
			}
		}
		return d.Take(kept)
	}
	train, test := unbalanced(clouds(900, 20, 4, 3, 3)), unbalanced(clouds(2000, 20, 4, 3, 4))
	for i := range train.X {
		train.X[i] /= 50 // as small as features of a new encoder
	}
	for i := range test.X {
		test.X[i] /= 50
	}
	o, err := Regress(t.Context(), Task{Team: team(t), Test: test, Seed: 1, Held: &train})
	if err != nil {
		t.Fatal(err)
	}
	largest := 0
	for _, label := range test.Labels {
		if label == 0 {
			largest++
		}
	}
	if guess := float64(largest) / float64(test.Len()); o.Final.Top1 < guess+0.1 || len(o.Tried) < 20 {
		t.Errorf("top-1 %.3f where the largest class has %.3f, after %d penalties", o.Final.Top1, guess, len(o.Tried))
	}
}

func TestBatcher(t *testing.T) {
	var sizes []int
	var seen []float32
	b := batcher{size: 4, step: func(x []float32, labels []int32) {
		sizes, seen = append(sizes, len(labels)), append(seen, x...)
	}}
	b.add([]float32{1, 2, 3, 4, 5, 6}, []int32{0, 0, 0})
	b.add(nil, nil)
	b.add([]float32{7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}, []int32{0, 0, 0, 0, 0, 0})
	b.flush()
	b.flush()
	if !slices.Equal(sizes, []int{4, 4, 1}) || len(seen) != 18 || seen[17] != 18 {
		t.Errorf("batches of %v, %v", sizes, seen)
	}
}

// 13 heads of 10 classes on cached features of length 512: an epoch of 50,000.
func BenchmarkEpochOf13Heads(b *testing.B) {
	d := clouds(50_000, 512, 10, 5, 1)
	r, err := Find(Sweep)
	if err != nil {
		b.Fatal(err)
	}
	r = r.For(b.N)
	task := Task{Team: team(b), Test: d, Seed: 1, Epoch: Cached([]Data{d}, 1)}
	heads := NewHeads(task.Team, len(r.Rates), d.Dim, d.Classes, 1)
	b.ResetTimer()
	if err := r.epochs(b.Context(), task, pass{heads: heads, rates: r.Rates}); err != nil {
		b.Fatal(err)
	}
}
