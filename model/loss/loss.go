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
// Cost for b queries: two b×K×d products, b·K exponentials, a selection of N
// among K, and b·s dot products of length d. Memory: one block of logits
// (at most 16 MiB, or 8 rows) and about 24·(s+s′)+20·N bytes a thread.
// Nothing is allocated after New.
//
// A query's result is a pure function of the query, its key, the queue and
// (seed, step, sample index): it depends neither on the other queries of the
// call, nor on blocking, nor on the number of threads.
package loss

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"mochi/model/engine"
)

// ErrNotFinite is wrapped when an embedding or a logit is NaN or infinite:
// training has diverged.
var ErrNotFinite = errors.New("not finite")

// blockElements bounds one block of logits, in float32: 16 MiB.
const blockElements = 4 << 20

// Config describes the loss. MoCo-v2 is N = S = S2 = 0.
type Config struct {
	N  int // hard negatives to mix from; default 1024, 0 = MoCo-v2
	S  int // s, synthetic negatives from pairs of hard ones; may exceed N
	S2 int // s′, synthetic negatives from the query and a hard one; may exceed N

	Temperature float64 // τ; default 0.2
	Shards      int     // V, virtual queue shards inside which pairs are drawn; default 16, 0 = 1
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
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if k < 1 {
		fault("queue length K is %d, must be at least 1", k)
	}
	if c.N < 0 || c.S < 0 || c.S2 < 0 {
		fault("mochi (N,s,s′) is (%d,%d,%d), must not be negative", c.N, c.S, c.S2)
	}
	if c.N > k && k >= 1 {
		fault("N is %d, more than the %d entries of the queue: lower N or lengthen the queue", c.N, k)
	}
	if c.N == 0 && (c.S > 0 || c.S2 > 0) {
		fault("s is %d and s′ is %d without hard negatives to mix from: set N", c.S, c.S2)
	}
	if !(c.Temperature > 0) || math.IsInf(c.Temperature, 0) {
		fault("temperature is %v, must be positive", c.Temperature)
	}
	if c.Shards < 0 {
		fault("queue shards V is %d, must not be negative", c.Shards)
	}
	if c.Threads < 0 {
		fault("threads is %d, must not be negative", c.Threads)
	}
	return errors.Join(faults...)
}

// Input is one batch of queries, usually one BatchNorm group. Slices belong
// to the caller and are only read. All vectors have length 1.
type Input struct {
	Q     []float32 // [b, d] queries
	Pos   []float32 // [b, d] their keys, the positives
	Queue []float32 // [K, d] negatives; slot i starts at i·d

	Samples []int   // [b] dataset indices: with seed and step they determine the draws
	Step    int64   // of the whole run
	Mix     bool    // false while warming up: no synthetic negatives
	Scale   float64 // of the gradient: 1/B, so that the sum over groups is that of the mean loss

	// Class oracle: queue entries of the query's class are dropped before
	// ranking, mixing and the loss. −1 is unknown and never dropped. Both nil
	// = off.
	Labels      []int32 // [b]
	QueueLabels []int32 // [K]

	Draws *Draws // explicit draws instead of the seeded ones; for tests
}

// Output is the loss and its gradient. Sums are over the b queries, so that
// those of several groups add up.
type Output struct {
	DQ   []float32 // [b, d] gradient of Scale·Σ loss; the caller's buffer, overwritten
	Loss float64   // Σ L

	Proxy     int // queries whose key outranks all real negatives
	ProxyHard int // and all synthetic ones too

	PosSim  float64 // Σ q·k
	NegSim  float64 // Σ mean over the real negatives of q·n
	HardSim float64 // Σ mean over the N hardest of q·n; 0 without mixing
}

// Loss computes losses for one shape. It owns its scratch; it is not safe for
// concurrent use.
type Loss struct {
	cfg      Config
	dim      int
	maxBatch int
	k        int
	products engine.Products
	exp      *expTable

	rows    int       // queries in a block
	logits  []float32 // [rows, K]: q·n, then the weights of the queue entries in the gradient
	results []result  // [rows]
	workers []*worker

	// The block being worked on.
	in    Input
	first int // query of row 0
	count int // rows
	next  atomic.Int64
	wg    sync.WaitGroup
}

// result is what one query leaves for the sums and the gradient.
type result struct {
	loss, z, qWeight       float64 // L, Σe, Σ_h′ e_h′·β/ρ′
	negatives              float64 // Σe without the positive
	pos, negSim, hardSim   float64
	outranks, outranksHard bool
	err                    error
}

