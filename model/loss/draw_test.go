package loss

import (
	"math"
	"testing"

	"mochi/model/engine/cpu"
)

// Pairs are drawn uniformly over the hard negatives, partners uniformly
// within the shard, α over (0,1) and β over (0,½), whatever the shards' sizes.
func TestDrawsAreUniformAndInsideAShard(t *testing.T) {
	start := []int32{0, 5, 6, 8, 10} // five, one, two and two hard negatives
	const draws, perQuery = 210_000, 7
	l := mustNewOn(t, cpu.Contrast{}, Config{N: 10, S: perQuery, S2: perQuery, Temperature: 1, Shards: 4, Seed: 17, Threads: 1}, 1, 1, 20)
	for v := range 4 {
		l.held[v] = v
		l.shards = append(l.shards, Shard{Index: v})
	}
	l.b, l.starts, l.hard.starts = 1, start, []int32{0, 10}
	l.hard.counts = []int32{5, 1, 2, 2}
	l.drawn.resize(1, perQuery, perQuery, 4)
	w, d := l.workers[0], &l.drawn
	first, second := map[int32]int{}, map[int32]int{}
	partner := map[int32]int{}
	var alphas, betas, alphaSquares float64
	type pair struct{ i, j int32 }
	given, pairs := map[pair]float64{}, map[pair]int{} // α of each pair: all come from one draw
	for n := range draws / perQuery {
		l.q = Queries{Samples: []int{n / 100}, Step: int64(n % 100), Mix: true}
		w.drawAll(0)
		for v := range 4 {
			for at := d.pairsAt[v]; at < d.pairsAt[v+1]; at++ {
				i, j, alpha := start[v]+d.first[at], start[v]+d.second[at], d.alpha[at]
				if i >= start[v+1] || j >= start[v+1] {
					t.Fatalf("pair (%d, %d) leaves shard %d", i, j, v)
				}
				if alpha <= 0 || alpha >= 1 {
					t.Fatalf("α = %g", alpha)
				}
				first[i]++
				second[j]++
				given[pair{i, j}] += float64(alpha)
				pairs[pair{i, j}]++
				alphas += float64(alpha)
				alphaSquares += float64(alpha) * float64(alpha)
			}
			for at := d.pointsAt[v]; at < d.pointsAt[v+1]; at++ {
				if d.beta[at] <= 0 || d.beta[at] >= 0.5 {
					t.Fatalf("β = %g", d.beta[at])
				}
				partner[start[v]+d.partner[at]]++
				betas += float64(d.beta[at])
			}
		}
	}
	for _, count := range []map[int32]int{first, second, partner} {
		for s := range int32(10) {
			if share := float64(count[s]) / draws; math.Abs(share-0.1) > 0.004 {
				t.Errorf("slot %d is drawn with probability %.4f, want 0.1", s, share)
			}
		}
	}
	for p, n := range pairs { // 25 + 1 + 4 + 4 of them
		size := start[1] - start[0]
		for v := range 4 {
			if p.i >= start[v] && p.i < start[v+1] {
				size = start[v+1] - start[v]
			}
		}
		if share, want := float64(n)/draws, 0.1/float64(size); math.Abs(share-want) > 0.003 {
			t.Errorf("pair %v is drawn with probability %.4f, want %.4f", p, share, want)
		}
		if m := given[p] / float64(n); math.Abs(m-0.5) > 0.02 {
			t.Errorf("mean α of pair %v: %.3f, want 1/2", p, m)
		}
	}
	if len(pairs) != 34 {
		t.Errorf("%d different pairs, want 34", len(pairs))
	}
	if m, m2, b := alphas/draws, alphaSquares/draws, betas/draws; math.Abs(m-0.5) > 0.003 || math.Abs(m2-1.0/3) > 0.003 || math.Abs(b-0.25) > 0.002 {
		t.Errorf("means of α, α², β: %.4f %.4f %.4f, want 1/2, 1/3, 1/4", m, m2, b)
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
