package loss

import (
	"math"
	"testing"

	"mochi/model/engine/cpu"
)

// sampled is a Loss whose draws of query 0 are asked for: N hard negatives, of
// which each shard has sizes[v].
func sampled(t *testing.T, cfg Config, sizes []int32) *Loss {
	cfg.Shards, cfg.Temperature, cfg.Seed, cfg.Threads = len(sizes), 1, 17, 1
	l := mustNewOn(t, cpu.Contrast{}, cfg, 1, 1, 2*cfg.N+len(sizes))
	starts := []int32{0}
	for v, n := range sizes {
		l.held[v] = v
		l.shards = append(l.shards, Shard{Index: v})
		starts = append(starts, starts[v]+n)
	}
	l.b, l.starts, l.hard.starts = 1, starts, []int32{0, int32(cfg.N)}
	l.hard.counts = sizes
	l.drawn.resize(1, cfg.S, cfg.S2, len(sizes))
	return l
}

// drawnPoint is what was drawn for one synthetic point, as numbers of hard negatives;
// i is −1 for the query.
type drawnPoint struct {
	i, j   int32
	weight float32
}

// draws are the points of query 0 in one step.
func (l *Loss) draws(sample int, step int64) (points []drawnPoint) {
	l.q = Queries{Samples: []int{sample}, Step: step, Mix: true}
	w, d := l.workers[0], &l.drawn
	if !l.cfg.PairsInShard {
		w.drawAny(0, l.hard.starts[1])
		for t := range w.first {
			points = append(points, drawnPoint{w.first[t], w.second[t], w.alpha[t]})
		}
		for t := range w.partner {
			points = append(points, drawnPoint{-1, w.partner[t], w.beta[t]})
		}
		return points
	}
	w.drawAll(0)
	for v := range l.shards {
		begin := l.starts[v]
		for at := d.pairsAt[v]; at < d.pairsAt[v+1]; at++ {
			points = append(points, drawnPoint{begin + d.first[at], begin + d.second[at], d.alpha[at]})
		}
		for at := d.pointsAt[v]; at < d.pointsAt[v+1]; at++ {
			points = append(points, drawnPoint{-1, begin + d.partner[at], d.beta[at]})
		}
	}
	return points
}

// Whether pairs are of any two or stay inside a shard, every pair that may be
// is as probable as it ought to be, partners are uniform, α is uniform over
// (0,1) whatever the pair, and β over (0,½), whatever the shards' sizes.
func TestDrawsAreUniform(t *testing.T) {
	sizes := []int32{5, 1, 0, 2, 2} // one is alone in its shard, one shard has none
	const draws, perQuery, n = 210_000, 7, 10
	type pair struct{ i, j int32 }
	for _, inShard := range []bool{false, true} {
		want := map[pair]float64{} // probabilities
		begin := int32(0)
		for _, size := range sizes {
			for i := begin; inShard && i < begin+size; i++ {
				for j := begin; j < begin+size; j++ {
					if i != j {
						want[pair{i, j}] = 1 / float64((n-1)*(size-1)) // n − 1 are not alone
					}
				}
			}
			begin += size
		}
		for i := range int32(n) {
			for j := range int32(n) {
				if !inShard {
					want[pair{i, j}] = 1.0 / (n * n)
				}
			}
		}
		l := sampled(t, Config{N: n, S: perQuery, S2: perQuery, PairsInShard: inShard}, sizes)
		given, pairs, partner := map[pair]float64{}, map[pair]int{}, map[int32]int{} // α of each pair: all come from one draw
		var alphas, betas, alphaSquares float64
		for step := range draws / perQuery {
			for _, p := range l.draws(step/100, int64(step%100)) {
				w := float64(p.weight)
				switch {
				case p.i < 0 && (w <= 0 || w >= 0.5), w <= 0, w >= 1:
					t.Fatalf("weight %g of point %+v", w, p)
				case p.i < 0:
					partner[p.j]++
					betas += w
				default:
					pairs[pair{p.i, p.j}]++
					given[pair{p.i, p.j}] += w
					alphas += w
					alphaSquares += w * w
				}
			}
		}
		for s := range int32(n) {
			if share := float64(partner[s]) / draws; math.Abs(share-0.1) > 0.004 {
				t.Errorf("in a shard %v: partner %d is drawn with probability %.4f, want 0.1", inShard, s, share)
			}
		}
		for p, n := range pairs {
			if share, want := float64(n)/draws, want[p]; math.Abs(share-want) > 5*math.Sqrt(want/draws) {
				t.Errorf("in a shard %v: pair %v is drawn with probability %.4f, want %.4f", inShard, p, share, want)
			}
			if m := given[p] / float64(n); math.Abs(m-0.5) > 0.04 {
				t.Errorf("in a shard %v: mean α of pair %v: %.3f, want 1/2", inShard, p, m)
			}
		}
		if len(pairs) != len(want) {
			t.Errorf("in a shard %v: %d different pairs, want %d", inShard, len(pairs), len(want))
		}
		if m, m2, b := alphas/draws, alphaSquares/draws, betas/draws; math.Abs(m-0.5) > 0.003 || math.Abs(m2-1.0/3) > 0.003 || math.Abs(b-0.25) > 0.002 {
			t.Errorf("means of α, α², β: %.4f %.4f %.4f, want 1/2, 1/3, 1/4", m, m2, b)
		}
	}
}

