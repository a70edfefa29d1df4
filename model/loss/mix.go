package loss

import (
	"errors"
	"fmt"

	"mochi/model/engine"
	"mochi/model/nearest"
)

// worker is one thread's scratch.
type worker struct {
	l          *Loss
	background func() // drain items, then tell the WaitGroup; made once

	panels []engine.Panel
	mixer  engine.Panel // for Mix and Widen: never loaded
	rows   []float32    // a block of keys that do not lie together in float32

	keys, scratch []nearest.Key

	// One query's draws, where pairs are any two of its hard negatives.
	first, second []int32   // [s]
	alpha         []float32 // [s]
	partner       []int32   // [s′]
	beta          []float32 // [s′]

	// One query's draws, where pairs stay inside a shard.
	shardOf     []int32  // [N] place in the scan of each hard negative's shard, −1 when it is not there
	pairable    []int32  // [≤ N] hard negatives that are not alone in their shard
	begin, size []int32  // [shards] the first of a shard's hard negatives, by number, and how many
	numbers     []int32  // [s or s′] the first hard negative of each point
	rests       []uint64 // [s or s′] what is left of its draw
	cursor      []int32  // [shards+1]

	mixture engine.Mixture

	acc []float32 // [d]
}

func newWorker(l *Loss, contrast engine.Contrast) (w *worker, err error) {
	w = &worker{l: l, acc: make([]float32, l.dim)}
	w.background = func() {
		defer l.run.wg.Done()
		l.run.drain(w)
	}
	if l.device != nil {
		return w, nil // for the fold
	}
	// All scratch now: which worker takes which item is chance, and nothing
	// shall be allocated in a step.
	c := l.cfg
	if w.mixer, err = contrast.NewPanel(engine.PanelShape{Dim: l.dim, Rows: c.N, Points: c.S + c.S2}); err != nil {
		return nil, err
	}
	w.panels = make([]engine.Panel, min(maxPanels, ceil(ceil(l.maxBatch, engine.PanelQueries), c.Threads)))
	for i := range w.panels {
		if w.panels[i], err = contrast.NewPanel(engine.PanelShape{Dim: l.dim, Hard: c.N}); err != nil {
			return nil, err
		}
	}
	w.keys = make([]nearest.Key, 0, c.N*c.Threads)
	w.scratch = make([]nearest.Key, 0, c.N*c.Threads)
	w.mixture.From = make([]engine.Picked, 0, c.Shards)
	if !c.PairsInShard {
		w.first, w.second, w.alpha = make([]int32, c.S), make([]int32, c.S), make([]float32, c.S)
		w.partner, w.beta = make([]int32, c.S2), make([]float32, c.S2)
		return w, nil
	}
	w.cursor = make([]int32, 0, c.Shards+1)
	w.shardOf, w.pairable = make([]int32, c.N), make([]int32, 0, c.N)
	w.begin, w.size = make([]int32, c.Shards), make([]int32, c.Shards)
	w.numbers, w.rests = make([]int32, max(c.S, c.S2)), make([]uint64, max(c.S, c.S2))
	return w, nil
}

// bytes estimates the scratch: a panel's lanes and candidates.
func (w *worker) bytes() int {
	panel := engine.PanelQueries * (8*w.l.dim + 4*engine.PanelRows + 16*w.l.cfg.N)
	return panel*len(w.panels) + 8*(cap(w.keys)+cap(w.scratch)+cap(w.rests)) +
		4*(cap(w.rows)+3*cap(w.first)+2*cap(w.partner)+cap(w.shardOf)+cap(w.pairable)+cap(w.numbers))
}

// Hardest is what other holders need to know of this scan's hard negatives:
// their similarities, for each query by shard (ascending), then row, and how
// many of them lie in each shard. Both are l's own, valid until Mix or Scan;
// empty without mixing.
func (l *Loss) Hardest() Hard {
	h := Hard{}
	for _, s := range l.shards {
		h.Shards = append(h.Shards, s.Index)
	}
	if l.mixing() {
		h.Values, h.Counts = l.hard.values, l.hard.counts
	}
	return h
}

