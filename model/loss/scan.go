package loss

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"mochi/model/engine"
	"mochi/model/nearest"
)

// maxPanels bounds the panels that meet one block of keys while it is in
// cache: their state fits beside it.
const maxPanels = 8

// Scan is the one pass: it computes the parts of the given shards, ascending
// by index, for every query, and finds their hardest. The shards' slices are
// read until Mix returns.
func (l *Loss) Scan(q Queries, shards []Shard) error { return l.scan(q, shards, true) }

// scan is Scan; without list a device need not say which the hardest are.
func (l *Loss) scan(q Queries, shards []Shard, list bool) error {
	if err := l.checkScan(q, shards); err != nil {
		return fmt.Errorf("loss: %w", err)
	}
	l.q, l.shards, l.b = q, shards, len(q.Samples)
	for v := range l.held {
		l.held[v] = -1
	}
	for s := range shards {
		l.held[shards[s].Index] = s
	}
	if l.device != nil {
		if err := l.device.scan(list); err != nil {
			return fmt.Errorf("loss: %w", err)
		}
		return nil
	}
	panels := ceil(l.b, engine.PanelQueries)
	l.perItem = min(maxPanels, ceil(panels, len(l.workers)))
	l.pieces = max(1, min(len(shards), len(l.workers)/panels))
	resize(&l.parts, len(shards)*l.b*l.PartialFloats())
	if l.cfg.N > 0 {
		resize(&l.found, l.pieces*l.b*l.cfg.N)
		resize(&l.counts, l.pieces*l.b)
	}
	items := ceil(panels, l.perItem) * l.pieces
	l.guess = l.guessRank()
	l.run.do(items, (*worker).scan)
	if l.guess > 0 && l.fewFound() {
		l.guess = 0
		l.run.do(items, (*worker).scan)
	}
	l.hard.starts = append(l.hard.starts[:0], 0)
	if !l.mixing() {
		return nil
	}
	// How many hard ones each query has here is known before they are listed.
	total := 0
	held := 0
	for _, s := range shards {
		held += l.rowsOf(s.Index)
	}
	for i := range l.b {
		n := 0
		for p := range l.pieces {
			n += int(l.counts[p*l.b+i])
		}
		total += min(n, l.cfg.N, held)
		l.hard.starts = append(l.hard.starts, int32(total))
	}
	resize(&l.hard.values, total)
	resize(&l.hard.rows, total)
	resize(&l.hard.counts, l.b*len(shards))
	l.run.do(l.b, (*worker).list)
	return nil
}

// guessRank is the rank in one shard that bounds the N hardest of all. A shard
// is every V-th slot, so it is a fair sample of the queue: of the N hardest it
// holds N/V, with a standard deviation of √(N/V). Five of them above that, and
// the guess is too high once in three million queries; then fewer than N are
// found, and all is done again without. It saves most candidates: a running
// threshold lets N·ln(K/N) pass, this one some N. 0 when it does not pay.
func (l *Loss) guessRank() int {
	shards := len(l.shards)
	if !l.mixing() || l.q.Labels != nil || shards < 4 {
		return 0
	}
	mean := float64(l.cfg.N) / float64(shards)
	rank := min(int(mean+5*math.Sqrt(mean))+5, l.cfg.N) // a panel keeps N at most
	if 4*rank > l.rowsOf(l.shards[shards-1].Index) {
		return 0
	}
	return rank
}

// fewFound says whether any query came out with fewer than its N hardest.
func (l *Loss) fewFound() bool {
	for i := range l.b {
		n := 0
		for p := range l.pieces {
			n += int(l.counts[p*l.b+i])
		}
		if n < l.cfg.N {
			return true
		}
	}
	return false
}

func (l *Loss) mixing() bool { return l.q.Mix && l.cfg.N > 0 }

