package loss

import (
	"fmt"
	"math/bits"

	"mochi/model/nearest"
)

// drawer draws for one query. Every draw is a pure function of
// (seed, step, sample, kind, number of the synthetic point, part): a
// counter-based generator, so a draw costs the same wherever and in whatever
// order it is made.
type drawer struct {
	seed   uint64
	step   int64
	sample int
}

// What a draw is for; the values are part of reproducibility.
const (
	drawPair  = 1
	drawQuery = 2
)

// uniform64 is draw number part of point t.
func (d drawer) uniform64(kind, t, part int) uint64 {
	h := mix64(d.seed ^ 0x6d6f636869) // "mochi"
	h = mix64(h ^ uint64(d.step))
	h = mix64(h ^ uint64(d.sample))
	return mix64(h ^ uint64(t)<<8 ^ uint64(kind)<<4 ^ uint64(part))
}

// mix64 is the output function of splitmix64 (Steele et al. 2014) after one
// increment.
func mix64(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// below maps a 64-bit draw to 0 … n−1 (bias below n/2^64).
func below(u uint64, n int32) int32 {
	hi, _ := bits.Mul64(u, uint64(n))
	return int32(hi)
}

// unit maps a draw to (0, 1), 23 bits, never 0 or 1.
func unit(u uint64) float32 {
	return (float32(u>>41) + 0.5) / (1 << 23)
}

// pair draws the slots and α of pair t: the first uniformly among all hard
// negatives (byShard: by virtual shard, then rank), the second uniformly
// among those of the same shard, so that a holder of a shard can mix on its
// own; they may coincide.
func (d drawer) pair(t int, byShard, start []int32) (i, j int32, alpha float32) {
	i = byShard[below(d.uniform64(drawPair, t, 0), int32(len(byShard)))]
	shard := int(i) % (len(start) - 1)
	lo, hi := start[shard], start[shard+1]
	j = byShard[lo+below(d.uniform64(drawPair, t, 1), hi-lo)]
	return i, j, unit(d.uniform64(drawPair, t, 2))
}

// withQuery draws the slot and β of point t mixed with the query, β < ½.
func (d drawer) withQuery(t int, byShard []int32) (j int32, beta float32) {
	j = byShard[below(d.uniform64(drawQuery, t, 0), int32(len(byShard)))]
	return j, unit(d.uniform64(drawQuery, t, 1)) / 2
}

// Draws are explicit draws by rank (0 is the hardest of all, shards aside),
// in place of the seeded ones: golden tests feed two implementations the same.
type Draws struct {
	First, Second []int32   // [b, s] ranks of n_i and n_j
	Alpha         []float32 // [b, s] weight of First
	Partner       []int32   // [b, s′] rank of n_j
	Beta          []float32 // [b, s′] weight of the query
}

func (d *Draws) check(b int, cfg Config) error {
	pairs, points := b*cfg.S, b*cfg.S2
	if len(d.First) != pairs || len(d.Second) != pairs || len(d.Alpha) != pairs ||
		len(d.Partner) != points || len(d.Beta) != points {
		return fmt.Errorf("explicit draws have %d, %d, %d pairs and %d, %d points, want %d and %d",
			len(d.First), len(d.Second), len(d.Alpha), len(d.Partner), len(d.Beta), pairs, points)
	}
	return nil
}

func (d *Draws) pair(at int, hard []nearest.Key) (i, j int32, alpha float32, err error) {
	if i, err = ranked(hard, d.First[at]); err == nil {
		j, err = ranked(hard, d.Second[at])
	}
	return i, j, d.Alpha[at], err
}

func (d *Draws) withQuery(at int, hard []nearest.Key) (j int32, beta float32, err error) {
	j, err = ranked(hard, d.Partner[at])
	return j, d.Beta[at], err
}

func ranked(hard []nearest.Key, rank int32) (int32, error) {
	if rank < 0 || int(rank) >= len(hard) {
		return 0, fmt.Errorf("explicit draw of rank %d, but %d hard negatives are eligible", rank, len(hard))
	}
	return hard[rank].Index(), nil
}