// New makes a loss for batches of up to maxBatch queries of length dim
// against a queue of length k.
func New(cfg Config, dim, maxBatch, k int, products engine.Products) (*Loss, error) {
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
	rows := min(maxBatch, max(8, blockElements/k))
	l := &Loss{cfg: cfg, dim: dim, maxBatch: maxBatch, k: k, products: products, exp: newExpTable(),
		rows: rows, logits: make([]float32, rows*k), results: make([]result, rows)}
	for range min(cfg.Threads, rows) {
		l.workers = append(l.workers, newWorker(l))
	}
	return l, nil
}

// ScratchBytes is the memory that the loss holds, in bytes.
func (l *Loss) ScratchBytes() int64 {
	n := int64(4*len(l.logits)) + int64(len(l.results))*120
	for _, w := range l.workers {
		n += w.bytes()
	}
	return n
}

// Compute fills out. It fails, with out undefined, when lengths do not match
// or a value is not finite (ErrNotFinite, naming the sample).
func (l *Loss) Compute(in Input, out *Output) error {
	b := len(in.Samples)
	if err := l.check(in, out, b); err != nil {
		return fmt.Errorf("loss: %w", err)
	}
	dq := out.DQ
	*out = Output{DQ: dq}
	l.in = in
	defer func() { l.in = Input{} }() // keep no caller's slice
	for first := 0; first < b; first += l.rows {
		rows := min(l.rows, b-first)
		l.first, l.count = first, rows
		q := in.Q[first*l.dim : (first+rows)*l.dim]
		l.products.NT(rows, l.k, l.dim, q, in.Queue, l.logits[:rows*l.k])
		l.runWorkers(min(len(l.workers), rows))
		block := dq[first*l.dim : (first+rows)*l.dim]
		l.products.NN(rows, l.dim, l.k, l.logits[:rows*l.k], in.Queue, block)
		for r := range rows {
			if err := l.results[r].err; err != nil {
				return fmt.Errorf("loss: query of sample %d: %w", in.Samples[first+r], err)
			}
			l.finish(r, out)
		}
	}
	return nil
}

// finish turns Σ_n e_n·n of row r into its gradient and adds the row's sums.
// dL/dq = (1/τ)·[ (p_k−1)·k + Σ_n p_n·n + Σ_h p_h·h + Σ_h′ p_h′·h′ ].
func (l *Loss) finish(r int, out *Output) {
	res := &l.results[r]
	at := (l.first + r) * l.dim
	q, k, dq := l.in.Q[at:at+l.dim], l.in.Pos[at:at+l.dim], out.DQ[at:at+l.dim]
	unit := l.in.Scale / (l.cfg.Temperature * res.z)
	onQueue, onPos, onQuery := float32(unit), float32(-unit*res.negatives), float32(unit*res.qWeight)
	for i := range dq {
		dq[i] = float32(dq[i]*onQueue) + float32(k[i]*onPos) + float32(q[i]*onQuery)
	}
	out.Loss += res.loss
	out.PosSim += res.pos
	out.NegSim += res.negSim
	out.HardSim += res.hardSim
	if res.outranks {
		out.Proxy++
	}
	if res.outranksHard {
		out.ProxyHard++
	}
}

func (l *Loss) runWorkers(n int) {
	l.next.Store(0)
	l.wg.Add(n - 1)
	for _, w := range l.workers[1:n] {
		go w.background()
	}
	l.workers[0].run()
	l.wg.Wait()
}

func (l *Loss) check(in Input, out *Output, b int) error {
	switch {
	case b < 1 || b > l.maxBatch:
		return fmt.Errorf("%d queries, made for 1 to %d", b, l.maxBatch)
	case len(in.Q) != b*l.dim || len(in.Pos) != b*l.dim || len(out.DQ) != b*l.dim:
		return fmt.Errorf("the vectors Q, Pos and DQ have %d, %d and %d values, want %d queries × %d",
			len(in.Q), len(in.Pos), len(out.DQ), b, l.dim)
	case len(in.Queue) != l.k*l.dim:
		return fmt.Errorf("queue has %d values, want %d slots × %d", len(in.Queue), l.k, l.dim)
	case (in.Labels == nil) != (in.QueueLabels == nil):
		return errors.New("the class oracle needs the labels of the queries and of the queue")
	case in.Labels != nil && (len(in.Labels) != b || len(in.QueueLabels) != l.k):
		return fmt.Errorf("%d labels and %d queue labels, want %d and %d", len(in.Labels), len(in.QueueLabels), b, l.k)
	}
	if in.Draws != nil && in.Mix {
		return in.Draws.check(b, l.cfg)
	}
	return nil
}
