package loss

import (
	"fmt"
	"math"

	"mochi/model/engine"
)

// Fold is the last part of the loss: queries, positives and the parts of all
// shards. Slices belong to the caller and are only read.
type Fold struct {
	Q, Pos   []float32   // [b, d]
	Samples  []int       // [b], for messages
	Scale    float64     // of the gradient, see Input
	Partials [][]float32 // [V], each [b, PartialFloats()], by ascending shard
}

// foldRows is how many queries are folded as one item.
const foldRows = 8

// Fold turns parts into the loss and its gradient. Sums are added in the order
// of the queries.
func (l *Loss) Fold(in Fold, out *Output) error {
	l.single[0] = *out
	err := l.FoldGroups(in, l.single[:])
	*out, l.single[0] = l.single[0], Output{}
	return err
}

// FoldGroups is Fold for len(out) groups of as many queries each, group after
// group in in: out[j] is what Fold makes of group j alone, to the bit.
func (l *Loss) FoldGroups(in Fold, out []Output) error {
	b := len(in.Samples)
	w := l.PartialFloats()
	if len(out) < 1 || b%len(out) != 0 {
		return fmt.Errorf("loss: %d queries are not %d groups of the same size", b, len(out))
	}
	g := b / len(out)
	for j := range out {
		if b < 1 || len(in.Q) != b*l.dim || len(in.Pos) != b*l.dim || len(out[j].DQ) != g*l.dim {
			return fmt.Errorf("loss: the vectors Q, Pos and DQ have %d, %d and %d values, want %d, %d and %d queries × %d",
				len(in.Q), len(in.Pos), len(out[j].DQ), b, b, g, l.dim)
		}
	}
	if len(in.Partials) != min(l.cfg.Shards, l.k) {
		return fmt.Errorf("loss: parts of %d shards, want all %d", len(in.Partials), min(l.cfg.Shards, l.k))
	}
	for v, p := range in.Partials {
		if len(p) != b*w {
			return fmt.Errorf("loss: the parts of shard %d have %d values, want %d queries × %d", v, len(p), b, w)
		}
	}
	l.fold, l.outputs = in, out
	defer func() { l.fold, l.outputs = Fold{}, nil }() // keep no caller's slice
	resize(&l.results, b)
	l.run.do(ceil(b, foldRows), (*worker).fold)
	for j := range out {
		o, from := &out[j], j*g
		*o = Output{DQ: o.DQ}
		for i := from; i < from+g; i++ {
			r := &l.results[i]
			if r.bad {
				return fmt.Errorf("loss: query of sample %d: similarity is %w: training has diverged (lower the learning rate)",
					in.Samples[i], ErrNotFinite)
			}
			o.add(r)
		}
		o.Spread = float64(g) * spread(in.Q[from*l.dim:(from+g)*l.dim], l.dim)
	}
	return nil
}

// result is what one query leaves for the sums.
type result struct {
	loss, pos, negSim, hardSim, hardest float64
	outranks, outranksHard, bad         bool
}

func (o *Output) add(r *result) {
	o.Loss += r.loss
	o.PosSim += r.pos
	o.NegSim += r.negSim
	o.HardSim += r.hardSim
	o.HardestSim += r.hardest
	if r.outranks {
		o.Proxy++
	}
	if r.outranksHard {
		o.ProxyHard++
	}
}

func (w *worker) fold(item int) {
	for i := item * foldRows; i < min((item+1)*foldRows, len(w.l.fold.Samples)); i++ {
		w.l.results[i] = w.foldQuery(i)
	}
}

// foldQuery merges query i's parts in the order of the shards:
// dL/dq = (1/τ)·[ (p_k−1)·k + Σ_n p_n·n + Σ_h p_h·h + Σ_h′ p_h′·h′ ].
func (w *worker) foldQuery(i int) (r result) {
	l := w.l
	f := &l.fold
	d, width := l.dim, l.PartialFloats()
	g := len(f.Samples) / len(l.outputs)
	q, k, dq := f.Q[i*d:(i+1)*d], f.Pos[i*d:(i+1)*d], l.outputs[i/g].DQ[i%g*d:(i%g+1)*d]
	r.pos = dot64(q, k)

	hardestReal, hardestPoint := math.Inf(-1), math.Inf(-1)
	var sims, rows, hard, hardSims float64
	for _, parts := range f.Partials {
		p := parts[i*width+d : (i+1)*width]
		if p[engine.PartReal] > engine.NoSimilarity {
			hardestReal = max(hardestReal, float64(p[engine.PartReal]))
		}
		if p[engine.PartPoint] > engine.NoSimilarity {
			hardestPoint = max(hardestPoint, float64(p[engine.PartPoint]))
		}
		sims += float64(p[engine.PartSim])
		rows += float64(p[engine.PartRows])
		hard += float64(p[engine.PartHard])
		hardSims += float64(p[engine.PartHardSim])
	}
	if bad := sims + r.pos; math.IsNaN(bad) || math.IsInf(bad, 0) {
		return result{bad: true}
	}
	if rows > 0 {
		r.negSim = sims / rows
		r.hardest = hardestReal
	}
	if hard > 0 {
		r.hardSim = hardSims / hard
	}
	r.outranks = r.pos > hardestReal
	r.outranksHard = r.outranks && r.pos > hardestPoint

	// Σe relative to the largest logit.
	top := max(hardestReal, hardestPoint, r.pos)
	invT := 1 / l.cfg.Temperature
	acc := w.acc
	clear(acc)
	var negatives, query float64
	for _, parts := range f.Partials {
		p := parts[i*width : (i+1)*width]
		scale := l.exp.exp((float64(p[d+engine.PartTop]) - top) * invT)
		if scale == 0 {
			continue
		}
		negatives += scale * float64(p[d+engine.PartSum])
		query += scale * float64(p[d+engine.PartQuery])
		s := float32(scale)
		for x, e := range p[:d] {
			acc[x] += float32(s * e)
		}
	}
	pos := l.exp.exp((r.pos - top) * invT)
	z := negatives + pos
	if pos == 1 { // keeps the digits of a small loss
		r.loss = math.Log1p(negatives)
	} else {
		r.loss = math.Log(z) + (top-r.pos)*invT
	}
	unit := f.Scale / (l.cfg.Temperature * z)
	onQueue, onPos, onQuery := float32(unit), float32(-unit*negatives), float32(unit*query)
	for x := range dq {
		dq[x] = float32(acc[x]*onQueue) + float32(k[x]*onPos) + float32(q[x]*onQuery)
	}
	return r
}

func dot64(x, y []float32) float64 {
	var s float64
	for i := range x {
		s += float64(x[i]) * float64(y[i])
	}
	return s
}

// spread is that of Output, of embeddings [g, d]; 0 for a single one.
func spread(q []float32, d int) float64 {
	g := len(q) / d
	if g < 2 {
		return 0
	}
	var total float64
	for x := range d {
		var sum, squares float64
		for at := x; at < len(q); at += d {
			sum += float64(q[at])
			squares += float64(q[at]) * float64(q[at])
		}
		total += math.Sqrt(max(0, squares-sum*sum/float64(g)) / float64(g-1))
	}
	return total / float64(d) * math.Sqrt(float64(d))
}
