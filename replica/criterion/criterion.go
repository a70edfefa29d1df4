// Package criterion is the loss of a step's queries against the queue of
// negatives: of a queue that every member holds whole (Local), and of one whose
// shards are spread over the members (Spread). Both give the same bits.
//
// A member has several BatchNorm groups but one query encoder, whose activations
// belong to its last forward. So queries go in waves, of one unit each (the
// groups that one program computes): the first unit of every member, then the
// second, and so on. Whoever drives it does, for each wave,
//
//	encode the queries of its unit into Queries(wave), if it has one
//	losses, err := Evaluate(ctx, wave)
//	take losses.DQ backward, if it has a unit
//
// # A queue that is spread
//
// Slot i of the queue belongs to virtual shard i mod V. Round.Holders says which
// ranks hold each shard, the owner first. No key travels: queries go out to all,
// the owner of a shard answers with the similarities of its hardest and, once it
// is known how many of those are among the N hardest of all, with one part, d + 9
// numbers a query: d towards the gradient and a few sums (package loss). A
// query's member folds the parts of all shards in the order of the shards, which
// is also how a replica that holds everything computes them; so the bits depend
// neither on the number of members, nor on the copies, nor on who owns what.
//
// Every member takes part in every wave, for its shards, whether it has a unit
// in it or not, and gradients are reduced only after the last wave, so that all
// members make the same collectives in the same order.
//
// Traffic of a step of B queries on P members, float32: B·d queries,
// P·B·(N + V/P) to mix, B·V·(d+9) parts: 3.5 MB at B = 256, d = 128, V = 16,
// N = 1024 on two members, 6.5 MB on four. Collectives: three a wave.
package criterion

import (
	"context"

	"mochi/allreduce"
	"mochi/model/loss"
	"mochi/replica/queue"
)

// Criterion is the loss of one step after the other.
type Criterion interface {
	// Begin starts a step and says how many waves it has. What it is given stays
	// in use until the next Begin.
	Begin(step Step) (waves int)
	// Queries is where the queries of this member's unit of a wave go, [n·g, d];
	// nil when it has none in it.
	Queries(wave int) []float32
	// Evaluate computes the losses of a wave: once a wave, in order, on every
	// member. They are valid until the next call, and those of a member without a
	// unit are empty.
	Evaluate(ctx context.Context, wave int) (Losses, error)
}

// Step is what the losses of one step have in common: the whole global batch, in
// its order.
type Step struct {
	Number  int64     // with seed and sample it determines the draws
	Mix     bool      // synthetic negatives: not in the warm-up epochs
	Keys    []float32 // [B, d] the positives
	Samples []int     // [B] dataset indices
	Labels  []int32   // [B] of the class oracle; nil: off
}

// queries are some of a step's, whose embeddings are q.
func (s *Step) queries(rows Rows, q []float32) loss.Queries {
	queries := loss.Queries{Q: q, Samples: s.Samples[rows.Lo:rows.Hi], Step: s.Number, Mix: s.Mix}
	if s.Labels != nil {
		queries.Labels = s.Labels[rows.Lo:rows.Hi]
	}
	return queries
}

// Rows are the samples of a unit in the global batch: [Lo, Hi).
type Rows struct{ Lo, Hi int }

// Losses are those of one unit of n groups.
type Losses struct {
	Groups []loss.Output // [n]
	DQ     []float32     // [n·g, d] gradients of all of them
}

// Ring is the collective that a spread queue needs (an allreduce.Group's).
type Ring interface {
	AllGather(ctx context.Context, tag allreduce.Tag, data []float32, counts []int) error
}

// Shape is what both criteria know of the job.
type Shape struct {
	Batch  int // B, the global batch: gradients are scaled by 1/B
	Dim    int // d
	Groups int // n, of a unit
}

// results is room for the losses of one unit of so many samples.
func (s Shape) results(samples int) Losses {
	l := Losses{Groups: make([]loss.Output, s.Groups), DQ: make([]float32, samples*s.Dim)}
	rows := len(l.DQ) / s.Groups
	for j := range l.Groups {
		l.Groups[j].DQ = l.DQ[j*rows : (j+1)*rows]
	}
	return l
}

// AppendShards appends the shards that a queue holds, as the loss wants them:
// with their classes where the class oracle is on. They are the queue's, as
// queue.Queue.Held.
func AppendShards(dst []loss.Shard, q *queue.Queue, oracle bool) []loss.Shard {
	for _, h := range q.Held() {
		shard := loss.Shard{Index: h.Index, Keys: h.Keys, BF16: h.BF16, Sums: h.Sums()}
		if oracle {
			shard.Labels = h.Labels
		}
		dst = append(dst, shard)
	}
	return dst
}
