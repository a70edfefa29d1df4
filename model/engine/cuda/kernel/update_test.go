package kernel

import "testing"

// The update is that of engine.Update, to the bit.
func TestUpdate(t *testing.T) {
	m := newMachine(t)
	for _, n := range sizeCases() {
		rng := seeded(n)
		vector := func() []float32 { return random[float32](rng, n, 0, 1) }
		g, v, q, k, r, s := vector(), vector(), vector(), vector(), vector(), vector()
		v1, q1, k1, r1 := append([]float32{}, v...), append([]float32{}, q...), append([]float32{}, k...), append([]float32{}, r...)
		const lr, momentum, decay, ema = float32(0.03), float32(0.9), float32(1e-4), float32(0.999)
		m.run(t, "update", Flat(n), int64(n), lr, momentum, decay, ema, g, v1, q1, k1)
		keep, blend := 1-float32(0.1), float32(0.1)
		m.run(t, "running", Flat(n), int64(n), keep, blend, s, r1)
		for i := range n {
			grad := g[i] + float32(decay*q[i])
			velocity := float32(momentum*v[i]) + grad
			query := q[i] - float32(lr*velocity)
			blended := 1 - ema
			key := float32(ema*k[i]) + float32(blended*query)
			run := float32(keep*r[i]) + float32(blend*s[i])
			if v1[i] != velocity || q1[i] != query || k1[i] != key || r1[i] != run {
				t.Fatalf("%d of %d: velocity %v, query %v, key %v, running %v; want %v, %v, %v, %v", i, n, v1[i], q1[i], k1[i], r1[i], velocity, query, key, run)
			}
		}
	}
}

func TestWeights(t *testing.T) { both(t, testWeights[float32], testWeights[uint16]) }

func testWeights[T activation](t *testing.T) {
	m, typ := newMachine(t), typeOf[T]()
	rng := seeded(5)
	var table []Weight
	var from, to int64
	cases := [][4]int32{{3, 3, 49, 4}, {5, 7, 9, 7}, {1, 1, 1, 8}, {40, 33, 9, 40}, {16, 64, 1, 64}}
	for _, s := range fuzzed(6, [2]int{1, 40}, [2]int{1, 40}, [2]int{1, 5}, [2]int{1, 9}) {
		cases = append(cases, [4]int32{int32(s[0]), int32(s[1]), int32(s[2] * s[2]), int32(s[1] + s[3] - 1)})
	}
	for _, s := range cases {
		w := Weight{From: from, To: to, Out: s[0], In: s[1], Taps: s[2], Padded: s[3]}
		table = append(table, w)
		from += int64(w.Out*w.In*w.Taps) + 3 // other parameters between
		to += int64(w.Out*w.Taps*w.Padded) + 8
	}
	masters, copies := random[float32](rng, int(from), 0, 1), unwritten[T](int(to))
	m.run(t, Name("weights", typ), Weights(table), table, masters, copies)
	written := 0
	for _, w := range table {
		size := int(w.Out * w.Taps * w.Padded)
		written += size
		copied := copies[w.To:][:size]
		master := func(i int) int {
			c, tap, o := i%int(w.Padded), i/int(w.Padded)%int(w.Taps), i/int(w.Padded)/int(w.Taps)
			if c >= int(w.In) {
				return -1
			}
			return (o*int(w.In)+c)*int(w.Taps) + tap
		}
		same(t, "copies", copied, func(i int) float64 {
			if at := master(i); at >= 0 {
				return float64(masters[int(w.From)+at])
			}
			return 0
		})
		grad := unwritten[float32](int(w.Out * w.In * w.Taps))
		m.run(t, Name("weights_grad", typ), Flat(len(grad)), int(w.Out), int(w.In), int(w.Taps), int(w.Padded), copied, grad)
		for i, v := range copied {
			if at := master(i); at >= 0 && float64(grad[at]) != get(v) {
				t.Fatalf("gradient %d is %v, want %v", at, grad[at], get(v))
			}
		}
	}
	for _, v := range copies {
		if get(v) != get(v) {
			written++
		}
	}
	if written != len(copies) {
		t.Errorf("%d values of %d are written or left alone", written, len(copies))
	}
}
