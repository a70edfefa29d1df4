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

	// One query's draws, by shard of the scan.
	shardOf              []int32 // [N] shard of each hard negative, by number
	pairs, points        []draw
	pairsAt, pointsAt    []int32 // where each shard's begin
	first, second, other []int32
	alpha, beta          []float32
	mixture              engine.Mixture

	acc []float32 // [d]
}

// draw is one synthetic point: the first of a pair, or the partner.
type draw struct{ shard, rank, t int32 }

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
	w.pairsAt, w.pointsAt = make([]int32, c.Shards+1), make([]int32, c.Shards+1)
	w.first, w.second, w.alpha = make([]int32, c.S), make([]int32, c.S), make([]float32, c.S)
	w.other, w.beta = make([]int32, c.S2), make([]float32, c.S2)
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
		12*(cap(w.pairs)+cap(w.points)) + 20*cap(w.alpha)
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
	l.run.do(l.b, (*worker).mix)
	return nil
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

// mix draws and adds the synthetic points of query i, shard by shard.
func (w *worker) mix(i int) {
	l := w.l
	v := l.cfg.Shards
	starts := l.starts[i*(v+1) : (i+1)*(v+1)]
	n := int(starts[v])
	if n == 0 {
		return
	}
	w.drawAll(i, starts, n)
	at := l.hard.starts[i]
	for s := range l.shards {
		shard := &l.shards[s]
		count := starts[shard.Index+1] - starts[shard.Index]
		found := l.hard.counts[i*len(l.shards)+s]
		m := &w.mixture
		*m = engine.Mixture{
			Query: l.q.Q[i*l.dim : (i+1)*l.dim],
			Keys:  shard.Keys, BF16: shard.BF16, Stride: max(shard.Stride, 1),
			Rows: l.hard.rows[at : at+count], Sims: l.hard.values[at : at+count],
			First: w.first[w.pairsAt[s]:w.pairsAt[s+1]], Second: w.second[w.pairsAt[s]:w.pairsAt[s+1]],
			Alpha:   w.alpha[w.pairsAt[s]:w.pairsAt[s+1]],
			Partner: w.other[w.pointsAt[s]:w.pointsAt[s+1]], Beta: w.beta[w.pointsAt[s]:w.pointsAt[s+1]],
			InvT: float32(1 / l.cfg.Temperature), Part: l.part(s, i),
		}
		at += found
		if s+1 < len(l.shards) {
			next := &l.shards[s+1]
			n := starts[next.Index+1] - starts[next.Index]
			m.NextKeys, m.NextBF16, m.NextRows = next.Keys, next.BF16, l.hard.rows[at:at+n]
		}
		if count > 0 {
			w.mixer.Mix(m)
		}
	}
}

// drawAll draws the points of query i that lie in this scan's shards and sorts
// them by shard.
func (w *worker) drawAll(i int, starts []int32, n int) {
	l := w.l
	resize(&w.shardOf, n)
	for v := range l.cfg.Shards {
		for at := starts[v]; at < starts[v+1]; at++ {
			w.shardOf[at] = int32(v)
		}
	}
	d := newDrawer(l.cfg.Seed, l.q.Step, l.q.Samples[i])
	explicit := l.q.Draws
	pick := func(list *[]draw, starting *[]int32, count int, rank func(t int) int32) {
		resize(starting, len(l.shards)+1)
		clear(*starting)
		*list = (*list)[:0]
		for t := range count {
			r := rank(t)
			v := w.shardOf[r]
			s := l.held[v]
			if s < 0 {
				continue
			}
			(*starting)[s+1]++
			*list = append(*list, draw{int32(s), r - starts[v], int32(t)})
		}
		for s := range l.shards {
			(*starting)[s+1] += (*starting)[s]
		}
		w.cursor = append(w.cursor[:0], (*starting)...)
	}

	pick(&w.pairs, &w.pairsAt, l.cfg.S, func(t int) int32 {
		if explicit != nil {
			return explicit.First[i*l.cfg.S+t]
		}
		return below(d.uniform64(drawPair, t, 0), int32(n))
	})
	resize(&w.first, len(w.pairs))
	resize(&w.second, len(w.pairs))
	resize(&w.alpha, len(w.pairs))
	for _, p := range w.pairs {
		at := w.cursor[p.shard]
		w.cursor[p.shard]++
		v := l.shards[p.shard].Index
		w.first[at] = p.rank
		if explicit != nil {
			w.second[at], w.alpha[at] = explicit.Second[i*l.cfg.S+int(p.t)], explicit.Alpha[i*l.cfg.S+int(p.t)]
			continue
		}
		w.second[at] = below(d.uniform64(drawPair, int(p.t), 1), starts[v+1]-starts[v])
		w.alpha[at] = unit(d.uniform64(drawPair, int(p.t), 2))
	}

	pick(&w.points, &w.pointsAt, l.cfg.S2, func(t int) int32 {
		if explicit != nil {
			return explicit.Partner[i*l.cfg.S2+t]
		}
		return below(d.uniform64(drawQuery, t, 0), int32(n))
	})
	resize(&w.other, len(w.points))
	resize(&w.beta, len(w.points))
	for _, p := range w.points {
		at := w.cursor[p.shard]
		w.cursor[p.shard]++
		w.other[at] = p.rank
		if explicit != nil {
			w.beta[at] = explicit.Beta[i*l.cfg.S2+int(p.t)]
		} else {
			w.beta[at] = unit(d.uniform64(drawQuery, int(p.t), 1)) / 2
		}
	}
}
