package allreduce

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// segment is a data frame in the inbox.
type segment struct {
	header  header
	payload []byte
}

// incoming is the link from the predecessor.
type incoming struct {
	arrived  atomic.Uint64 // data frames in order so far; written by the handler
	inbox    chan segment  // capacity Window: credits keep it from overflowing
	consumed atomic.Uint64 // data frames that left the inbox; written by the collective
	granted  uint64        // last value of consumed that was sent; the collective's
	alive    pulse
	probed   chan struct{} // closed when the predecessor's probe has arrived
	gone     chan struct{} // closed when the predecessor has left
	ackDue   chan struct{} // capacity 1: the housekeeper owes an acknowledgement
	header   [HeaderLen]byte
	onProbe  sync.Once
	onGone   sync.Once
}

func newIncoming(window int) incoming {
	return incoming{
		inbox:  make(chan segment, window),
		probed: make(chan struct{}),
		gone:   make(chan struct{}),
		ackDue: make(chan struct{}, 1),
	}
}

// outgoing is the link to the successor.
type outgoing struct {
	sent     atomic.Uint64 // data frames handed to the transport
	granted  atomic.Uint64 // data frames the successor has consumed
	received atomic.Uint64 // data frames the successor has received
	alive    pulse
	more     chan struct{} // capacity 1: granted or received grew
	acked    chan struct{} // closed when a probe was acknowledged
	gone     chan struct{} // closed when the successor has left
	header   [HeaderLen]byte
	onAck    sync.Once
	onGone   sync.Once
}

func newOutgoing() outgoing {
	return outgoing{more: make(chan struct{}, 1), acked: make(chan struct{}), gone: make(chan struct{})}
}

func (o *outgoing) delivered() bool {
	sent := o.sent.Load()
	return o.granted.Load() >= sent || o.received.Load() >= sent
}

// pulse is when a neighbour was last heard, and since when somebody waits for
// it (0: nobody does). Nanoseconds since the Group's epoch.
type pulse struct{ heard, waiting atomic.Int64 }

func (g *Group) now() int64 { return max(1, int64(time.Since(g.epoch))) }

// accept decodes a frame and drops what is damaged or not for this link.
func (g *Group) accept(h *header, b, payload []byte, d Direction, p *pulse) bool {
	sender := g.id.Predecessor()
	if d == Backward {
		sender = g.id.Successor()
	}
	switch g.open(h, b, payload, d) {
	case damaged:
		g.stats.damaged.Add(1)
		return false
	case repeated:
		g.stats.duplicates.Add(1)
		return false
	}
	if h.fence != g.fence || int(h.sender) != sender || int(h.world) != g.id.World {
		g.stats.foreign.Add(1)
		return false
	}
	p.heard.Store(g.now())
	return true
}

// open decodes a frame that came by direction d.
func (g *Group) open(h *header, b, payload []byte, d Direction) verdict {
	s := g.seals.from[d]
	if s == nil {
		if !h.decode(b, payload) {
			return damaged
		}
		return whole
	}
	if !isHeader(b) {
		return damaged
	}
	v := s.open(b, payload)
	h.get(b)
	return v
}

// fromPredecessor handles what comes over the data link, in order.
func (g *Group) fromPredecessor(b, payload []byte) {
	var h header
	if !g.accept(&h, b, payload, Forward, &g.in.alive) {
		return
	}
	switch h.kind {
	case kindData:
		g.arrive(h, payload)
	case kindBeat, kindProbe, kindBye:
		if arrived := g.in.arrived.Load(); h.seq > arrived {
			g.failLost(arrived, h.seq)
			return
		}
		if h.kind == kindProbe {
			g.in.onProbe.Do(func() { close(g.in.probed) })
			wake(g.in.ackDue)
		}
		if h.kind == kindBye {
			g.in.onGone.Do(func() { close(g.in.gone) })
		}
	case kindAbort:
		g.aborted(payload)
	}
}

