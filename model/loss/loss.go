// Package loss is the contrastive loss of MoCo-v2 with MoCHi's synthetic hard
// negatives, and its gradient with respect to the queries.
//
// For a query q, its key k, queue entries n and synthetic points h (He et al.
// 2020, Eq. 1; Kalantidis et al. 2020, Eq. 4 and 5):
//
//	L  = −log( e^{q·k/τ} / (e^{q·k/τ} + Σ_n e^{q·n/τ} + Σ_h e^{q·h/τ} + Σ_h′ e^{q·h′/τ}) )
//	h  = h̃/‖h̃‖,  h̃ = α·n_i + (1−α)·n_j,   n_i, n_j among the N hardest, α ~ U(0,1)
//	h′ = h̃′/‖h̃′‖, h̃′ = β·q + (1−β)·n_j,    n_j among the N hardest,      β ~ U(0,½)
//
// No synthetic vector is ever built. With c_i = q·n_i already among the
// logits, q·h = (α·c_i + (1−α)·c_j)/ρ with
// ρ² = α² + (1−α)² + 2α(1−α)·n_i·n_j, and q·h′ = (β + (1−β)·c_j)/ρ′ with
// ρ′² = β² + (1−β)² + 2β(1−β)·c_j. Synthetic points are constants, so the
// gradient scatters p_h·α/ρ and p_h·(1−α)/ρ onto the columns i and j (and
// p_h′·(1−β)/ρ′ onto j, p_h′·β/ρ′ onto q) and one product with the queue, the
// one that MoCo does anyway, finishes it.
//
// The queue is cut into V virtual shards: slot i belongs to shard i mod V, and
// lies there in row i/V. The loss is computed shard by shard, in one pass over
// the keys: similarities of a block of them, Σ e and Σ e·n relative to a
// running maximum, candidates for the N hardest; then the synthetic points, whose pairs
// are any two of the N hardest, added to what the first shard has left. What is
// left of a shard is a part (engine.Part…), d+9 numbers a query; the parts,
// folded in the order of the shards, are the loss and its gradient.
//
// With Config.PairsInShard both members of a pair come from one shard, which is
// not what the paper does (docs/method.md), so that each shard has points of its
// own. Then shards may be evaluated anywhere: Scan, Hardest, Threshold, Mix,
// Partials and Fold are the exchange between holders, and Compute is all of them
// in one process, to the bit.
//
// Cost for b queries: two b×K×d products, b·K exponentials, a selection of N
// among K, and b·s dot products of length d. Memory: V·b·(d+9)·4 bytes of
// parts, 8·N bytes of hard negatives and 12·s + 8·s′ of draws a query, and
// scratch a thread; never b×K of anything. Nothing is allocated once a batch of
// the largest size was computed.
//
// One point is one 64-bit draw by (seed, step, sample, number). The arithmetic
// is engine.Contrast, for which each engine has kernels of its own; the oracle
// of the tests, plainLoss, builds every point.
//
// An engine whose Contrast is an engine.Offloader computes Scan and Mix on its
// device, with a copy of the shards there (device.go); the fold stays on the
// CPU. A row is copied again when its checksum, the one that a queue is audited
// by, is not that of the last time: the B new keys of a step, what an import
// brings, and what an audit finds changed. Every product with the queue has one
// of two shapes, a tile of queries and one shard, padded where they are fewer:
// a library may round otherwise for another shape, and then the bits would
// depend on the batch, or on who holds what.
//
// A query's result is a pure function of the query, its key, the queue and
// (seed, step, sample index): it depends neither on the other queries of the
// call, nor on who holds which shards, nor on the number of threads.
package loss

import (
	"errors"
	"fmt"
	"runtime"

	"mochi/model/engine"
	"mochi/model/figures"
	"mochi/model/limits"
	"mochi/model/nearest"
)

// ErrNotFinite is wrapped when an embedding or a logit is NaN or infinite:
// training has diverged.
var ErrNotFinite = errors.New("not finite")

// Config describes the loss. MoCo-v2 is N = S = S2 = 0.
type Config struct {
	N  int // hard negatives to mix from; default 1024, 0 = MoCo-v2
	S  int // s, synthetic negatives from pairs of hard ones; may exceed N
	S2 int // s′, synthetic negatives from the query and a hard one; may exceed N

	// PairsInShard: both members of a pair are from one virtual shard, and never
	// the same key, so that shards may be evaluated apart. Default false: both are
	// any of the N hardest, as in the paper.
	PairsInShard bool

	Temperature float64 // τ; default 0.2
	Shards      int     // V, virtual queue shards; default 16, 0 = 1. Sums are by shard: another V rounds otherwise
	Seed        uint64  // of the draws
	Threads     int     // 0 = all cores; the result does not depend on it
}

