package allreduce

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

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
	fill(sum uint32, payload []byte, lo, hi int) uint32 // packs there, and continues a checksum over it
	take(r role, lo, hi int, payload []byte)

	lentSize() int          // bytes of one element in memory
	lend(lo, hi int) []byte // the elements as they lie there
	takeLent(r role, lo, hi int, segment []byte)
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

// lane is how the segments of a flow go over one link.
type lane struct {
	lent bool // they stay where they are
	size int  // bytes of an element
	per  int  // elements of a segment
}

// lane is that of a link with these loans, the same at both ends.
func (g *Group) lane(f *flow, loans *Loans) lane {
	if loans != nil {
		size := f.vector.lentSize()
		return lane{true, size, max(1, g.cfg.Lent/size)}
	}
	size := f.vector.size()
	return lane{false, size, max(1, g.cfg.Segment/size)}
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
	progress := &progress{moreTaken: make(chan struct{}, 1), moreSent: make(chan struct{}, 1)}
	sent := make(chan error, 1)
	go func() { sent <- g.sendFlow(f, progress) }()
	err = g.receiveFlow(f, progress)
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	if err != nil && g.lends != nil {
		g.lends.recall() // the vector is the caller's again
	}
	return err
}

// progress is how far the two sides of a collective have come, in elements.
type progress struct {
	taken, sent         atomic.Int64
	moreTaken, moreSent chan struct{} // capacity 1
}

// await waits until count is n.
func (g *Group) await(count *atomic.Int64, n int64, more chan struct{}) error {
	for count.Load() < n {
		select {
		case <-more:
		case <-g.ended:
			return g.err()
		}
	}
	return nil
}

func (g *Group) receiveFlow(f *flow, p *progress) error {
	lane := g.lane(f, g.borrows)
	index, rewritten := uint32(0), int64(0)
	for i, h := range f.hops {
		for lo := h.lo; lo < h.hi; lo += lane.per {
			hi := min(lo+lane.per, h.hi)
			s, err := g.next()
			if err != nil {
				return err
			}
			if err := g.check(f, lane, &s, index, hi-lo); err != nil {
				return err
			}
			if i >= len(f.hops)-f.rewrites {
				// The total cannot come before the partial sum has left (and been
				// read, where it was lent), but the sender may still be about to
				// return from sending it.
				rewritten += int64(hi - lo)
				if err := g.await(&p.sent, rewritten, p.moreSent); err != nil {
					return err
				}
			}
			if err := g.take(f, lane, h.role, span{lo, hi}, &s); err != nil {
				return err
			}
			index++
			if i < f.onward {
				p.taken.Add(int64(hi - lo))
				wake(p.moreTaken)
			}
			g.consume()
		}
	}
	if lane.lent {
		g.grant() // the predecessor waits for its vector
	}
	return nil
}

// take does with a segment what its role is.
func (g *Group) take(f *flow, lane lane, r role, at span, s *segment) error {
	if !lane.lent {
		f.vector.take(r, at.lo, at.hi, s.payload)
		if g.recycler != nil {
			g.recycler.Recycle(s.payload)
		}
		return nil
	}
	lent, ok := g.borrows.borrow(s.header.seq)
	if !ok {
		return g.recalled()
	}
	defer g.borrows.giveBack(s.header.seq)
	if len(lent) != (at.hi-at.lo)*lane.size {
		g.failPeer(g.id.Predecessor(), fmt.Errorf("%w: it lent %d bytes, want %d", ErrMismatch, len(lent), (at.hi-at.lo)*lane.size))
		return g.err()
	}
	f.vector.takeLent(r, at.lo, at.hi, lent)
	return nil
}

// recalled waits for the word of why the predecessor took its segments back.
func (g *Group) recalled() error {
	patience := time.NewTimer(g.cfg.Timeout)
	defer patience.Stop()
	select {
	case <-g.ended:
	case <-patience.C:
		g.failPeer(g.id.Predecessor(), fmt.Errorf("%w: it left its collective", ErrAborted))
	}
	return g.err()
}

// check makes sure that a segment is the one this collective expects, so many elements.
func (g *Group) check(f *flow, lane lane, s *segment, index uint32, elements int) error {
	h := &s.header
	peer := Tag{Step: h.step, Bucket: h.bucket}
	length := elements * lane.size
	var detail string
	switch {
	case h.op != f.op || peer != f.tag:
		detail = fmt.Sprintf("it is in %s, this rank in %s", describe(h.op, peer), describe(f.op, f.tag))
	case h.total != uint64(f.total):
		detail = fmt.Sprintf("its vector has length %d, this rank's %d", h.total, f.total)
	case h.index != index || !lane.lent && len(s.payload) != length:
		detail = fmt.Sprintf("it sent segment %d of %d bytes, want segment %d of %d", h.index, len(s.payload), index, length)
	default:
		return nil
	}
	g.failPeer(g.id.Predecessor(), fmt.Errorf("%w: %s", ErrMismatch, detail))
	return g.err()
}