// arrive takes a segment into the inbox.
func (g *Group) arrive(h header, payload []byte) {
	arrived := g.in.arrived.Load()
	if h.seq < arrived {
		g.stats.duplicates.Add(1)
		return
	}
	if h.seq > arrived {
		g.failLost(arrived, h.seq)
		return
	}
	g.in.arrived.Store(arrived + 1)
	select {
	case g.in.inbox <- segment{h, payload}:
	default:
		g.failPeer(g.id.Predecessor(), fmt.Errorf("%w: it sent more than the window of %d segments", ErrMismatch, g.cfg.Window))
	}
}

// lentByPredecessor and grantedBySuccessor are what a link within the process has in
// place of frames. They are called under the Loans' lock and wait for nothing.
func (g *Group) lentByPredecessor(h header) {
	g.in.alive.heard.Store(g.now())
	g.arrive(h, nil)
}

func (g *Group) grantedBySuccessor(seq uint64) {
	g.out.alive.heard.Store(g.now())
	raise(&g.out.granted, seq)
	wake(g.out.more)
}

// fromSuccessor handles what comes over the control link.
func (g *Group) fromSuccessor(b, payload []byte) {
	var h header
	if !g.accept(&h, b, payload, Backward, &g.out.alive) {
		return
	}
	switch h.kind {
	case kindGrant:
		raise(&g.out.granted, h.seq)
		wake(g.out.more)
	case kindAck:
		raise(&g.out.received, h.seq)
		g.out.onAck.Do(func() { close(g.out.acked) })
		wake(g.out.more)
	case kindBye:
		raise(&g.out.granted, h.seq)
		g.out.onGone.Do(func() { close(g.out.gone) })
	case kindAbort:
		g.aborted(payload)
	}
}

// failLost reports a hole in the sequence: want is the next number expected.
func (g *Group) failLost(want, got uint64) {
	detail := ""
	if n := g.stats.damaged.Load(); n > 0 {
		detail = fmt.Sprintf(" (%d damaged ones were dropped)", n)
	}
	g.failPeer(g.id.Predecessor(), fmt.Errorf("%w: segment %d of this link is missing, %d have been sent%s", ErrLost, want, got, detail))
}

// reported is a cause that another rank found.
type reported struct {
	origin int
	text   string
	cause  error
}

func (r *reported) Error() string { return fmt.Sprintf("%s, as rank %d reports", r.text, r.origin) }
func (r *reported) Unwrap() error { return r.cause }

// aborted ends the Group on another rank's word; the housekeeper passes it on.
func (g *Group) aborted(payload []byte) {
	notice, ok := decodeAbort(payload)
	if !ok {
		g.stats.damaged.Add(1)
		return
	}
	cause := &reported{notice.origin, notice.text, abortCauses[notice.cause]}
	g.fail(&PeerError{Rank: notice.suspect, Origin: notice.origin, Round: g.id.Round, Op: g.current.String(), Err: cause}, notice)
}

// down is the transport's word that a neighbour is gone. After an orderly
// leave that is no news.
func (g *Group) down(rank int, err error) {
	if rank == g.id.Predecessor() && isClosed(g.in.gone) || rank == g.id.Successor() && isClosed(g.out.gone) {
		return
	}
	g.failPeer(rank, fmt.Errorf("%w: %v", ErrDown, err))
}

// send encodes and sends a control frame; a failing link ends the Group.
func (g *Group) send(d Direction, h header, payload []byte) {
	var buffer [HeaderLen]byte
	g.sendWith(buffer[:], d, h, payload)
}

// sendWith is send with a header buffer of the caller's.
func (g *Group) sendWith(buffer []byte, d Direction, h header, payload []byte) {
	g.address(&h)
	if s := g.seals.out[d]; s != nil {
		h.put(buffer)
		s.seal(buffer, payload)
	} else {
		h.encode(buffer, payload)
	}
	if err := g.t.Send(d, buffer, payload); err != nil {
		rank := g.id.Successor()
		if d == Backward {
			rank = g.id.Predecessor()
		}
		g.down(rank, err)
	}
}

