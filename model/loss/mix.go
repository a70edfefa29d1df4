package loss

import (
	"fmt"

	"mochi/model/engine"
	"mochi/model/nearest"
)

// worker is one thread's scratch.
type worker struct {
	l          *Loss
	contrast   engine.Contrast
	background func() // drain items, then tell the WaitGroup; made once

	panels []engine.Panel
	mixer  engine.Panel // for Mix and Widen: never loaded
	rows   []float32    // a block of keys that do not lie together in float32

	keys, sorted []nearest.Key
	place        []placed
	cursor       []int32

	// One query's draws, in the order of the points.
	shardOf       []int32 // [N] shard of each hard negative, by number
	pairs, points []draw
	mixture       engine.Mixture

	acc []float32 // [d]
}

// draw is one synthetic point: the first of a pair, or the partner.
type draw struct {
	shard, rank int32
	rest        uint64 // of the draw; the point's number, where draws are explicit
}

func newWorker(l *Loss, contrast engine.Contrast) *worker {
	w := &worker{l: l, contrast: contrast, mixer: contrast.NewPanel(l.dim, 0), acc: make([]float32, l.dim)}
	// All scratch now: which worker takes which item is chance, and nothing
	// shall be allocated in a step.
	c := l.cfg
	w.panelsFor(min(maxPanels, ceil(ceil(l.maxBatch, engine.PanelQueries), c.Threads)))
	w.keys = make([]nearest.Key, 0, c.N*c.Threads)
	w.sorted = make([]nearest.Key, c.N)
	w.place = make([]placed, 0, c.N)
	w.cursor = make([]int32, 0, c.Shards+1)
	w.shardOf = make([]int32, c.N)
	w.pairs, w.points = make([]draw, 0, c.S), make([]draw, 0, c.S2)
	w.background = func() {
		defer l.run.wg.Done()
		l.run.drain(w)
	}
	return w
}

func (w *worker) panelsFor(n int) []engine.Panel {
	for len(w.panels) < n {
		w.panels = append(w.panels, w.contrast.NewPanel(w.l.dim, w.l.cfg.N))
	}
	return w.panels[:n]
}

// bytes estimates the scratch: a panel's lanes and candidates.
func (w *worker) bytes() int {
	panel := engine.PanelQueries * (8*w.l.dim + 4*engine.PanelRows + 16*w.l.cfg.N)
	return panel*len(w.panels) + 8*(cap(w.keys)+cap(w.sorted)+cap(w.place)) + 4*cap(w.rows) +
		12*(cap(w.pairs)+cap(w.points))
}

// Hardest is what other holders need to know of this scan's hard negatives:
// their similarities, for each query by shard (ascending), then rank, and how
// many of them lie in each shard. Both are l's own, valid until the next Scan;
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
	Values []float32 // [Σ Counts] q·n, by query, shard, rank
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
			Keys:  shard.Keys, BF16: shard.BF16, Stride: max(shard.Stride, 1),
			Rows: l.hard.rows[from:to], Sims: l.hard.values[from:to],
			First: d.first[p0:p1], Second: d.second[p0:p1], Alpha: d.alpha[p0:p1],
			Partner: d.partner[q0:q1], Beta: d.beta[q0:q1],
			InvT: float32(1 / l.cfg.Temperature), Part: l.part(s, i),
		}
		if i+1 < hi {
			from, to := rows(i + 1)
			m.NextKeys, m.NextBF16, m.NextRows = shard.Keys, shard.BF16, l.hard.rows[from:to]
		}
		if len(m.Rows) > 0 {
			w.mixer.Mix(m)
		}
	}
}

// drawAll draws the points of query i that lie in this scan's shards and sorts
// them by shard.
func (w *worker) drawAll(i int) {
	l := w.l
	starts := l.starts[i*(l.cfg.Shards+1) : (i+1)*(l.cfg.Shards+1)]
	n := int(starts[l.cfg.Shards])
	at := l.hard.starts[i]
	for s := range l.shards {
		l.drawn.hardAt[i*len(l.shards)+s] = at
		at += l.hard.counts[i*len(l.shards)+s]
	}
	resize(&w.shardOf, n)
	for v := range l.cfg.Shards {
		for at := starts[v]; at < starts[v+1]; at++ {
			w.shardOf[at] = int32(v)
		}
	}
	d := newDrawer(l.cfg.Seed, l.q.Step, l.q.Samples[i])
	explicit := l.q.Draws
	parts := len(l.shards) + 1

	pairs := w.pairs[:0]
	for t := 0; t < l.cfg.S && n > 0; t++ {
		r, rest := below(d.uniform64(drawPair, t), int32(n))
		if explicit != nil {
			r, rest = explicit.First[i*l.cfg.S+t], uint64(t)
		}
		if v := w.shardOf[r]; l.held[v] >= 0 {
			pairs = append(pairs, draw{int32(l.held[v]), r - starts[v], rest})
		}
	}
	w.pairs = pairs
	cursor := w.begin(pairs, l.drawn.pairsAt[i*parts:(i+1)*parts])
	first, second, alpha := l.drawn.first[i*l.cfg.S:(i+1)*l.cfg.S], l.drawn.second[i*l.cfg.S:(i+1)*l.cfg.S], l.drawn.alpha[i*l.cfg.S:(i+1)*l.cfg.S]
	for _, p := range pairs {
		at := cursor[p.shard]
		cursor[p.shard]++
		first[at] = p.rank
		if explicit != nil {
			second[at], alpha[at] = explicit.Second[i*l.cfg.S+int(p.rest)], explicit.Alpha[i*l.cfg.S+int(p.rest)]
			continue
		}
		v := l.shards[p.shard].Index
		j, rest := below(p.rest, starts[v+1]-starts[v])
		second[at], alpha[at] = j, unit(rest)
	}

	points := w.points[:0]
	for t := 0; t < l.cfg.S2 && n > 0; t++ {
		r, rest := below(d.uniform64(drawQuery, t), int32(n))
		if explicit != nil {
			r, rest = explicit.Partner[i*l.cfg.S2+t], uint64(t)
		}
		if v := w.shardOf[r]; l.held[v] >= 0 {
			points = append(points, draw{int32(l.held[v]), r - starts[v], rest})
		}
	}
	w.points = points
	cursor = w.begin(points, l.drawn.pointsAt[i*parts:(i+1)*parts])
	partner, beta := l.drawn.partner[i*l.cfg.S2:(i+1)*l.cfg.S2], l.drawn.beta[i*l.cfg.S2:(i+1)*l.cfg.S2]
	for _, p := range points {
		at := cursor[p.shard]
		cursor[p.shard]++
		partner[at] = p.rank
		if explicit != nil {
			beta[at] = explicit.Beta[i*l.cfg.S2+int(p.rest)]
		} else {
			beta[at] = unit(p.rest) / 2
		}
	}
}

// begin says in starting [shards+1] where each shard's draws begin, and returns
// a copy to count with, the worker's own.
func (w *worker) begin(list []draw, starting []int32) (cursor []int32) {
	clear(starting)
	for _, p := range list {
		starting[p.shard+1]++
	}
	for s := range len(starting) - 1 {
		starting[s+1] += starting[s]
	}
	w.cursor = append(w.cursor[:0], starting...)
	return w.cursor
}