// Both members of a pair are the same key once in N, however the queue is cut;
// where pairs stay inside a shard, never. Four standard errors are allowed.
func TestShareOfEqualPairs(t *testing.T) {
	const draws = 1_000_000
	for _, n := range []int{64, 128, 256, 1024} {
		for _, v := range []int{1, 16} {
			sizes := make([]int32, v)
			for i := range n { // unevenly, one shard with one alone
				sizes[i*i%(7*v)%v]++
			}
			for _, inShard := range []bool{false, true} {
				l := sampled(t, Config{N: n, S: 1000, PairsInShard: inShard}, sizes)
				equal := 0
				for step := range draws / 1000 {
					points := l.draws(step, 3)
					if len(points) != 1000 {
						t.Fatalf("%d points", len(points))
					}
					for _, p := range points {
						if p.i == p.j {
							equal++
						}
					}
				}
				want := 1 / float64(n)
				error4 := 4 * math.Sqrt(want*(1-want)/draws)
				if inShard {
					want, error4 = 0, 0
				}
				if share := float64(equal) / draws; math.Abs(share-want) > error4 {
					t.Errorf("N = %d, V = %d, in a shard %v: the same key twice in %.5f of all pairs, want %.5f ± %.5f", n, v, inShard, share, want, error4)
				}
			}
		}
	}
}

// Where every hard negative is alone in its shard there is no pair to draw, and
// points with the query are as ever.
func TestNoPairsOfOne(t *testing.T) {
	l := sampled(t, Config{N: 3, S: 50, S2: 20, PairsInShard: true}, []int32{1, 0, 1, 1})
	points := l.draws(1, 1)
	for _, p := range points {
		if p.i >= 0 {
			t.Fatalf("pair %+v", p)
		}
	}
	if len(points) != 20 {
		t.Errorf("%d points with the query, want 20", len(points))
	}
}

// Draws are part of reproducibility: changing these values changes every run.
func TestDrawsArePinned(t *testing.T) {
	d := newDrawer(1, 2, 3)
	again := newDrawer(1, 2, 3)
	if d.uniform64(drawPair, 4) != again.uniform64(drawPair, 4) {
		t.Fatal("a draw differs when repeated")
	}
	base := d.uniform64(drawPair, 4)
	for name, other := range map[string]uint64{
		"seed":   newDrawer(2, 2, 3).uniform64(drawPair, 4),
		"step":   newDrawer(1, 3, 3).uniform64(drawPair, 4),
		"sample": newDrawer(1, 2, 4).uniform64(drawPair, 4),
		"kind":   d.uniform64(drawQuery, 4),
		"point":  d.uniform64(drawPair, 5),
	} {
		if other == base {
			t.Errorf("the draw does not depend on the %s", name)
		}
	}
	if base != 0x465d3746b4779e5f {
		t.Errorf("pinned draw is %#x", base)
	}
}
