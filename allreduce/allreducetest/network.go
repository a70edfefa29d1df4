// Package allreducetest is what a Transport and a Group are tested with: an
// in-memory network that misbehaves by a seeded plan, and one conformance
// suite for every Transport.
//
// The network copies every frame once and keeps what was sent until it is
// delivered; it holds no clock, so that it also runs inside a testing/synctest
// bubble, where deadlines cost no time.
package allreducetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"mochi/allreduce"
)

// Plan says how a network misbehaves. The zero value is a perfect network. The
// same plan and the same sequence of frames on a link give the same faults.
type Plan struct {
	Seed      uint64
	Drop      float64       // probability that a frame is lost
	Duplicate float64       // that it arrives twice
	Corrupt   float64       // that one bit of it flips
	Delay     time.Duration // each frame is held up for a random time up to this; order is kept
	Cuts      []Cut
	Lend      uint64 // bit r: rank r and its successor are of one process, segments are lent
}

// Everywhere is the Lend of a network within one process.
const Everywhere = ^uint64(0)

// Cut isolates one rank, as if its replica had died: what it sends and what is
// sent to it is lost.
type Cut struct {
	Rank     int
	After    int  // frames that it still sends, in both directions together
	Reported bool // its neighbours' transports notice, as with a closed connection
}

// Network is a ring of in-memory transports.
type Network struct {
	plan  Plan
	ends  []*end
	loans []allreduce.Loans // by the rank that lends
}

// NewNetwork makes the transports of one round.
func NewNetwork(job string, round int64, world int, plan Plan) *Network {
	n := &Network{plan: plan, loans: make([]allreduce.Loans, world)}
	for rank := range world {
		e := &end{
			network: n,
			id:      allreduce.Identity{Job: job, Round: round, Rank: rank, World: world},
			closed:  make(chan struct{}),
			lost:    make(chan int, 2),
		}
		for i := range e.boxes {
			e.boxes[i] = &mailbox{
				wake: make(chan struct{}, 1),
				rng:  rand.New(rand.NewPCG(plan.Seed, uint64(rank)<<1|uint64(i))),
			}
		}
		n.ends = append(n.ends, e)
	}
	return n
}

// Transports are the ends by rank.
func (n *Network) Transports() []allreduce.Transport {
	ts := make([]allreduce.Transport, len(n.ends))
	for i, e := range n.ends {
		ts[i] = e
	}
	return ts
}

// frame is one message under way.
type frame struct {
	header, payload []byte
	delay           time.Duration
}

// mailbox is the receiving side of one link.
type mailbox struct {
	mu     sync.Mutex
	rng    *rand.Rand
	frames []frame
	open   bool
	wake   chan struct{}
}

// end is one rank's transport. boxes[Forward] holds what comes from the
// predecessor, boxes[Backward] what comes from the successor.
type end struct {
	network *Network
	id      allreduce.Identity
	boxes   [2]*mailbox
	closed  chan struct{}
	lost    chan int // neighbours whose loss is to be reported
	once    sync.Once
	pumps   sync.WaitGroup

	mu   sync.Mutex
	sent int
	cut  bool
}

func (e *end) Identity() allreduce.Identity { return e.id }

// Lends implements allreduce.Lender.
func (e *end) Lends() *allreduce.Loans { return e.loans(e.id.Rank) }

// Borrows implements allreduce.Lender.
func (e *end) Borrows() *allreduce.Loans { return e.loans(e.id.Predecessor()) }

func (e *end) loans(rank int) *allreduce.Loans {
	if e.network.plan.Lend>>rank&1 == 0 {
		return nil
	}
	return &e.network.loans[rank]
}

func (e *end) Start(h allreduce.Handlers) error {
	for d, deliver := range []func(header, payload []byte){h.FromPredecessor, h.FromSuccessor} {
		box := e.boxes[d]
		box.mu.Lock()
		box.open = true
		box.mu.Unlock()
		e.pumps.Go(func() { e.pump(box, deliver) })
	}
	e.pumps.Go(func() { e.report(h.Down) })
	return nil
}

// pump delivers one link's frames in order.
func (e *end) pump(box *mailbox, deliver func(header, payload []byte)) {
	for {
		box.mu.Lock()
		frames := box.frames
		box.frames = nil
		box.mu.Unlock()
		for _, f := range frames {
			if f.delay > 0 {
				timer := time.NewTimer(f.delay)
				select {
				case <-timer.C:
				case <-e.closed:
					timer.Stop()
				}
			}
			select {
			case <-e.closed:
				return
			default:
				deliver(f.header, f.payload)
			}
		}
		if len(frames) > 0 {
			continue
		}
		select {
		case <-box.wake:
		case <-e.closed:
			return
		}
	}
}

func (e *end) Send(d allreduce.Direction, header, payload []byte) error {
	peer := e.network.ends[e.id.Successor()]
	if d == allreduce.Backward {
		peer = e.network.ends[e.id.Predecessor()]
	}
	select {
	case <-e.closed:
		return fmt.Errorf("transport of rank %d is closed", e.id.Rank)
	default:
	}
	if e.countAndCut() || peer.isCut() {
		return nil // lost without a word
	}
	peer.boxes[d].put(e.network.plan, header, payload)
	return nil
}

// countAndCut counts a frame and says whether the rank is isolated by now.
func (e *end) countAndCut() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sent++
	if e.cut {
		return true
	}
	for _, c := range e.network.plan.Cuts {
		if c.Rank != e.id.Rank || e.sent <= c.After {
			continue
		}
		e.cut = true
		if c.Reported {
			for _, neighbour := range []int{e.id.Successor(), e.id.Predecessor()} {
				select {
				case e.network.ends[neighbour].lost <- e.id.Rank:
				default: // a ring of two: reported already
				}
			}
		}
	}
	return e.cut
}

func (e *end) isCut() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cut
}

func (e *end) report(down func(rank int, err error)) {
	for {
		select {
		case rank := <-e.lost:
			down(rank, fmt.Errorf("connection reset, as planned"))
		case <-e.closed:
			return
		}
	}
}

// put stores a copy of a frame, with the plan's faults.
func (b *mailbox) put(plan Plan, header, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	copies := 1
	if b.rng.Float64() < plan.Drop {
		copies = 0
	}
	if b.rng.Float64() < plan.Duplicate {
		copies *= 2
	}
	corrupt := b.rng.Float64() < plan.Corrupt
	bit := b.rng.IntN(8 * (len(header) + len(payload)))
	var delay time.Duration
	if plan.Delay > 0 {
		delay = time.Duration(b.rng.Int64N(int64(plan.Delay)))
	}
	if !b.open {
		return // nobody listens yet, as with a subscription that is not there
	}
	for range copies {
		f := frame{header: append([]byte(nil), header...), payload: append([]byte(nil), payload...), delay: delay}
		if corrupt {
			flip(f, bit)
		}
		b.frames = append(b.frames, f)
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func flip(f frame, bit int) {
	target := f.header
	if bit >= 8*len(target) {
		bit -= 8 * len(target)
		target = f.payload
	}
	target[bit/8] ^= 1 << (bit % 8)
}

func (e *end) Close() error {
	e.once.Do(func() {
		close(e.closed)
		for _, box := range e.boxes {
			box.mu.Lock()
			box.open = false
			box.mu.Unlock()
		}
	})
	e.pumps.Wait()
	return nil
}
