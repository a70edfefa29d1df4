package replica

import (
	"context"
	"fmt"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
	"mochi/model/engine"
	"mochi/model/loss"
)

// exchange is the loss against a queue whose shards are spread over the
// members (Round.Holders). No key travels: queries go out to all, the owners
// of shards answer with the similarities of their hardest and, once it is
// known how many of those are among the N hardest of all, with one part a
// shard: d numbers towards the gradient and a few sums (package loss). A
// query's member folds the parts of all shards in their order. So the result
// has the same bits whoever owns which shard, and the bits of a queue that is
// nowhere spread.
//
// A member has several groups but one query encoder, whose activations belong
// to its last forward. So they go in waves, of one run of the encoder each: the
// first of every member, then the second, and so on. Every member takes part in
// every wave, for its shards; gradients are reduced only after the last one, so
// that all members make the same collectives in the same order.
//
// Traffic of a step of B queries, float32: B·d queries, P·B·(N + V/P) to mix,
// B·V·(d+9) parts: 3.5 MB at B = 256, d = 128, V = 16, N = 1024 on two
// members, 6.5 MB on four. Collectives: three a wave.
type exchange struct {
	owned [][]int // shards that each rank evaluates, ascending
	index []place // where each shard is in that
	hard  []int   // how many hard negatives a rank has at most, of one query

	queries, values, parts []float32
	counts                 []int
}

type place struct{ rank, at int }

// exchangeTag and the two after it are of wave 0.
const exchangeTag = 1 << 26

func (s *session) newExchange(m *membership) *exchange {
	e := &exchange{
		owned: make([][]int, len(m.Members)), hard: make([]int, len(m.Members)),
		index: make([]place, len(m.Holders)), counts: make([]int, len(m.Members)),
	}
	for v, holders := range m.Holders {
		owner := holders[0]
		e.index[v] = place{owner, len(e.owned[owner])}
		e.owned[owner] = append(e.owned[owner], v)
		rows := engine.ShardRows(s.cfg.Queue, s.cfg.QueueShards, v)
		e.hard[owner] = min(e.hard[owner]+rows, s.cfg.MoCHi.N)
	}
	return e
}

// exchanged is queries for a spread queue: reduce is called before the
// backward pass from which on no member exchanges anything more.
func (s *session) exchanged(ctx context.Context, m *membership, step int64, images [][]float32, local []share, final chan<- int, reduce func()) ([]protocol.GroupReport, error) {
	g, d := s.cfg.BNGroup, s.cfg.Dim
	b := s.atOnce * g // of a run
	if m.exchange == nil {
		m.exchange = s.newExchange(m)
	}
	waves := 0
	for _, member := range m.Members {
		waves = max(waves, len(member.Groups)/s.atOnce)
	}
	reports := make([]protocol.GroupReport, 0, len(m.groups))
	dq, outputs := make([]float32, b*d), make([]loss.Output, s.atOnce)
	for j := range outputs {
		outputs[j].DQ = dq[j*g*d : (j+1)*g*d]
	}
	for wave := range waves {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// The wave's queries, by rank; at is where this member's begin.
		at, n := -1, 0
		q := loss.Queries{Step: step, Mix: s.sampler.Epoch(s.cursor) >= s.cfg.MoCHiWarmup}
		for rank, member := range m.Members {
			m.exchange.counts[rank] = 0
			if wave*s.atOnce >= len(member.Groups) {
				continue
			}
			if rank == m.rank {
				at = n
			}
			samples, labels := s.samples(member.Groups[wave*s.atOnce])
			q.Samples, q.Labels = append(q.Samples, samples...), append(q.Labels, labels...)
			m.exchange.counts[rank] = b * d
			n += b
		}
		resize(&m.exchange.queries, n*d)
		q.Q = m.exchange.queries
		if at >= 0 {
			if err := s.moco.Forward(images[wave], q.Q[at*d:(at+b)*d], local[wave].query); err != nil {
				return nil, fmt.Errorf("%s at step %d: %w", s.groups(m.runs[wave]), step, err)
			}
			if wave+1 < len(images) {
				if err := s.moco.StageQueries(images[wave+1]); err != nil {
					return nil, err
				}
			}
		}
		parts, err := s.evaluate(ctx, m, wave, q)
		if err != nil {
			return nil, fmt.Errorf("exchange of wave %d of step %d: %w", wave, step, err)
		}
		if wave == waves-1 {
			reduce()
		}
		if at < 0 {
			continue
		}
		first := m.runs[wave]
		width := s.moco.Loss().PartialFloats()
		for v := range parts {
			parts[v] = parts[v][at*width : (at+b)*width]
		}
		lo, hi := s.rows(first)
		err = s.moco.Loss().FoldGroups(loss.Fold{
			Q: q.Q[at*d : (at+b)*d], Pos: s.stage.keys[lo*d : hi*d],
			Samples: q.Samples[at : at+b], Scale: 1 / float64(s.cfg.Batch), Partials: parts,
		}, outputs)
		if err != nil {
			return nil, fmt.Errorf("%s at step %d: %w", s.groups(first), step, err)
		}
		for j, out := range outputs {
			reports = append(reports, protocol.GroupReport{Group: first + j, Figures: out.Figures})
		}
		var ready func(int)
		if wave == len(m.runs)-1 {
			ready = s.reduce.countdown(final)
			if err := s.ahead(); err != nil {
				return nil, err
			}
		}
		if err := s.moco.Backward(dq, local[wave].grads, ready); err != nil {
			return nil, fmt.Errorf("%s at step %d: %w", s.groups(first), step, err)
		}
	}
	s.announce(m, final)
	return reports, nil
}

