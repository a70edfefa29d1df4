package allreduce

import (
	"context"
	"fmt"
	"sync/atomic"

	"mochi/allreduce/codec"
)

// span is a range of elements [lo, hi) of a vector.
type span struct{ lo, hi int }

// role is what happens to a segment on arrival.
type role int

const (
	roleCopy       role = iota
	roleAdd             // reduce-scatter, on the way
	roleAddAndKeep      // its last hop: this rank owns the chunk and adopts what the wire will carry
	roleMax
)

// hop is a range this rank receives.
type hop struct {
	span
	role role
}

// vector is what travels: it turns elements into payloads and back.
type vector interface {
	size() int // bytes of one element on the wire
	pack(lo, hi int) []byte
	take(r role, lo, hi int, payload []byte)
}

// flow is one collective as one rank sees it. A segment that arrives is taken
// and, if it belongs to the first `onward` hops, sent on; so the sender's
// sequence is its own spans and then the received one, shifted.
type flow struct {
	op     op
	tag    Tag
	total  int // elements of the whole vector
	own    []span
	hops   []hop
	onward int
	vector vector

	// rewrites is how many of the last hops bring back, as totals, the ranges
	// that were sent as partial sums, in the order in which they were sent.
	rewrites int
}

// run executes a flow: the receiver in the caller's goroutine, the sender in
// one of its own, so that neither waits for the other's link.
func (g *Group) run(ctx context.Context, f *flow) error {
	release, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer release()
	g.current.set(f.op, f.tag)
	if err := g.connect(); err != nil {
		return err
	}
	per := max(1, g.cfg.Segment/f.vector.size())
	progress := &progress{moreTaken: make(chan struct{}, 1), moreSent: make(chan struct{}, 1)}
	sent := make(chan error, 1)
	go func() { sent <- g.sendFlow(f, per, progress) }()
	err = g.receiveFlow(f, per, progress)
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	return err
}

// progress is how far the two sides of a collective have come, in segments.
type progress struct {
	taken, sent         atomic.Int64
	moreTaken, moreSent chan struct{} // capacity 1
}

// await waits until count exceeds n.
func (g *Group) await(count *atomic.Int64, n int64, more chan struct{}) error {
	for count.Load() <= n {
		select {
		case <-more:
		case <-g.ended:
			return g.err()
		}
	}
	return nil
}

func (g *Group) receiveFlow(f *flow, per int, p *progress) error {
	index, rewritten := uint32(0), int64(0)
	for i, h := range f.hops {
		for lo := h.lo; lo < h.hi; lo += per {
			hi := min(lo+per, h.hi)
			s, err := g.next()
			if err != nil {
				return err
			}
			if err := g.check(f, &s, index, (hi-lo)*f.vector.size()); err != nil {
				return err
			}
			if i >= len(f.hops)-f.rewrites {
				// The total cannot come before the partial sum has left, but
				// the sender may still be about to return from sending it.
				if err := g.await(&p.sent, rewritten, p.moreSent); err != nil {
					return err
				}
				rewritten++
			}
			f.vector.take(h.role, lo, hi, s.payload)
			index++
			if i < f.onward {
				p.taken.Add(1)
				wake(p.moreTaken)
			}
			g.consume()
		}
	}
	return nil
}

// check makes sure that a segment is the one this collective expects.
func (g *Group) check(f *flow, s *segment, index uint32, length int) error {
	h := &s.header
	peer := Tag{Step: h.step, Bucket: h.bucket}
	var detail string
	switch {
	case h.op != f.op || peer != f.tag:
		detail = fmt.Sprintf("it is in %s, this rank in %s", describe(h.op, peer), describe(f.op, f.tag))
	case h.total != uint64(f.total):
		detail = fmt.Sprintf("its vector has length %d, this rank's %d", h.total, f.total)
	case h.index != index || len(s.payload) != length:
		detail = fmt.Sprintf("it sent segment %d of %d bytes, want segment %d of %d", h.index, len(s.payload), index, length)
	default:
		return nil
	}
	g.failPeer(g.id.Predecessor(), fmt.Errorf("%w: %s", ErrMismatch, detail))
	return g.err()
}

func (g *Group) sendFlow(f *flow, per int, p *progress) error {
	index := uint32(0)
	emit := func(s span, ready func() error) error {
		for lo := s.lo; lo < s.hi; lo += per {
			if err := ready(); err != nil {
				return err
			}
			if err := g.credit(); err != nil {
				return err
			}
			g.sendSegment(f, index, f.vector.pack(lo, min(lo+per, s.hi)))
			index++
			p.sent.Add(1)
			wake(p.moreSent)
		}
		return nil
	}
	for _, s := range f.own {
		if err := emit(s, func() error { return nil }); err != nil {
			return err
		}
	}
	forwarded := int64(0)
	for _, h := range f.hops[:f.onward] {
		err := emit(h.span, func() error {
			err := g.await(&p.taken, forwarded, p.moreTaken)
			forwarded++
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) sendSegment(f *flow, index uint32, payload []byte) {
	h := header{
		kind: kindData, op: f.op, seq: g.out.sent.Load(),
		step: f.tag.Step, bucket: f.tag.Bucket, total: uint64(f.total), index: index,
	}
	g.sendWith(g.out.header[:], Forward, h, payload)
	g.out.sent.Add(1) // after the frame: a heartbeat must not announce what is not under way
	g.stats.segments.Add(1)
	g.stats.bytes.Add(uint64(len(payload)))
}

// floats is a float32 vector in a wire format.
type floats struct {
	data    []float32
	wire    codec.Wire
	scratch []byte // the Group's, one segment: used by the sender, whose turn it is
}

func (v *floats) size() int { return v.wire.Size() }

func (v *floats) pack(lo, hi int) []byte { return v.wire.Pack(v.scratch, v.data[lo:hi]) }

func (v *floats) take(r role, lo, hi int, payload []byte) {
	dst := v.data[lo:hi]
	switch r {
	case roleCopy:
		v.wire.Unpack(dst, payload)
	case roleAdd:
		v.wire.Add(dst, payload)
	case roleAddAndKeep:
		v.wire.Add(dst, payload)
		v.wire.Round(dst)
	case roleMax:
		codec.MaxFP32(dst, payload)
	}
}

// raw is a byte vector.
type raw []byte

func (v raw) size() int                            { return 1 }
func (v raw) pack(lo, hi int) []byte               { return v[lo:hi] }
func (v raw) take(_ role, lo, hi int, data []byte) { copy(v[lo:hi], data) }
