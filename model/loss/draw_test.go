package loss

import (
	"math"
	"testing"
)

// Pairs are drawn uniformly over the hard negatives, partners uniformly
// within the shard, α over (0,1) and β over (0,½), whatever the shards' sizes.
func TestDrawsAreUniformAndInsideAShard(t *testing.T) {
	byShard := []int32{0, 4, 8, 12, 16, 1, 2, 6, 3, 7} // slots mod 4: five, one, two and two
	start := []int32{0, 5, 6, 8, 10}
	const draws = 200_000
	first, second := map[int32]int{}, map[int32]int{}
	partner := map[int32]int{}
	var alphas, betas, alphaSquares float64
	for n := range draws {
		d := drawer{seed: 17, step: int64(n % 100), sample: n / 100}
		i, j, alpha := d.pair(n%7, byShard, start)
		if i%4 != j%4 {
			t.Fatalf("pair (%d, %d) crosses shards", i, j)
		}
		if alpha <= 0 || alpha >= 1 {
			t.Fatalf("α = %g", alpha)
		}
		first[i]++
		second[j]++
		alphas += float64(alpha)
		alphaSquares += float64(alpha) * float64(alpha)
		p, beta := d.withQuery(n%7, byShard)
		if beta <= 0 || beta >= 0.5 {
			t.Fatalf("β = %g", beta)
		}
		partner[p]++
		betas += float64(beta)
	}
	for _, count := range []map[int32]int{first, second, partner} {
		for _, s := range byShard {
			if share := float64(count[s]) / draws; math.Abs(share-0.1) > 0.004 {
				t.Errorf("slot %d is drawn with probability %.4f, want 0.1", s, share)
			}
		}
	}
	if m, m2, b := alphas/draws, alphaSquares/draws, betas/draws; math.Abs(m-0.5) > 0.003 || math.Abs(m2-1.0/3) > 0.003 || math.Abs(b-0.25) > 0.002 {
		t.Errorf("means of α, α², β: %.4f %.4f %.4f, want 1/2, 1/3, 1/4", m, m2, b)
	}
}

// Draws are part of reproducibility: changing these values changes every run.
func TestDrawsArePinned(t *testing.T) {
	d := drawer{seed: 1, step: 2, sample: 3}
	again := drawer{seed: 1, step: 2, sample: 3}
	if d.uniform64(drawPair, 4, 1) != again.uniform64(drawPair, 4, 1) {
		t.Fatal("a draw differs when repeated")
	}
	base := d.uniform64(drawPair, 4, 1)
	for name, other := range map[string]uint64{
		"seed":   drawer{seed: 2, step: 2, sample: 3}.uniform64(drawPair, 4, 1),
		"step":   drawer{seed: 1, step: 3, sample: 3}.uniform64(drawPair, 4, 1),
		"sample": drawer{seed: 1, step: 2, sample: 4}.uniform64(drawPair, 4, 1),
		"kind":   d.uniform64(drawQuery, 4, 1),
		"point":  d.uniform64(drawPair, 5, 1),
		"part":   d.uniform64(drawPair, 4, 2),
	} {
		if other == base {
			t.Errorf("the draw does not depend on the %s", name)
		}
	}
	if base != 0x2842944ee78150d8 {
		t.Errorf("pinned draw is %#x", base)
	}
}