func (l *Loss) checkScan(q Queries, shards []Shard) error {
	b := len(q.Samples)
	switch {
	case b < 1 || b > l.maxBatch:
		return fmt.Errorf("%d queries, made for 1 to %d", b, l.maxBatch)
	case len(q.Q) != b*l.dim:
		return fmt.Errorf("the queries Q have %d values, want %d queries × %d", len(q.Q), b, l.dim)
	case q.Labels != nil && len(q.Labels) != b:
		return fmt.Errorf("%d labels of %d queries", len(q.Labels), b)
	case q.Draws != nil && q.Mix && l.cfg.PairsInShard:
		return errors.New("explicit draws are by rank over the whole queue, and pairs stay inside a shard")
	}
	last := -1
	for _, s := range shards {
		if s.Index <= last || s.Index >= min(l.cfg.Shards, l.k) {
			return fmt.Errorf("shard %d after %d: shards must ascend, below %d", s.Index, last, min(l.cfg.Shards, l.k))
		}
		last = s.Index
		rows := l.rowsOf(s.Index)
		have := len(s.Keys)
		if s.BF16 != nil {
			have = len(s.BF16)
		}
		if want := ((rows-1)*max(s.Stride, 1) + 1) * l.dim; have < want || s.Stride < 2 && have != want {
			return fmt.Errorf("queue shard %d has %d values, want %d rows × %d", s.Index, have, rows, l.dim)
		}
		if (q.Labels == nil) != (s.Labels == nil) {
			return errors.New("the class oracle needs the labels of the queries and of the queue")
		}
		if q.Labels != nil && len(s.Labels) != rows {
			return fmt.Errorf("%d queue labels of shard %d, want %d", len(s.Labels), s.Index, rows)
		}
		if s.Sums != nil && len(s.Sums) != rows {
			return fmt.Errorf("%d checksums of shard %d, want %d", len(s.Sums), s.Index, rows)
		}
	}
	if q.Draws != nil && q.Mix {
		return q.Draws.check(b, l.cfg)
	}
	return nil
}

// scan is one item of the pass: some panels against one piece of the shards.
func (w *worker) scan(item int) {
	l := w.l
	group, piece := item/l.pieces, item%l.pieces
	from, to := piece*len(l.shards)/l.pieces, (piece+1)*len(l.shards)/l.pieces
	first := group * l.perItem * engine.PanelQueries
	keep := l.guess
	if keep == 0 && l.mixing() {
		keep = l.cfg.N
	}
	panels := w.panels[:ceil(min(l.perItem*engine.PanelQueries, l.b-first), engine.PanelQueries)]
	for p, panel := range panels {
		lo, hi := l.panel(first, p)
		var labels []int32
		if l.q.Labels != nil {
			labels = l.q.Labels[lo:hi]
		}
		panel.Load(l.q.Q[lo*l.dim:hi*l.dim], labels, float32(1/l.cfg.Temperature), keep)
	}
	for s := from; s < to; s++ {
		shard := &l.shards[s]
		rows, number := l.rowsOf(shard.Index), l.number(shard.Index)
		for _, panel := range panels {
			panel.Begin()
		}
		for r := 0; r < rows; r += engine.PanelRows {
			n := min(engine.PanelRows, rows-r)
			keys := w.block(shard, r, n)
			var labels []int32
			if shard.Labels != nil {
				labels = shard.Labels[r : r+n]
			}
			for _, panel := range panels {
				panel.Scan(keys, labels, number+r)
			}
		}
		for p, panel := range panels {
			lo, hi := l.panel(first, p)
			for i := lo; i < hi; i++ {
				panel.End(i-lo, l.part(s, i))
			}
			if s == from && l.guess > 0 {
				panel.Raise(l.cfg.N)
			}
		}
	}
	if !l.mixing() {
		return
	}
	for p, panel := range panels {
		lo, hi := l.panel(first, p)
		for i := lo; i < hi; i++ {
			at := (piece*l.b + i) * l.cfg.N
			got := panel.Hardest(i-lo, l.found[at:at:at+l.cfg.N])
			l.counts[piece*l.b+i] = int32(len(got))
		}
	}
}