// room is where the payload of the next data frame may be put, nil: nowhere.
func (g *Group) room(n int) []byte {
	if g.filler == nil || n == 0 {
		return nil
	}
	return g.filler.Room(n)
}

// sendFilled is sendWith for a data frame whose payload fill puts into its room; fill
// continues the checksum.
func (g *Group) sendFilled(h header, fill func(sum uint32) uint32) {
	g.address(&h)
	b := g.out.header[:]
	h.put(b)
	sealSum(b, fill(sumOver(0, b[:fieldsLen])))
	g.filled()
}

// sendCopied is sendFilled of a frame with a seal.
func (g *Group) sendCopied(h header, room, payload []byte) {
	g.address(&h)
	b := g.out.header[:]
	h.put(b)
	copy(room, payload)
	g.seals.out[Forward].seal(b, room)
	g.filled()
}

// filled sends what is in the room, with the header of the link.
func (g *Group) filled() {
	b := g.out.header[:]
	if err := g.filler.SendFilled(b); err != nil {
		g.down(g.id.Successor(), err)
	}
}

// address says whose frame it is.
func (g *Group) address(h *header) {
	h.sender, h.world, h.fence = uint16(g.id.Rank), uint16(g.id.World), g.fence
}

// next takes the next segment out of the inbox.
func (g *Group) next() (segment, error) {
	select {
	case s := <-g.in.inbox:
		return s, nil
	default:
	}
	g.in.alive.waiting.Store(g.now())
	defer g.in.alive.waiting.Store(0)
	select {
	case s := <-g.in.inbox:
		return s, nil
	case <-g.ended:
		return segment{}, g.err()
	case <-g.in.gone:
	}
	select {
	case s := <-g.in.inbox: // what was sent before leaving counts
		return s, nil
	default:
		g.failPeer(g.id.Predecessor(), fmt.Errorf("%w: it left the round", ErrAborted))
		return segment{}, g.err()
	}
}

// consume counts a segment as done with and grants credit, every quarter of
// the window.
func (g *Group) consume() {
	consumed := g.in.consumed.Add(1)
	if consumed-g.in.granted >= uint64(max(1, g.cfg.Window/4)) {
		g.grant()
	}
}

// grant gives credit for all that is consumed.
func (g *Group) grant() {
	consumed := g.in.consumed.Load()
	if consumed == g.in.granted {
		return
	}
	g.in.granted = consumed
	if g.borrows != nil {
		g.borrows.grant(consumed)
		return
	}
	g.sendWith(g.in.header[:], Backward, header{kind: kindGrant, seq: consumed}, nil)
}

// credit waits until another segment may be sent.
func (g *Group) credit() error { return g.outstanding(g.cfg.Window) }

// outstanding waits until fewer than so many segments are sent and not consumed.
func (g *Group) outstanding(limit int) error {
	for g.out.sent.Load()-g.out.granted.Load() >= uint64(limit) {
		g.out.alive.waiting.Store(g.now())
		select {
		case <-g.out.more:
		case <-g.out.gone:
			if g.out.sent.Load()-g.out.granted.Load() >= uint64(limit) {
				g.failPeer(g.id.Successor(), fmt.Errorf("%w: it left the round", ErrAborted))
			}
		case <-g.ended:
			g.out.alive.waiting.Store(0)
			return g.err()
		}
		g.out.alive.waiting.Store(0)
	}
	return g.err()
}

// wake leaves a signal in a channel of capacity 1.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// raise sets v to n unless it is larger already.
func raise(v *atomic.Uint64, n uint64) {
	for old := v.Load(); n > old; old = v.Load() {
		if v.CompareAndSwap(old, n) {
			return
		}
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