// DefaultConfig is the paper's setting for ImageNet-100.
func DefaultConfig() Config {
	return Config{N: 1024, S: 1024, S2: 128, Temperature: 0.2, Shards: 16}
}

// Validate reports every fault of a configuration for a queue of length k.
func (c Config) Validate(k int) error {
	var faults []error
	fault := func(setting, format string, args ...any) {
		faults = append(faults, fmt.Errorf(setting+": "+format, args...))
	}
	limits.Queue(k, fault)
	limits.MoCHi(c.N, c.S, c.S2, k, fault)
	limits.Temperature(c.Temperature, fault)
	limits.AtLeast(0).Whole("queue-shards", int64(c.Shards), fault)
	limits.AtLeast(0).Whole("threads", int64(c.Threads), fault)
	return errors.Join(faults...)
}

// Shard is the keys of one virtual shard.
type Shard = engine.Shard

// Split views a queue [K, d] in the order of its slots, and labels [K] or nil,
// as V shards. Rows of one shard then lie V·d values apart, which costs the
// pass a copy: a long queue is better stored shard by shard. They have no
// checksums, so that a device is given all of them with every scan.
func Split(queue []float32, labels []int32, dim, v int) []Shard {
	v = max(v, 1)
	k := len(queue) / dim
	shards := make([]Shard, 0, min(v, k))
	for i := range min(v, k) {
		s := Shard{Index: i, Keys: queue[i*dim:], Stride: v}
		if labels != nil {
			for at := i; at < len(labels); at += v {
				s.Labels = append(s.Labels, labels[at])
			}
		}
		shards = append(shards, s)
	}
	return shards
}

// Queries is one batch of queries. Slices belong to the caller and are only
// read. All vectors have length 1.
type Queries struct {
	Q       []float32 // [b, d]
	Samples []int     // [b] dataset indices: with seed and step they determine the draws
	Step    int64     // of the whole run
	Mix     bool      // false while warming up: no synthetic negatives

	// Class oracle, nil = off: keys of the query's class are dropped before
	// ranking, mixing and the loss. −1 is unknown and never dropped.
	Labels []int32 // [b]

	Draws *Draws // explicit draws instead of the seeded ones, for tests; not with PairsInShard

	// Seen, if not nil, is told what is mixed of every query (where pairs stay
	// inside a shard, in every shard), by several goroutines at once; it must not
	// keep the slices. Only where the CPU mixes.
	Seen func(Mixed)
}

// Input is all that Compute needs.
type Input struct {
	Queries
	Pos    []float32 // [b, d] the queries' keys, the positives
	Shards []Shard   // all V, ascending
	Scale  float64   // of the gradient: 1/B, so that the sum over groups is that of the mean loss
}

// Output is the loss and its gradient. The figures are sums over the b queries,
// so that those of several groups add up; of Spread, b times that of the queries.
type Output struct {
	DQ []float32 // [b, d] gradient of Scale·Σ loss; the caller's buffer, overwritten
	figures.Figures
}

// Loss computes losses for one shape. It owns its scratch; it is not safe for
// concurrent use. Close frees what a device holds of it.
type Loss struct {
	cfg      Config
	dim      int
	maxBatch int
	k        int
	exp      *expTable
	workers  []*worker
	device   *device // nil: the kernels of this CPU

	// The scan in progress.
	q       Queries
	shards  []Shard
	b       int   // queries
	perItem int   // panels that scan a block together
	pieces  int   // parts that the shards are cut into, to occupy all threads
	guess   int   // see guessRank; 0 = none
	held    []int // [V] index of a shard in shards, −1 when it is not there

	parts  []float32     // [shards, b, d+PartScalars]
	found  []nearest.Key // [pieces, b, N] candidates
	counts []int32       // [pieces, b] how many of each
	hard   hardList      // of the shards scanned
	starts []int32       // [b, V+1] where each shard begins among a query's hard negatives
	drawn  drawn         // what is mixed
	views  [][]float32   // [V] parts, for Compute
	single [1]Output     // for Compute and Fold
	run    parallel

	// The fold in progress.
	fold    Fold
	outputs []Output // of its groups
	results []result // [b]
}

