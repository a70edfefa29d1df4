package allreduce

import (
	"context"
	"fmt"

	"mochi/allreduce/codec"
)

// AllReduceSum replaces data, on every rank, by the element-wise sum over all
// ranks, in the wire format of the Config. data has the same length on all
// ranks and is the working copy: on error its contents are undefined. With
// bf16 on the wire every partial sum that travels is rounded to bf16 and the
// result is a bf16 value; a world of one rank leaves data as it is.
//
// Errors: a *PeerError, the cause of ctx's end, or ErrClosed; see Group.
func (g *Group) AllReduceSum(ctx context.Context, tag Tag, data []float32) error {
	return g.AllReduceSumAs(ctx, tag, g.cfg.Wire, data)
}

// AllReduceSumChecked is AllReduceSum with a second look at a part of the
// additions; a nil check looks at nothing.
func (g *Group) AllReduceSumChecked(ctx context.Context, tag Tag, data []float32, check *Check) error {
	return g.allReduce(ctx, tag, reduction{op: opSum, wire: g.cfg.Wire, onTheWay: roleAdd, last: roleAddAndKeep, check: check}, data)
}

// AllReduceSumAs is AllReduceSum in a given wire format, such as fp32 for
// statistics beside bf16 gradients. All ranks must choose the same.
func (g *Group) AllReduceSumAs(ctx context.Context, tag Tag, wire codec.Wire, data []float32) error {
	if err := wire.Validate(); err != nil {
		return fmt.Errorf("allreduce: %w", err)
	}
	return g.allReduce(ctx, tag, reduction{op: opSum, wire: wire, onTheWay: roleAdd, last: roleAddAndKeep}, data)
}

// AllReduceMax replaces data, on every rank, by the element-wise maximum over
// all ranks; a NaN on any rank wins, so the result is the same for any number
// and order of ranks. Always fp32 on the wire. Errors as AllReduceSum's.
func (g *Group) AllReduceMax(ctx context.Context, tag Tag, data []float32) error {
	return g.allReduce(ctx, tag, reduction{op: opMax, wire: codec.FP32, onTheWay: roleMax, last: roleMax}, data)
}

// reduction is how an all-reduce combines what arrives with what is there.
type reduction struct {
	op       op
	wire     codec.Wire
	onTheWay role // at the ranks that a chunk passes
	last     role // at the rank where it is complete
	check    *Check
}

// allReduce is reduce-scatter and all-gather around the ring. Chunk c starts
// at rank c and is complete P−1 hops later, at rank c−1, which owns it and
// sends it around once more. Rank r receives chunks r−1, r−2, … (mod P) to
// reduce and then r, r−1, … to keep.
func (g *Group) allReduce(ctx context.Context, tag Tag, how reduction, data []float32) error {
	world, rank := g.id.World, g.id.Rank
	if world == 1 {
		how.check.Alone(data)
		return g.alone(ctx)
	}
	chunk := func(c int) span {
		c = ((c % world) + world) % world
		return span{c * len(data) / world, (c + 1) * len(data) / world}
	}
	hops := make([]hop, 0, 2*(world-1))
	for k := 1; k < world; k++ {
		r := how.onTheWay
		if k == world-1 {
			r = how.last
		}
		hops = append(hops, hop{chunk(rank - k), r})
	}
	for k := range world - 1 {
		hops = append(hops, hop{chunk(rank - k), roleCopy})
	}
	how.check.begin(g.wires(how.wire))
	how.check.starts(data, chunk(rank))
	err := g.run(ctx, &flow{
		op: how.op, tag: tag, total: len(data),
		own: []span{chunk(rank)}, hops: hops, onward: len(hops) - 1, rewrites: world - 1,
		vector: &floats{data: data, wire: how.wire, scratch: g.scratch, check: how.check},
	})
	if err == nil {
		how.check.ends(data)
	}
	return err
}

// AllGather fills data, on every rank, with the ranks' parts in rank order:
// counts[r] elements from rank r, which has put them at their place in data
// before the call. counts, one a rank, may differ and may be 0; their sum is
// len(data). Always fp32 on the wire. Errors as AllReduceSum's.
func (g *Group) AllGather(ctx context.Context, tag Tag, data []float32, counts []int) error {
	return g.allGather(ctx, opGather, tag, data, counts)
}

func (g *Group) allGather(ctx context.Context, o op, tag Tag, data []float32, counts []int) error {
	world, rank := g.id.World, g.id.Rank
	if len(counts) != world {
		return fmt.Errorf("allreduce: %d counts for %d ranks", len(counts), world)
	}
	parts := make([]span, world)
	end := 0
	for r, n := range counts {
		if n < 0 {
			return fmt.Errorf("allreduce: count %d of rank %d is negative", n, r)
		}
		parts[r] = span{end, end + n}
		end += n
	}
	if end != len(data) {
		return fmt.Errorf("allreduce: counts %v sum to %d, the vector has %d elements", counts, end, len(data))
	}
	if world == 1 {
		return g.alone(ctx)
	}
	hops := make([]hop, world-1)
	for k := range hops {
		hops[k] = hop{parts[(rank-1-k+world)%world], roleCopy}
	}
	return g.run(ctx, &flow{
		op: o, tag: tag, total: len(data),
		own: []span{parts[rank]}, hops: hops, onward: len(hops) - 1,
		vector: g.floats(codec.FP32, data),
	})
}

// Broadcast fills data on every rank with root's, pipelined along the ring.
// data has the same length on all ranks. Errors as AllReduceSum's.
func (g *Group) Broadcast(ctx context.Context, tag Tag, root int, data []byte) error {
	if root < 0 || root >= g.id.World {
		return fmt.Errorf("allreduce: broadcast from rank %d of a world of %d", root, g.id.World)
	}
	if g.id.World == 1 {
		return g.alone(ctx)
	}
	whole := span{0, len(data)}
	f := &flow{op: opBroadcast, tag: tag, total: len(data), vector: raw(data)}
	if g.id.Rank == root {
		f.own = []span{whole}
	} else {
		f.hops = []hop{{whole, roleCopy}}
		if g.id.Successor() != root {
			f.onward = 1
		}
	}
	return g.run(ctx, f)
}

// Barrier returns once every rank has entered it: an all-gather of one element
// a rank. Errors as AllReduceSum's.
func (g *Group) Barrier(ctx context.Context, tag Tag) error {
	if g.id.World == 1 {
		return g.alone(ctx)
	}
	counts := make([]int, g.id.World)
	for r := range counts {
		counts[r] = 1
	}
	return g.allGather(ctx, opBarrier, tag, g.arrived, counts)
}

// alone is a collective in a world of one rank.
func (g *Group) alone(ctx context.Context) error {
	if err := g.err(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// wires are the formats of a collective at this rank.
func (g *Group) wires(wire codec.Wire) wires {
	w := wires{wire, wire, wire}
	if g.borrows != nil {
		w.in = codec.FP32
	}
	if g.lends != nil {
		w.out = codec.FP32
	}
	return w
}

// floats views data for one collective.
func (g *Group) floats(wire codec.Wire, data []float32) vector {
	return &floats{data: data, wire: wire, scratch: g.scratch}
}
