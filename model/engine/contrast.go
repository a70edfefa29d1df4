package engine

import "mochi/model/nearest"

// Contrast makes the kernels of the loss (package loss): one pass over a long
// queue of negatives for a panel of queries. It is safe for concurrent use.
type Contrast interface {
	// NewPanel allocates the kernels' scratch for one goroutine, all that they
	// will need. It fails when there is no memory.
	NewPanel(shape PanelShape) (Panel, error)
}

// PanelShape is the most that a Panel is asked for.
type PanelShape struct {
	Dim  int // d, the length of queries and keys
	Hard int // most similar keys kept of each query; 0: none are wanted

	// Of one Mix: hard negatives and synthetic points. 0: it never mixes.
	Rows, Points int
}

// The sizes of a panel's work.
const (
	PanelQueries = 32  // the most queries of a Panel
	PanelRows    = 128 // the most keys of one Scan: a block that stays in the second-level cache
)

// A Part is what one virtual shard contributes to one query's loss: dim values
// of the vector Σ e·n, then the scalars below. Exponentials are relative to
// the part's own largest similarity, so that a temperature of 0.01 overflows
// nowhere: e = e^{(c−PartTop)/τ}.
const (
	PartTop     = iota // largest similarity, synthetic points included; NoSimilarity when there is none
	PartSum            // Σ e
	PartQuery          // Σ e·β/ρ′ over points mixed with the query: the weight of q itself
	PartReal           // largest similarity of a key
	PartPoint          // largest similarity of a synthetic point
	PartSim            // Σ c over keys
	PartRows           // keys counted (those of the query's class are dropped by the class oracle)
	PartHard           // hard negatives
	PartHardSim        // Σ c over them
	PartScalars        // how many scalars
)

// NoSimilarity stands for the largest of no similarities.
const NoSimilarity = -3e38

// Panel is the loss's arithmetic for up to PanelQueries queries. Results are
// pure functions of one query and the keys: not of the other queries, nor of
// what the panel did before. No slice is kept after a call.
type Panel interface {
	// Load takes queries [b, dim], b ≤ PanelQueries, their classes ([b], or nil
	// without class oracle) and 1/τ, and forgets all hard negatives. From now
	// on the keep most similar keys of each query are kept, 0 ≤ keep ≤ Hard.
	Load(q []float32, labels []int32, invT float32, keep int)
	// Raise keeps more than Load said, but from now on only keys more similar
	// than the least of those kept so far, if there are as many: after a sample
	// of all keys, a guess at the final threshold. When it was too high, fewer
	// than keep come out of Hardest.
	Raise(keep int)
	// Begin starts a part: that of one virtual shard.
	Begin()
	// Scan adds up to PanelRows keys [n, dim] to the part of every query, and
	// offers them as hard negatives number first, first+1, …; numbers must
	// rise from call to call. labels [n] are the keys' classes: keys of a
	// query's class are dropped (−1 is unknown and never dropped).
	Scan(keys []float32, labels []int32, first int)
	// End writes the part of query i to dst [dim+PartScalars].
	End(i int, dst []float32)
	// Hardest writes the hard negatives of query i since Load, by rising number,
	// to dst (capacity ≥ Hard), and returns it resliced.
	Hardest(i int, dst []nearest.Key) []nearest.Key

	// Widen turns bfloat16 into float32, exactly.
	Widen(dst []float32, src []uint16)
	// Mix adds one query's synthetic points to a part. Of a mixture without any,
	// only its hard negatives are counted.
	Mix(m *Mixture)
}

// Mixture is the synthetic negatives of one query from n hard negatives.
type Mixture struct {
	Query []float32 // [dim]
	From  []Picked  // where the hard negatives lie, in their order: n rows in all
	Sims  []float32 // [n] q·n

	First, Second []int32   // [s] numbers of hard negatives, 0 ≤ i < n: n_i and n_j
	Alpha         []float32 // [s] weight of n_i
	Partner       []int32   // [s′] number of a hard negative
	Beta          []float32 // [s′] weight of the query

	InvT float32   // 1/τ
	Part []float32 // [dim+PartScalars], updated: every scalar but PartReal, PartSim and PartRows
}

// Picked is some rows of a virtual shard. Either Keys or BF16 holds the shard.
type Picked struct {
	Keys   []float32 // row r at r·Stride·dim
	BF16   []uint16
	Stride int // at least 1
	Rows   []int32
}

// Guards against a mixture whose parts nearly cancel. Below Cancels, ρ² from
// the closed form has lost its digits to rounding and the mixture is
// recomputed element by element; below MinNorm its direction is rounding
// noise, and the point is left shorter than 1: h = h̃/max(‖h̃‖, MinNorm).
const (
	Cancels = 0.25 // of ρ²
	MinNorm = 1e-3 // of ρ
)
