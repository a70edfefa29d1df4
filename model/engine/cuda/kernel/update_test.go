package kernel

import (
	"math"
	"testing"

	"mochi/model/network"
	"mochi/model/optim"
)

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

// LARS in three launches has the bits of the host's (optim.LARS): tensors of one
// value, of less than a block's lanes and of several pieces, that begin at any
// value; zero weights, zero gradients; vectors.
func TestLARS(t *testing.T) {
	m := newMachine(t)
	const lr, momentum, decay, ema, trust = float32(0.3), float32(0.9), float32(1e-2), float32(0.99), float32(0.02)
	net := &network.Network{}
	for _, shape := range [][]int{{1, 1}, {3}, {7, 11}, {5}, {300, 257}, {16, 16, 2, 2}, {1}, {4, 1}, {optim.PieceLen, 1}, {optim.PieceLen + 1, 1}, {9, 9}, {8, 8}} {
		size := 1
		for _, n := range shape {
			size *= n
		}
		net.Params = append(net.Params, network.Tensor{Shape: shape, Offset: net.NumParams(), Size: size})
	}
	n := net.NumParams()
	rng := seeded(n)
	vector := func() []float32 { return random[float32](rng, n, 0, 1) }
	g, v, q, k := vector(), vector(), vector(), vector()
	zero := net.Params[10]
	clear(q[zero.Offset:][:zero.Size])
	zero = net.Params[11]
	for i := zero.Offset; i < zero.Offset+zero.Size; i++ {
		g[i] = -float32(decay * q[i])
	}
	var pieces []Piece
	tensors := make([]Tensor, len(net.Params))
	for i, p := range optim.Pieces(net) {
		if t := &tensors[p.Tensor]; len(net.Params[p.Tensor].Shape) > 1 {
			if t.Pieces == 0 {
				t.First = int32(i)
			}
			t.Pieces++
		}
		pieces = append(pieces, Piece{From: int64(p.From), Values: int32(p.To - p.From), Tensor: int32(p.Tensor)})
	}
	want := optim.NewLARS(net, 2).Rates(trust, decay, q, g)
	sums, rates := unwrittenDoubles(2*len(pieces)), unwritten[float32](len(tensors))
	m.run(t, "lars_norms", Pieces(len(pieces)), pieces, tensors, decay, q, g, sums)
	for i, p := range pieces {
		w, u := math.NaN(), math.NaN() // vectors have none
		if tensors[p.Tensor].Pieces > 0 {
			w = laneSum(int(p.Values), 0, 1, func(i int) float64 {
				x := float64(q[p.From+int64(i)])
				return x * x
			})
			u = laneSum(int(p.Values), 0, 1, func(i int) float64 {
				x := float64(g[p.From+int64(i)] + float32(decay*q[p.From+int64(i)]))
				return x * x
			})
		}
		if got := sums[2*i:]; (w != got[0] || u != got[1]) && !(w != w && got[0] != got[0] && got[1] != got[1]) {
			t.Fatalf("piece %d: %v, want %v and %v", i, sums[2*i:2*i+2], w, u)
		}
	}
	m.run(t, "lars_rates", Pieces(len(tensors)), tensors, sums, trust, rates)
	same(t, "rates", rates, func(i int) float64 { return float64(want[i].Rate) })
	v1, q1, k1 := append([]float32{}, v...), append([]float32{}, q...), append([]float32{}, k...)
	m.run(t, "lars_update", Pieces(len(pieces)), pieces, tensors, rates, lr, momentum, decay, ema, g, v1, q1, k1)
	optim.Cut(want, 0, n, func(from, to int, r optim.Rate) {
		for i := from; i < to; i++ {
			grad := r.Rate * float32(g[i]+float32(r.Decay*q[i]))
			velocity := float32(momentum*v[i]) + float32(grad)
			query := q[i] - float32(lr*velocity)
			blended := 1 - ema
			if key := float32(ema*k[i]) + float32(blended*query); v1[i] != velocity || q1[i] != query || k1[i] != key {
				t.Fatalf("%d of %d: velocity %v, query %v, key %v; want %v, %v, %v", i, n, v1[i], q1[i], k1[i], velocity, query, key)
			}
		}
	})
}

// More pieces than lanes are added in rows of lanes, as values are.
func TestLARSOfManyPieces(t *testing.T) {
	m := newMachine(t)
	tensors := []Tensor{{First: 3, Pieces: 700}, {First: 703, Pieces: 256}, {First: 959, Pieces: 1}}
	rng := seeded(8)
	sums := make([]float64, 2*960)
	for i := range sums {
		sums[i] = rng.ExpFloat64() * math.Exp(10*rng.NormFloat64())
	}
	lanes := func(of Tensor, which int) float64 {
		return laneSum(int(of.Pieces), 0, 1, func(i int) float64 { return sums[2*(int(of.First)+i)+which] })
	}
	const trust = float32(0.02)
	rates := unwritten[float32](len(tensors))
	m.run(t, "lars_rates", Pieces(len(tensors)), tensors, sums, trust, rates)
	same(t, "rates", rates, func(i int) float64 {
		return float64(trust) * math.Sqrt(lanes(tensors[i], 0)) / math.Sqrt(lanes(tensors[i], 1))
	})
}

// laneSum is the order of optim.Lanes as a recursion: of n values those i =
// lane mod every.
func laneSum(n, lane, every int, value func(i int) float64) (sum float64) {
	if every < optim.Lanes {
		return laneSum(n, lane, 2*every, value) + laneSum(n, lane+every, 2*every, value)
	}
	for i := lane; i < n; i += every {
		sum += value(i)
	}
	return sum
}

func unwrittenDoubles(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = math.NaN()
	}
	return v
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