// hardList is the hard negatives of all queries, found in the shards of a
// scan: for each query by shard, then row.
type hardList struct {
	values []float32 // q·n
	rows   []int32   // of the shard
	starts []int32   // [b+1] where each query begins
	counts []int32   // [b, shards] how many in each
}

// New makes a loss for batches of up to maxBatch queries of length dim
// against a queue of length k.
func New(cfg Config, dim, maxBatch, k int, contrast engine.Contrast) (*Loss, error) {
	err := cfg.Validate(k)
	if dim < 1 || maxBatch < 1 {
		err = errors.Join(err, fmt.Errorf("embedding dimension %d and batch %d must be at least 1", dim, maxBatch))
	}
	if err != nil {
		return nil, fmt.Errorf("loss: %w", err)
	}
	cfg.Shards = max(cfg.Shards, 1)
	if cfg.Threads == 0 {
		cfg.Threads = runtime.GOMAXPROCS(0)
	}
	l := &Loss{cfg: cfg, dim: dim, maxBatch: maxBatch, k: k, exp: newExpTable(),
		held: make([]int, cfg.Shards)}
	if l.device, err = newDevice(l, contrast); err != nil {
		return nil, fmt.Errorf("loss: %w", err)
	}
	for range cfg.Threads {
		w, err := newWorker(l, contrast)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("loss: %w", err), l.Close())
		}
		l.workers = append(l.workers, w)
	}
	l.run.start(l.workers)
	return l, nil
}

// Close frees the device memory that the loss holds. The loss must not be used
// afterwards.
func (l *Loss) Close() error {
	if l.device == nil {
		return nil
	}
	return l.device.offload.Close()
}

// DeviceBytes is the memory that the loss holds on a device, keys included.
func (l *Loss) DeviceBytes() int64 {
	if l.device == nil {
		return 0
	}
	return l.device.offload.Bytes()
}

// ScratchBytes is the memory that the loss holds on the host, in bytes.
func (l *Loss) ScratchBytes() int64 {
	n := 4*(cap(l.parts)+cap(l.counts)+cap(l.starts)+cap(l.hard.values)+cap(l.hard.rows)+cap(l.hard.counts)) + 8*cap(l.found) + l.drawn.bytes()
	for _, w := range l.workers {
		n += w.bytes()
	}
	return int64(n)
}

// PartialFloats is the length of one part: what a shard contributes to a query.
func (l *Loss) PartialFloats() int { return l.dim + engine.PartScalars }

// Compute fills out. It fails, with out undefined, when lengths do not match
// or a value is not finite (ErrNotFinite, naming the sample).
func (l *Loss) Compute(in Input, out *Output) error {
	l.single[0] = *out
	err := l.ComputeGroups(in, l.single[:])
	*out, l.single[0] = l.single[0], Output{}
	return err
}

// ComputeGroups is Compute for len(out) groups of as many queries each, group
// after group in in, which share one pass over the queue: out[j] is what
// Compute makes of group j alone, to the bit.
func (l *Loss) ComputeGroups(in Input, out []Output) error {
	if len(in.Shards) != min(l.cfg.Shards, l.k) {
		return fmt.Errorf("loss: %d shards of the queue, want all %d", len(in.Shards), min(l.cfg.Shards, l.k))
	}
	if err := l.scan(in.Queries, in.Shards, false); err != nil {
		return err
	}
	if err := l.Mix(l.ownStarts()); err != nil {
		return err
	}
	n := l.b * l.PartialFloats()
	l.views = l.views[:0]
	for s := range in.Shards {
		l.views = append(l.views, l.parts[s*n:(s+1)*n])
	}
	return l.FoldGroups(Fold{Q: in.Q, Pos: in.Pos, Samples: in.Samples, Scale: in.Scale, Partials: l.views}, out)
}

// rowsOf is how many slots shard v has.
func (l *Loss) rowsOf(v int) int { return engine.ShardRows(l.k, l.cfg.Shards, v) }

// number is the number of a shard's first key: all rows of shard 0 come first,
// then those of shard 1, and so on.
func (l *Loss) number(v int) int {
	return v*(l.k/l.cfg.Shards) + min(v, l.k%l.cfg.Shards)
}