// evaluate returns the parts of all shards, each [queries, PartialFloats].
func (s *session) evaluate(ctx context.Context, m *membership, wave int, q loss.Queries) ([][]float32, error) {
	e, l := m.exchange, s.moco.Loss()
	tag := allreduce.Tag{Step: uint64(q.Step), Bucket: uint32(exchangeTag + 3*wave)}
	if err := m.ring.AllGather(ctx, tag, q.Q, e.counts); err != nil {
		return nil, fmt.Errorf("gather the queries: %w", err)
	}
	n := len(q.Samples)
	mine := len(e.owned[m.rank]) > 0
	if mine {
		if err := l.Scan(q, s.shards(e.owned[m.rank])); err != nil {
			return nil, err
		}
	}
	var starts []int32
	if q.Mix && s.cfg.MoCHi.N > 0 {
		tag.Bucket++
		hard, err := e.gatherHard(ctx, m, tag, n, l, mine)
		if err != nil {
			return nil, fmt.Errorf("gather the hardest: %w", err)
		}
		starts = loss.Threshold(s.cfg.MoCHi.N, s.cfg.QueueShards, n, hard)
		tag.Bucket--
	}
	if mine {
		if err := l.Mix(starts); err != nil {
			return nil, err
		}
	}

	// Every owner's parts, by rank.
	width := n * l.PartialFloats()
	total, at := 0, make([]int, len(e.owned))
	for rank, shards := range e.owned {
		at[rank] = total
		e.counts[rank] = len(shards) * width
		total += e.counts[rank]
	}
	resize(&e.parts, total)
	if mine {
		copy(e.parts[at[m.rank]:], l.Partials())
	}
	tag.Bucket += 2
	if err := m.ring.AllGather(ctx, tag, e.parts, e.counts); err != nil {
		return nil, fmt.Errorf("gather the parts: %w", err)
	}
	parts := make([][]float32, len(e.index))
	for v, p := range e.index {
		from := at[p.rank] + p.at*width
		parts[v] = e.parts[from : from+width]
	}
	return parts, nil
}

// gatherHard tells everybody how similar everybody's hardest are. A query's
// entry of a rank is one count a shard, and room for as many values as there
// can be.
func (e *exchange) gatherHard(ctx context.Context, m *membership, tag allreduce.Tag, n int, l *loss.Loss, mine bool) ([]loss.Hard, error) {
	total, at := 0, make([]int, len(e.owned))
	for rank, shards := range e.owned {
		at[rank] = total
		e.counts[rank] = n * (len(shards) + e.hard[rank])
		total += e.counts[rank]
	}
	resize(&e.values, total)
	if mine {
		hard, shards := l.Hardest(), len(e.owned[m.rank])
		entry := e.values[at[m.rank]:]
		values := hard.Values
		for i := range n {
			have := 0
			for s, count := range hard.Counts[i*shards : (i+1)*shards] {
				entry[s] = float32(count)
				have += int(count)
			}
			copy(entry[shards:], values[:have])
			clear(entry[shards+have : shards+e.hard[m.rank]])
			values = values[have:]
			entry = entry[shards+e.hard[m.rank]:]
		}
	}
	if err := m.ring.AllGather(ctx, tag, e.values, e.counts); err != nil {
		return nil, err
	}
	var all []loss.Hard
	for rank, shards := range e.owned {
		if len(shards) == 0 {
			continue
		}
		hard := loss.Hard{Shards: shards}
		entry := e.values[at[rank]:]
		for range n {
			have := 0
			for _, count := range entry[:len(shards)] {
				if !(count >= 0) || have+int(count) > e.hard[rank] {
					return nil, fmt.Errorf("%s says it has %v hard negatives, of at most %d", m.Members[rank].Name, count, e.hard[rank])
				}
				hard.Counts = append(hard.Counts, int32(count))
				have += int(count)
			}
			hard.Values = append(hard.Values, entry[len(shards):len(shards)+have]...)
			entry = entry[len(shards)+e.hard[rank]:]
		}
		all = append(all, hard)
	}
	return all, nil
}

// shards are some of those held, as the loss wants them.
func (s *session) shards(wanted []int) []loss.Shard {
	var list []loss.Shard
	next := 0
	for _, shard := range s.negatives() {
		if next < len(wanted) && shard.Index == wanted[next] {
			list = append(list, shard)
			next++
		}
	}
	return list
}

func resize(s *[]float32, n int) {
	if cap(*s) < n {
		*s = make([]float32, n)
	}
	*s = (*s)[:n]
}
