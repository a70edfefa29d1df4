package allreduce

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
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

// fate is where a segment goes from here.
type fate int

const (
	stays   fate = iota // nowhere
	goesOn              // to the next rank, out of the vector
	mayPass             // to the next rank, out of the vector or as the payload lies there
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
	// take does with a segment what its role is. It reports whether it has left in the
	// payload what goes on to the next rank; then the vector need not have it.
	take(r role, lo, hi int, payload []byte, to fate) (passes bool)

	lentSize() int          // bytes of one element in memory
	lend(lo, hi int) []byte // the elements as they lie there
	takeLent(r role, lo, hi int, segment []byte, to fate)
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
	progress := &progress{
		moreTaken: make(chan struct{}, 1), moreSent: make(chan struct{}, 1),
		ready: make(chan passing, g.cfg.Window),
	}
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

	ready chan passing // of those taken, in their order; when it is full they go by the vector
	next  passing      // the first of them, once the sender has looked
}

// passing is a segment that goes on as it lies in the receiver's buffer: what came, or the
// sum of it. So what only passes a rank is neither written to its vector nor read from it.
type passing struct {
	at      int64 // elements that were taken before it
	payload []byte
}

// passed is the payload of the segment before which so many elements were taken, which it
// has been itself; nil: it is in the vector. Only the sender asks.
func (p *progress) passed(at int64) (payload []byte) {
	if p.next.payload == nil {
		select {
		case p.next = <-p.ready:
		default:
		}
	}
	if p.next.payload != nil && p.next.at == at {
		payload, p.next = p.next.payload, passing{}
	}
	return payload
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
			passes, err := g.take(f, lane, h.role, span{lo, hi}, &s, g.fate(i < f.onward, p))
			if err != nil {
				return err
			}
			if passes {
				p.ready <- passing{p.taken.Load(), s.payload} // there is room: nobody else puts one in
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

// fate is that of the segment which is taken next.
func (g *Group) fate(onward bool, p *progress) fate {
	switch {
	case !onward:
		return stays
	case g.lends == nil && len(p.ready) < cap(p.ready):
		return mayPass
	}
	return goesOn
}

// take does with a segment what its role is, see vector.
func (g *Group) take(f *flow, lane lane, r role, at span, s *segment, to fate) (passes bool, err error) {
	if lane.lent {
		return false, g.takeLent(f, lane, r, at, s, to)
	}
	if f.vector.take(r, at.lo, at.hi, s.payload, to) {
		return true, nil
	}
	g.recycle(s.payload)
	return false, nil
}

func (g *Group) recycle(payload []byte) {
	if g.recycler != nil {
		g.recycler.Recycle(payload)
	}
}

func (g *Group) takeLent(f *flow, lane lane, r role, at span, s *segment, to fate) error {
	lent, ok := g.borrows.borrow(s.header.seq)
	if !ok {
		return g.recalled()
	}
	defer g.borrows.giveBack(s.header.seq)
	if len(lent) != (at.hi-at.lo)*lane.size {
		g.failPeer(g.id.Predecessor(), fmt.Errorf("%w: it lent %d bytes, want %d", ErrMismatch, len(lent), (at.hi-at.lo)*lane.size))
		return g.err()
	}
	f.vector.takeLent(r, at.lo, at.hi, lent, to)
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
			var payload []byte
			if taken >= 0 {
				payload = p.passed(taken + int64(lo-s.lo))
			}
			if err := g.sendSegment(f, lane, index, span{lo, hi}, payload); err != nil {
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

// sendSegment sends a range: what is in payload, if that is not nil, else the vector's.
func (g *Group) sendSegment(f *flow, lane lane, index uint32, at span, payload []byte) error {
	h := header{
		kind: kindData, op: f.op, seq: g.out.sent.Load(),
		step: f.tag.Step, bucket: f.tag.Bucket, total: uint64(f.total), index: index,
	}
	if lane.lent {
		if !g.lends.lend(h, f.vector.lend(at.lo, at.hi)) {
			return g.err() // recalled by an earlier error, which ended the Group
		}
	} else {
		g.sendFrame(f, h, at, payload)
	}
	g.out.sent.Add(1) // after the frame: a heartbeat must not announce what is not under way
	g.stats.segments.Add(1)
	g.stats.bytes.Add(uint64((at.hi - at.lo) * lane.size))
	return nil
}

func (g *Group) sendFrame(f *flow, h header, at span, payload []byte) {
	packed := func() []byte {
		if payload != nil {
			return payload
		}
		return f.vector.pack(at.lo, at.hi)
	}
	room := g.room((at.hi - at.lo) * f.vector.size())
	switch {
	case room == nil:
		g.sendWith(g.out.header[:], Forward, h, packed())
	case g.seals.out[Forward] != nil:
		g.sendCopied(h, room, packed())
	case payload != nil:
		g.sendFilled(h, func(sum uint32) uint32 { return sumCopy(sum, room, payload) })
	default:
		g.sendFilled(h, func(sum uint32) uint32 { return f.vector.fill(sum, room, at.lo, at.hi) })
	}
	if payload != nil {
		g.recycle(payload)
	}
}