func (g *Group) sendFlow(f *flow, p *progress) error {
	lane := g.lane(f, g.lends)
	index := uint32(0)
	// emit sends a range; elements before it (own ones apart) must have been taken, and
	// those of each segment.
	emit := func(s span, taken int64) error {
		for lo := s.lo; lo < s.hi; lo += lane.per {
			hi := min(lo+lane.per, s.hi)
			if taken >= 0 {
				if err := g.await(&p.taken, taken+int64(hi-s.lo), p.moreTaken); err != nil {
					return err
				}
			}
			if err := g.credit(); err != nil {
				return err
			}
			if err := g.sendSegment(f, lane, index, span{lo, hi}); err != nil {
				return err
			}
			index++
			p.sent.Add(int64(hi - lo))
			wake(p.moreSent)
		}
		return nil
	}
	for _, s := range f.own {
		if err := emit(s, -1); err != nil {
			return err
		}
	}
	taken := int64(0)
	for _, h := range f.hops[:f.onward] {
		if err := emit(h.span, taken); err != nil {
			return err
		}
		taken += int64(h.hi - h.lo)
	}
	if lane.lent {
		return g.outstanding(1)
	}
	return nil
}

func (g *Group) sendSegment(f *flow, lane lane, index uint32, at span) error {
	h := header{
		kind: kindData, op: f.op, seq: g.out.sent.Load(),
		step: f.tag.Step, bucket: f.tag.Bucket, total: uint64(f.total), index: index,
	}
	if lane.lent {
		if !g.lends.lend(h, f.vector.lend(at.lo, at.hi)) {
			return g.err() // recalled by an earlier error, which ended the Group
		}
	} else if room := g.room((at.hi - at.lo) * lane.size); room != nil && g.seals.out[Forward] != nil {
		g.sendCopied(h, room, f.vector.pack(at.lo, at.hi))
	} else if room != nil {
		g.sendFilled(h, func(sum uint32) uint32 { return f.vector.fill(sum, room, at.lo, at.hi) })
	} else {
		g.sendWith(g.out.header[:], Forward, h, f.vector.pack(at.lo, at.hi))
	}
	g.out.sent.Add(1) // after the frame: a heartbeat must not announce what is not under way
	g.stats.segments.Add(1)
	g.stats.bytes.Add(uint64((at.hi - at.lo) * lane.size))
	return nil
}

// floats is a float32 vector in a wire format.
type floats struct {
	data    []float32
	wire    codec.Wire
	scratch []byte // the Group's, one segment: used by the sender, whose turn it is
	check   *Check // of additions, nil: none
}

func (v *floats) size() int { return v.wire.Size() }

func (v *floats) pack(lo, hi int) []byte { return v.wire.Pack(v.scratch, v.data[lo:hi]) }

func (v *floats) fill(sum uint32, payload []byte, lo, hi int) uint32 {
	packed := v.wire.Pack(payload, v.data[lo:hi])
	if &packed[0] == &payload[0] {
		return sumOver(sum, payload)
	}
	return sumCopy(sum, payload, packed) // the vector's own memory
}

func (v *floats) take(r role, lo, hi int, payload []byte) {
	v.combine(r, span{lo, hi}, v.wire, payload)
}

func (v *floats) lentSize() int          { return 4 }
func (v *floats) lend(lo, hi int) []byte { return codec.Bytes(v.data[lo:hi]) }

// takeLent takes float32, whatever the wire: what does not travel need not be rounded
// on the way. Only the owner rounds, so that all ranks adopt what all can be told.
func (v *floats) takeLent(r role, lo, hi int, segment []byte) {
	v.combine(r, span{lo, hi}, codec.FP32, segment)
}

// combine does with what came, in the format as, what its role is.
func (v *floats) combine(r role, at span, as codec.Wire, came []byte) {
	dst := v.data[at.lo:at.hi]
	switch r {
	case roleCopy:
		as.Unpack(dst, came)
	case roleAdd, roleAddAndKeep:
		v.check.before(v.data, at, came)
		as.Add(dst, came)
		if r == roleAddAndKeep {
			v.wire.Round(dst)
		}
		v.check.after(v.data, at, r == roleAddAndKeep)
	case roleMax:
		codec.MaxFP32(dst, came)
	}
}

// raw is a byte vector.
type raw []byte

func (v raw) size() int              { return 1 }
func (v raw) pack(lo, hi int) []byte { return v[lo:hi] }
func (v raw) fill(sum uint32, payload []byte, lo, hi int) uint32 {
	return sumCopy(sum, payload, v[lo:hi])
}
func (v raw) take(_ role, lo, hi int, data []byte) { copy(v[lo:hi], data) }

func (v raw) lentSize() int                            { return 1 }
func (v raw) lend(lo, hi int) []byte                   { return v[lo:hi] }
func (v raw) takeLent(r role, lo, hi int, lent []byte) { v.take(r, lo, hi, lent) }
