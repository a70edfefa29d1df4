package loss

import (
	"fmt"
	"math/bits"
	"mochi/model/splitmix"
)

// drawer draws for one query: of pair t both hard negatives uniformly and
// independently among all N (by virtual shard, then row; they coincide once in
// N), α ~ U(0,1); of point t mixed with the query its partner among all N and
// β ~ U(0,½).
//
// Where pairs stay inside a shard, so that a holder of a shard can mix on its
// own, the first is uniform among those that are not alone in their shard, the
// second among the others of the same shard. (Were they allowed to coincide,
// they would do so V times as often as among all N: a copy of a real negative.)
// Where every hard negative is alone in its shard there are no pairs.
//
// Every draw is a pure function of (seed, step, sample, kind, number of the
// synthetic point, part): a counter-based generator, so a draw costs the same
// wherever and in whatever order it is made.
type drawer struct{ h uint64 }

func newDrawer(seed uint64, step int64, sample int) drawer {
	h := splitmix.Mix(seed ^ 0x6d6f636869) // "mochi"
	h = splitmix.Mix(h ^ uint64(step))
	return drawer{splitmix.Mix(h ^ uint64(sample))}
}

// What a draw is for; the values are part of reproducibility.
const (
	drawPair  = 1
	drawQuery = 2
)

// uniform64 is the draw of point t.
func (d drawer) uniform64(kind, t int) uint64 {
	return splitmix.Mix(d.h ^ uint64(t)<<8 ^ uint64(kind)<<4)
}

// below maps a 64-bit draw to 0 … n−1, and what is left of it to a draw again:
// u·n/2^64 is a number in [0, n) whose integer part and fraction are
// independent. The fraction has log2(n) bits less, so two ranks among up to 2^20
// leave the 24 bits that unit needs; the bias is below 2^−23.
func below(u uint64, n int32) (rank int32, rest uint64) {
	hi, lo := bits.Mul64(u, uint64(n))
	return int32(hi), lo
}

// unit maps a draw to (0, 1), 23 bits, never 0 or 1.
func unit(u uint64) float32 {
	return (float32(u>>41) + 0.5) / (1 << 23)
}

// Draws are explicit draws by rank (0 is the hardest) in place of the seeded
// ones, so that golden tests can feed two implementations the same.
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

// checkRanks sees that query i draws from the n hard negatives that it has.
func (d *Draws) checkRanks(i int, cfg Config, n int32) error {
	for _, list := range [][]int32{d.First[i*cfg.S : (i+1)*cfg.S], d.Second[i*cfg.S : (i+1)*cfg.S], d.Partner[i*cfg.S2 : (i+1)*cfg.S2]} {
		for _, rank := range list {
			if rank < 0 || rank >= n {
				return fmt.Errorf("explicit draw of rank %d, but %d hard negatives are eligible", rank, n)
			}
		}
	}
	return nil
}
