package loss

import (
	"slices"

	"mochi/model/engine"
	"mochi/model/nearest"
)

// This file draws the synthetic points of a query in the two ways that there
// are (Config.PairsInShard). Which points a query has is a function of seed,
// step, sample and its hard negatives, whoever computes them.

// mixAny adds the synthetic points of query i, pairs of any two of its hard
// negatives, to its part of the first shard.
func (w *worker) mixAny(i int) {
	l := w.l
	at, end := l.hard.starts[i], l.hard.starts[i+1]
	if at == end {
		return
	}
	m := &w.mixture
	*m = engine.Mixture{
		Query: l.q.Q[i*l.dim : (i+1)*l.dim], From: m.From[:0], Sims: l.hard.values[at:end],
		InvT: float32(1 / l.cfg.Temperature), Part: l.part(0, i),
	}
	for s, n := range l.hard.counts[i*len(l.shards) : (i+1)*len(l.shards)] {
		m.From = append(m.From, picked(&l.shards[s], l.hard.rows[at:at+n]))
		at += n
	}
	w.drawAny(i, int32(len(m.Sims)))
	m.First, m.Second, m.Alpha, m.Partner, m.Beta = w.first, w.second, w.alpha, w.partner, w.beta
	l.seen(i, 0, m)
	w.mixer.Mix(m)
}

// drawAny makes the worker's first, second, alpha, partner and beta: the points
// of query i, which has n hard negatives.
func (w *worker) drawAny(i int, n int32) {
	l := w.l
	if explicit := l.q.Draws; explicit != nil {
		w.given(i, explicit)
		return
	}
	d := newDrawer(l.cfg.Seed, l.q.Step, l.q.Samples[i])
	for t := range w.first {
		var rest uint64
		w.first[t], rest = below(d.uniform64(drawPair, t), n)
		w.second[t], rest = below(rest, n)
		w.alpha[t] = unit(rest)
	}
	for t := range w.partner {
		var rest uint64
		w.partner[t], rest = below(d.uniform64(drawQuery, t), n)
		w.beta[t] = unit(rest) / 2
	}
}

// given takes explicit draws, by rank, as hard negatives by shard and row.
func (w *worker) given(i int, d *Draws) {
	l := w.l
	from, to := l.hard.starts[i], l.hard.starts[i+1]
	keys := w.keys[:0]
	for at := from; at < to; at++ {
		keys = append(keys, nearest.NewKey(l.hard.values[at], int(at-from)))
	}
	slices.Sort(keys)
	s, s2 := l.cfg.S, l.cfg.S2
	for t := range s {
		w.first[t], w.second[t] = keys[d.First[i*s+t]].Index(), keys[d.Second[i*s+t]].Index()
	}
	for t := range s2 {
		w.partner[t] = keys[d.Partner[i*s2+t]].Index()
	}
	copy(w.alpha, d.Alpha[i*s:(i+1)*s])
	copy(w.beta, d.Beta[i*s2:(i+1)*s2])
}

// drawAll draws the points of query i that lie in this scan's shards and sorts
// them by shard; both members of a pair are from one shard, never the same.
func (w *worker) drawAll(i int) {
	l := w.l
	shards, parts := len(l.shards), len(l.shards)+1
	starts := l.starts[i*(l.cfg.Shards+1) : (i+1)*(l.cfg.Shards+1)]
	resize(&w.shardOf, int(starts[l.cfg.Shards]))
	w.pairable = w.pairable[:0]
	for v := range l.cfg.Shards {
		for at := starts[v]; at < starts[v+1]; at++ {
			w.shardOf[at] = int32(l.held[v])
			if starts[v+1]-starts[v] > 1 {
				w.pairable = append(w.pairable, at)
			}
		}
	}
	resize(&w.begin, shards)
	resize(&w.size, shards)
	at := l.hard.starts[i]
	for s := range shards {
		v, found := l.shards[s].Index, l.hard.counts[i*shards+s]
		w.begin[s], w.size[s] = starts[v], starts[v+1]-starts[v]
		w.keepHardest(at, found, w.size[s])
		l.drawn.hardAt[i*shards+s] = at
		at += found
	}

	d := newDrawer(l.cfg.Seed, l.q.Step, l.q.Samples[i])
	from, to := i*l.cfg.S, (i+1)*l.cfg.S
	w.drawFirst(d, drawPair, l.cfg.S, int32(len(w.pairable)))
	for t, rank := range w.numbers {
		w.numbers[t] = w.pairable[rank]
	}
	cursor := w.sortByShard(l.drawn.pairsAt[i*parts : (i+1)*parts])
	first, second, alpha := l.drawn.first[from:to], l.drawn.second[from:to], l.drawn.alpha[from:to]
	for t, number := range w.numbers {
		s := w.shardOf[number]
		if s < 0 {
			continue
		}
		at := cursor[s]
		cursor[s]++
		j, rest := below(w.rests[t], w.size[s]-1)
		first[at] = number - w.begin[s]
		if j >= first[at] {
			j++
		}
		second[at], alpha[at] = j, unit(rest)
	}

	from, to = i*l.cfg.S2, (i+1)*l.cfg.S2
	w.drawFirst(d, drawQuery, l.cfg.S2, int32(len(w.shardOf)))
	cursor = w.sortByShard(l.drawn.pointsAt[i*parts : (i+1)*parts])
	partner, beta := l.drawn.partner[from:to], l.drawn.beta[from:to]
	for t, number := range w.numbers {
		s := w.shardOf[number]
		if s < 0 {
			continue
		}
		at := cursor[s]
		cursor[s]++
		partner[at], beta[at] = number-w.begin[s], unit(w.rests[t])/2
	}
}

// drawFirst makes the worker's numbers and rests: of each of so many points
// which of n is its first hard negative, and what is left of its draw. With
// n = 0 there are no points.
func (w *worker) drawFirst(d drawer, kind, points int, n int32) {
	if n == 0 {
		points = 0
	}
	resize(&w.numbers, points)
	resize(&w.rests, points)
	rests := w.rests[:len(w.numbers)]
	for t := range w.numbers {
		w.numbers[t], rests[t] = below(d.uniform64(kind, t), n)
	}
}

// sortByShard says in starting [shards+1] where each shard's points begin, of
// those whose first hard negatives are the worker's numbers, and returns a copy
// to count with, the worker's own.
func (w *worker) sortByShard(starting []int32) (cursor []int32) {
	clear(starting)
	for _, number := range w.numbers {
		starting[w.shardOf[number]+1]++ // another holder's are counted in front
	}
	starting[0] = 0
	for s := range len(starting) - 1 {
		starting[s+1] += starting[s]
	}
	w.cursor = append(w.cursor[:0], starting...)
	return w.cursor
}

// keepHardest moves those hard negatives of a shard to its front that are among
// the hardest of all shards, in their order.
func (w *worker) keepHardest(at, found, among int32) {
	if among == found || among == 0 {
		return
	}
	w.reorder(at, found, func(keys []nearest.Key) []nearest.Key {
		keys, w.scratch, _ = nearest.SelectInOrder(keys, int(among), w.scratch)
		return keys
	})
}