// Hard is the hard negatives that one holder found for b queries.
type Hard struct {
	Shards []int     // ascending
	Values []float32 // [Σ Counts] q·n, by query, shard, row
	Counts []int32   // [b, len(Shards)]
}

// Threshold merges the holders' hard negatives: starts [b, V+1] says where
// each shard begins among the N hardest of each query. Equal similarities go
// to the lower shard, then the lower row. Every shard must be with one holder.
func Threshold(n, v, b int, holders []Hard) []int32 {
	starts := make([]int32, b*(v+1))
	at := make([]int, len(holders))
	var keys []nearest.Key
	for i := range b {
		keys = keys[:0]
		for h := range holders {
			for s, shard := range holders[h].Shards {
				for range holders[h].Counts[i*len(holders[h].Shards)+s] {
					keys = append(keys, nearest.NewKey(holders[h].Values[at[h]], shard))
					at[h]++
				}
			}
		}
		row := starts[i*(v+1) : (i+1)*(v+1)]
		for _, key := range nearest.Select(keys, n) {
			row[key.Index()+1]++
		}
		for s := range v {
			row[s+1] += row[s]
		}
	}
	return starts
}

// ownStarts is Threshold of what this scan found alone.
func (l *Loss) ownStarts() []int32 {
	if !l.mixing() {
		return nil
	}
	v := l.cfg.Shards
	resize(&l.starts, l.b*(v+1))
	for i := range l.b {
		row := l.starts[i*(v+1) : (i+1)*(v+1)]
		clear(row)
		for s := range l.shards {
			row[l.shards[s].Index+1] = l.hard.counts[i*len(l.shards)+s]
		}
		for s := range v {
			row[s+1] += row[s]
		}
	}
	return l.starts
}

// Mix adds the synthetic points to the parts of the scan's shards. starts is
// Threshold's result for the same queries; it is not read without mixing.
// Unless pairs stay inside a shard, all shards must have been scanned, and the
// points are in the part of the first.
func (l *Loss) Mix(starts []int32) error {
	defer func() { l.q, l.shards = Queries{}, nil }() // keep no caller's slice
	if !l.mixing() {
		return nil
	}
	if want := l.b * (l.cfg.Shards + 1); len(starts) != want {
		return fmt.Errorf("loss: the hard negatives' starts have %d values, want %d", len(starts), want)
	}
	l.starts = starts
	if err := l.checkMix(); err != nil {
		return fmt.Errorf("loss: %w", err)
	}
	if l.device != nil {
		if l.q.Seen != nil {
			return errors.New("loss: what a device mixes cannot be seen")
		}
		if err := l.device.mix(); err != nil {
			return fmt.Errorf("loss: %w", err)
		}
		return nil
	}
	if !l.cfg.PairsInShard {
		l.run.do(l.b, (*worker).mixAny)
		return nil
	}
	l.drawn.resize(l.b, l.cfg.S, l.cfg.S2, len(l.shards))
	l.run.do(l.b, (*worker).drawAll)
	// Shard after shard: its rows are needed by every query, and stay near.
	l.run.do(len(l.shards)*ceil(l.b, mixQueries), (*worker).mix)
	return nil
}

// mixQueries is how many queries mix in one shard as one item.
const mixQueries = 32

// drawn is the draws of all queries, each query's by shard of the scan.
type drawn struct {
	pairs, points     int       // s, s′
	first, second     []int32   // [b, s] indices into the hard negatives of the query in the shard
	alpha             []float32 // [b, s]
	partner           []int32   // [b, s′]
	beta              []float32 // [b, s′]
	pairsAt, pointsAt []int32   // [b, shards+1] where each shard's begin
	hardAt            []int32   // [b, shards] where those of its hard negatives do, in hardList
}