// panel is the range of queries of panel p of a group that starts at first.
func (l *Loss) panel(first, p int) (lo, hi int) {
	lo = first + p*engine.PanelQueries
	return lo, min(lo+engine.PanelQueries, l.b)
}

// part of query i in the s-th shard of the scan.
func (l *Loss) part(s, i int) []float32 {
	n := l.PartialFloats()
	at := (s*l.b + i) * n
	return l.parts[at : at+n]
}

// block is n rows of a shard from row r, together and in float32.
func (w *worker) block(s *Shard, r, n int) []float32 {
	d := w.l.dim
	stride := max(s.Stride, 1)
	if stride == 1 && s.BF16 == nil {
		return s.Keys[r*d : (r+n)*d]
	}
	if w.rows == nil {
		w.rows = make([]float32, engine.PanelRows*d)
	}
	for i := range n {
		at := (r + i) * stride * d
		switch {
		case s.BF16 == nil:
			copy(w.rows[i*d:(i+1)*d], s.Keys[at:at+d])
		case stride == 1:
			w.mixer.Widen(w.rows[:n*d], s.BF16[at:at+n*d])
			return w.rows[:n*d]
		default:
			w.mixer.Widen(w.rows[i*d:(i+1)*d], s.BF16[at:at+d])
		}
	}
	return w.rows[:n*d]
}

// list writes down the hard negatives of query i by shard, then row.
func (w *worker) list(i int) {
	l := w.l
	keys := w.keys[:0]
	for p := range l.pieces { // each by number, and their shards ascend
		at := (p*l.b + i) * l.cfg.N
		keys = append(keys, l.found[at:at+int(l.counts[p*l.b+i])]...)
	}
	keys, w.scratch, _ = nearest.SelectInOrder(keys, l.cfg.N, w.scratch)
	at := l.hard.starts[i]
	counts := l.hard.counts[i*len(l.shards) : (i+1)*len(l.shards)]
	for s := range l.shards {
		shard := l.shards[s].Index
		first := int32(l.number(shard))
		end := first + int32(l.rowsOf(shard))
		n := 0
		for n < len(keys) && keys[n].Index() < end {
			n++
		}
		values, rows := l.hard.values[at:at+int32(n)], l.hard.rows[at:at+int32(n)]
		for j, key := range keys[:n] {
			values[j], rows[j] = key.Similarity(), key.Index()-first
		}
		counts[s], at, keys = int32(n), at+int32(n), keys[n:]
	}
}

// reorder replaces hard negatives of one shard, n from at on, by what f leaves
// of their keys (similarity and row); f works in place.
func (w *worker) reorder(at, n int32, f func([]nearest.Key) []nearest.Key) {
	values, rows := w.l.hard.values[at:at+n], w.l.hard.rows[at:at+n]
	keys := w.keys[:0]
	for j, c := range values {
		keys = append(keys, nearest.NewKey(c, int(rows[j])))
	}
	for j, key := range f(keys) {
		values[j], rows[j] = key.Similarity(), key.Index()
	}
}

// parallel runs items on all workers.
type parallel struct {
	workers []*worker
	next    atomic.Int64
	items   int
	f       func(w *worker, item int)
	wg      sync.WaitGroup
}

func (p *parallel) start(workers []*worker) { p.workers = workers }

func (p *parallel) do(items int, f func(w *worker, item int)) {
	p.next.Store(0)
	p.items, p.f = items, f
	n := min(items, len(p.workers))
	p.wg.Add(max(n-1, 0))
	for _, w := range p.workers[1:max(n, 1)] {
		go w.background()
	}
	p.drain(p.workers[0])
	p.wg.Wait()
}

func (p *parallel) drain(w *worker) {
	for {
		i := int(p.next.Add(1)) - 1
		if i >= p.items {
			return
		}
		p.f(w, i)
	}
}

func ceil(n, by int) int { return (n + by - 1) / by }

func resize[T any](s *[]T, n int) {
	if cap(*s) < n {
		*s = make([]T, n)
	}
	*s = (*s)[:n]
}
