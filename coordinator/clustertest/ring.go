package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"mochi/allreduce"
	"mochi/allreduce/codec"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/replica"
)

// seat is a place in a ring.
type seat struct {
	round int64
	rank  int
	id    string // of the replica that sits there
}

// end is one rank's transport in one round (an allreduce.Transport), over the
// links between the hosts.
type end struct {
	w        *World
	p        *Process
	id       allreduce.Identity
	round    protocol.Round
	out      [2]*stream // by direction: to the successor, to the predecessor
	peers    [2]seat
	hosts    [2]string
	handlers allreduce.Handlers

	handling sync.RWMutex // held for reading while a handler runs
	stopped  bool
	started  bool // under the world's lock
	isGone   bool
}

// dialTimeout is how long a predecessor is dialled.
const dialTimeout = 5 * time.Second

// openRing connects a replica to its neighbours.
func (p *Process) openRing(ctx context.Context, round protocol.Round, rank int, job config.Job) (replica.Ring, error) {
	if err := p.pass("ring", ""); err != nil {
		return nil, err
	}
	cfg := allreduce.DefaultConfig()
	cfg.Wire = codec.Wire(job.Wire)
	t := allreduce.Solo("sim", round.Round)
	if len(round.Members) > 1 {
		e := p.w.end(p, round, rank)
		if err := e.dial(ctx); err != nil {
			return nil, err
		}
		t = e
	}
	g, err := allreduce.NewGroup(t, cfg)
	if err != nil {
		return nil, err
	}
	if err := g.Connect(ctx); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return adder{g, p}, nil
}

// adder is a ring in which a member may add wrongly, or keep a sum badly.
type adder struct {
	*allreduce.Group
	p *Process
}

func (a adder) AllReduceSumChecked(ctx context.Context, tag allreduce.Tag, data []float32, check *allreduce.Check) error {
	a.p.w.mu.Lock()
	wrong := a.p.engine.Adds
	a.p.w.mu.Unlock()
	if wrong && len(data) > 0 {
		flip(data)
	}
	if err := a.Group.AllReduceSumChecked(ctx, tag, data, check); err != nil {
		return err
	}
	a.p.w.mu.Lock()
	defer a.p.w.mu.Unlock()
	if a.p.engine.Slips && a.World() > 1 && len(data) > 0 {
		a.p.engine.Slips = false
		flip(data)
	}
	return nil
}

// flip changes a bit.
func flip(data []float32) { data[0] = math.Float32frombits(math.Float32bits(data[0]) ^ 1<<12) }

func (w *World) end(p *Process, round protocol.Round, rank int) *end {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := &end{w: w, p: p, round: round,
		id: allreduce.Identity{Job: "sim", Round: round.Round, Rank: rank, World: len(round.Members)}}
	for d, peer := range []int{e.id.Successor(), e.id.Predecessor()} {
		e.peers[d] = seat{round.Round, peer, round.Members[peer].ID}
		e.hosts[d] = round.Members[peer].ID
		if other := w.byID(round.Members[peer].ID); other != nil {
			e.hosts[d] = other.name
		}
		e.out[d] = w.stream(fmt.Sprintf("%s ring to %s %d", p.name, e.hosts[d], d), p.name, w.byID(round.Members[peer].ID), e.hosts[d])
	}
	return e
}

// byID is the process of a replica, nil when there is none. The lock is held.
func (w *World) byID(id string) *Process {
	for _, p := range w.processes {
		if p.id == id {
			return p
		}
	}
	return nil
}

// dial reaches the predecessor's server, or fails after a while.
func (e *end) dial(ctx context.Context) error {
	w := e.w
	host := e.hosts[allreduce.Backward]
	for limit := w.now() + dialTimeout; ; {
		w.mu.Lock()
		there := w.links.both(e.p.name, host) && w.alive(e.peers[allreduce.Backward].id)
		pause := w.draw(e.p.name+" dials", 100*time.Millisecond, 200*time.Millisecond)
		if there {
			pause = w.draw(e.p.name+" dials", 2*latencyLow, 2*latencyHigh)
		}
		w.mu.Unlock()
		if err := e.p.wait(ctx, pause); err != nil {
			return err
		}
		if there {
			return nil
		}
		if w.now() > limit {
			return &allreduce.PeerError{
				Rank: e.id.Predecessor(), Round: e.id.Round, Origin: e.id.Rank, Op: "connect to " + host,
				Err: fmt.Errorf("%w: no way to %s", allreduce.ErrDown, host),
			}
		}
	}
}

// alive says whether a replica runs. The lock is held.
func (w *World) alive(id string) bool {
	p := w.byID(id)
	return p != nil && !p.dead
}

func (e *end) Identity() allreduce.Identity { return e.id }

func (e *end) Start(h allreduce.Handlers) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	e.handlers, e.started = h, true
	e.w.ends[seat{e.id.Round, e.id.Rank, e.p.id}] = e
	return nil
}

// Send copies a frame and puts it on its way.
func (e *end) Send(d allreduce.Direction, header, payload []byte) error {
	if err := e.p.gate(); err != nil {
		return err
	}
	w := e.w
	w.mu.Lock()
	defer w.mu.Unlock()
	head, body := append([]byte(nil), header...), append([]byte(nil), payload...)
	e.out[d].put(func() { e.arrive(d, head, body) })
	return nil
}

// arrive hands a frame to the neighbour, if it listens.
func (e *end) arrive(d allreduce.Direction, header, payload []byte) {
	w := e.w
	w.mu.Lock()
	peer := w.ends[e.peers[d]]
	w.mu.Unlock()
	if peer == nil {
		return
	}
	peer.handling.RLock()
	defer peer.handling.RUnlock()
	switch {
	case peer.stopped:
	case d == allreduce.Forward:
		peer.handlers.FromPredecessor(header, payload)
	default:
		peer.handlers.FromSuccessor(header, payload)
	}
}

// gone tells the successor that this end's server is gone. The lock is held.
func (e *end) gone() {
	if e.isGone {
		return
	}
	e.isGone = true
	for _, s := range e.out {
		s.close()
	}
	delete(e.w.ends, seat{e.id.Round, e.id.Rank, e.p.id})
	successor := e.w.ends[e.peers[allreduce.Forward]]
	if successor == nil || !e.w.links.open(e.p.name, successor.p.name) {
		return
	}
	after(e.w.draw(e.p.name+" gone", latencyLow, endNotice), func() {
		if successor.p.gate() != nil {
			return
		}
		successor.handling.RLock()
		defer successor.handling.RUnlock()
		if !successor.stopped {
			successor.handlers.Down(e.id.Rank, errors.New("connection reset by peer"))
		}
	})
}

// Close ends delivery.
func (e *end) Close() error {
	e.w.mu.Lock()
	for _, s := range e.out {
		s.finish() // what was sent before still arrives
	}
	key := seat{e.id.Round, e.id.Rank, e.p.id}
	if e.w.ends[key] == e {
		delete(e.w.ends, key)
	}
	e.w.mu.Unlock()
	e.handling.Lock()
	e.stopped = true
	e.handling.Unlock()
	return nil
}