func (d *drawn) resize(b, s, s2, shards int) {
	d.pairs, d.points = s, s2
	resize(&d.first, b*s)
	resize(&d.second, b*s)
	resize(&d.alpha, b*s)
	resize(&d.partner, b*s2)
	resize(&d.beta, b*s2)
	resize(&d.pairsAt, b*(shards+1))
	resize(&d.pointsAt, b*(shards+1))
	resize(&d.hardAt, b*shards)
}

func (d *drawn) bytes() int {
	return 12*cap(d.first) + 8*cap(d.beta) + 4*(cap(d.pairsAt)+cap(d.pointsAt)+cap(d.hardAt))
}

// checkMix sees that starts are those of this scan's queries, and explicit
// draws of hard negatives that there are.
func (l *Loss) checkMix() error {
	v := l.cfg.Shards
	if all := min(v, l.k); !l.cfg.PairsInShard && len(l.shards) != all {
		return fmt.Errorf("%d of %d shards were scanned: pairs of any two hard negatives need all shards in one place", len(l.shards), all)
	}
	for i := range l.b {
		starts := l.starts[i*(v+1) : (i+1)*(v+1)]
		for s := range l.shards {
			shard := l.shards[s].Index
			if n, found := starts[shard+1]-starts[shard], l.hard.counts[i*len(l.shards)+s]; n < 0 || n > found {
				return fmt.Errorf("%d hard negatives of query %d in shard %d, but this scan found %d: the starts are of other queries", n, i, shard, found)
			}
		}
		if l.q.Draws != nil {
			if err := l.q.Draws.checkRanks(i, l.cfg, starts[v]); err != nil {
				return fmt.Errorf("query of sample %d: %w", l.q.Samples[i], err)
			}
		}
	}
	return nil
}

// Partials are the parts of the shards of the last Scan (and Mix):
// [shards, b, PartialFloats()]; l's own, valid until the next Scan.
func (l *Loss) Partials() []float32 { return l.parts }

// mix adds the synthetic points of some queries from one shard.
func (w *worker) mix(item int) {
	l := w.l
	chunks := ceil(l.b, mixQueries)
	s, lo := item/chunks, item%chunks*mixQueries
	hi := min(lo+mixQueries, l.b)
	shard, at, d := &l.shards[s], len(l.shards)+1, &l.drawn
	rows := func(i int) (from, to int32) {
		starts := l.starts[i*(l.cfg.Shards+1)+shard.Index:]
		from = d.hardAt[i*len(l.shards)+s]
		return from, from + starts[1] - starts[0]
	}
	for i := lo; i < hi; i++ {
		from, to := rows(i)
		pairs, points := d.pairsAt[i*at+s:], d.pointsAt[i*at+s:]
		p0, p1, q0, q1 := i*d.pairs+int(pairs[0]), i*d.pairs+int(pairs[1]), i*d.points+int(points[0]), i*d.points+int(points[1])
		m := &w.mixture
		*m = engine.Mixture{
			Query: l.q.Q[i*l.dim : (i+1)*l.dim],
			From:  append(m.From[:0], picked(shard, l.hard.rows[from:to])), Sims: l.hard.values[from:to],
			First: d.first[p0:p1], Second: d.second[p0:p1], Alpha: d.alpha[p0:p1],
			Partner: d.partner[q0:q1], Beta: d.beta[q0:q1],
			InvT: float32(1 / l.cfg.Temperature), Part: l.part(s, i),
		}
		if len(m.Sims) > 0 {
			l.seen(i, s, m)
			w.mixer.Mix(m)
		}
	}
}

// picked is some rows of a shard.
func picked(s *Shard, rows []int32) engine.Picked {
	return engine.Picked{Keys: s.Keys, BF16: s.BF16, Stride: max(s.Stride, 1), Rows: rows}
}
