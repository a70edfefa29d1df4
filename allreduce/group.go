package allreduce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"mochi/allreduce/codec"
)

// Group runs collectives over one rank's transport in one round.
//
// Collectives run one at a time, and every rank must call the same ones in the
// same order. The first error ends the Group: the vector in hand is then
// undefined (never reduce into the only copy), every later call returns that
// error, and the other ranks are told. Cancelling a collective's context is
// such an error, and unblocks at once. A new round needs a new Group.
type Group struct {
	t        Transport
	filler   Filler   // t, nil if it is none
	recycler Recycler // likewise
	id       Identity
	cfg      Config
	fence    uint64
	seals    seals
	epoch    time.Time // what times of the links count from

	turn      chan struct{} // held by the collective that is running
	connected bool          // under turn
	current   activity

	once    sync.Once     // the first error counts
	ended   chan struct{} // closed by it; the three fields below are set before
	cause   error         // that error
	notice  abortNotice   // what the other ranks are told of it
	orderly bool          // it is ErrClosed, between collectives: nobody need be told
	closing chan struct{} // closed by Close
	shut    sync.Once

	in          incoming
	out         outgoing
	lends       *Loans // to the successor; nil: frames carry segments
	borrows     *Loans // from the predecessor
	stats       counters
	housekeeper sync.WaitGroup

	scratch []byte    // one packed segment, for the sender whose turn it is
	arrived []float32 // what Barrier gathers: an element a rank, of no meaning
}

// activity is what the Group is doing, for error messages.
type activity struct {
	mu  sync.Mutex
	op  op
	tag Tag
}

func (a *activity) set(o op, tag Tag) {
	a.mu.Lock()
	a.op, a.tag = o, tag
	a.mu.Unlock()
}

func (a *activity) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.op == 0 {
		return "connect"
	}
	return describe(a.op, a.tag)
}

func describe(o op, tag Tag) string {
	return fmt.Sprintf("%v step %d bucket %d", o, tag.Step, tag.Bucket)
}

// NewGroup starts a Group on t and takes it over: Close closes it, also when
// NewGroup fails. It sends heartbeats from the start; the first collective, or
// Connect, makes sure that the links work.
func NewGroup(t Transport, cfg Config) (*Group, error) {
	id := t.Identity()
	err := cfg.Validate()
	if id.World < 1 || id.World > 1<<16-1 || id.Rank < 0 || id.Rank >= id.World {
		err = errors.Join(err, fmt.Errorf("allreduce: rank %d of a world of %d", id.Rank, id.World))
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	g := &Group{
		t: t, id: id, cfg: cfg, fence: fenceOf(id), epoch: time.Now(),
		turn:  make(chan struct{}, 1),
		ended: make(chan struct{}), closing: make(chan struct{}),
		in:  newIncoming(cfg.Window),
		out: newOutgoing(),
	}
	if id.World == 1 {
		return g, nil
	}
	if g.seals, err = newSeals(t, id); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if l, ok := t.(Lender); ok && codec.InPlace() {
		g.lends, g.borrows = l.Lends(), l.Borrows()
		g.attach()
	}
	g.filler, _ = t.(Filler)
	g.recycler, _ = t.(Recycler)
	g.scratch = make([]byte, cfg.Segment)
	g.arrived = make([]float32, id.World)
	handlers := Handlers{FromPredecessor: g.fromPredecessor, FromSuccessor: g.fromSuccessor, Down: g.down}
	if err := t.Start(handlers); err != nil {
		g.detach()
		return nil, errors.Join(fmt.Errorf("allreduce: start rank %d of round %d: %w", id.Rank, id.Round, err), t.Close())
	}
	g.housekeeper.Go(g.housekeeping)
	return g, nil
}

// attach makes the Group hear of its loans, from either side.
func (g *Group) attach() {
	if g.lends != nil {
		g.lends.lender(g.grantedBySuccessor)
	}
	if g.borrows != nil {
		g.borrows.borrower(g.lentByPredecessor)
	}
}

func (g *Group) detach() {
	if g.lends != nil {
		g.lends.lender(nil)
	}
	if g.borrows != nil {
		g.borrows.borrower(nil)
	}
}

// Identity is the rank's place in the round.
func (g *Group) Identity() Identity { return g.id }

// Rank is this rank, in [0, World).
func (g *Group) Rank() int { return g.id.Rank }

// World is the number of ranks.
func (g *Group) World() int { return g.id.World }

// probeEvery is how often an unanswered probe is repeated.
const probeEvery = 20 * time.Millisecond

// Connect returns once a probe has gone over both links, so that nothing sent
// from then on meets a subscription that is not there yet. It waits for
// Config.ConnectTimeout at most; a PeerError names the neighbour that is
// missing. The first collective does it when the caller has not.
func (g *Group) Connect(ctx context.Context) error {
	release, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer release()
	return g.connect()
}

// connect runs under turn.
func (g *Group) connect() error {
	if g.connected || g.id.World == 1 {
		return nil
	}
	deadline := time.NewTimer(g.cfg.ConnectTimeout)
	defer deadline.Stop()
	again := time.NewTicker(probeEvery)
	defer again.Stop()
	acked, probed := g.out.acked, g.in.probed
	for acked != nil || probed != nil {
		if acked != nil {
			g.send(Forward, header{kind: kindProbe, seq: g.out.sent.Load()}, nil)
		}
		select {
		case <-acked:
			acked = nil
		case <-probed:
			probed = nil
		case <-again.C:
		case <-deadline.C:
			missing := g.id.Predecessor()
			if acked != nil {
				missing = g.id.Successor()
			}
			g.failPeer(missing, fmt.Errorf("%w: no probe came through within %v", ErrTimeout, g.cfg.ConnectTimeout))
		case <-g.ended:
			return g.cause
		}
	}
	g.connected = true
	return nil
}

// begin waits for the Group's turn and ties it to ctx until release is called.
func (g *Group) begin(ctx context.Context) (release func(), err error) {
	if err := g.err(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		g.giveUp(ctx)
		return nil, g.cause
	}
	stop := context.AfterFunc(ctx, func() { g.giveUp(ctx) })
	select {
	case g.turn <- struct{}{}:
		return func() { <-g.turn; stop() }, nil
	case <-g.ended:
		stop()
		return nil, g.cause
	}
}

// giveUp ends the Group because the caller's context ended.
func (g *Group) giveUp(ctx context.Context) {
	err := fmt.Errorf("%v: rank %d in round %d: %w", &g.current, g.id.Rank, g.id.Round, context.Cause(ctx))
	g.fail(err, abortNotice{suspect: g.id.Rank, origin: g.id.Rank, text: "its step was cancelled"})
}

// failPeer ends the Group because of a peer. cause wraps one of the Err values.
func (g *Group) failPeer(rank int, cause error) {
	notice := abortNotice{suspect: rank, origin: g.id.Rank, text: cause.Error()}
	for i, c := range abortCauses {
		if errors.Is(cause, c) {
			notice.cause = uint8(i)
		}
	}
	g.fail(&PeerError{Rank: rank, Origin: g.id.Rank, Round: g.id.Round, Op: g.current.String(), Err: cause}, notice)
}

// fail ends the Group; the first caller's error counts.
func (g *Group) fail(err error, notice abortNotice) {
	g.once.Do(func() {
		g.cause, g.notice = err, notice
		close(g.ended)
		if t, ok := g.t.(Hurrier); ok {
			t.Hurry()
		}
	})
}

// err is what ended the Group, nil while it runs.
func (g *Group) err() error {
	select {
	case <-g.ended:
		return g.cause
	default:
		return nil
	}
}

// Leave waits until the successor has received everything this rank sent, or
// ctx ends, and closes the Group: what to do before a process that others may
// still be reading from goes away.
func (g *Group) Leave(ctx context.Context) error {
	release, err := g.begin(ctx)
	if err != nil {
		return errors.Join(err, g.Close())
	}
	err = g.drain(ctx)
	release()
	return errors.Join(err, g.Close())
}

func (g *Group) drain(ctx context.Context) error {
	if g.id.World == 1 {
		return nil
	}
	again := time.NewTicker(probeEvery)
	defer again.Stop()
	for !g.out.delivered() {
		g.send(Forward, header{kind: kindProbe, seq: g.out.sent.Load()}, nil)
		select {
		case <-g.out.more:
		case <-again.C:
		case <-g.out.gone:
			return nil // it left, so it had all it wanted
		case <-g.ended:
			return fmt.Errorf("leave round %d: %w", g.id.Round, g.cause)
		}
	}
	return nil
}

// Close ends the Group and its transport and waits for its goroutines. It does
// not wait for peers (see Leave); a collective that is still running fails
// with ErrClosed.
func (g *Group) Close() error {
	select {
	case g.turn <- struct{}{}:
		g.once.Do(func() {
			g.cause, g.orderly = ErrClosed, true
			close(g.ended)
		})
	default:
		g.fail(ErrClosed, abortNotice{suspect: g.id.Rank, origin: g.id.Rank, text: "it was closed"})
		g.turn <- struct{}{} // until the collective has let go of its vector
	}
	<-g.turn
	g.shut.Do(func() { close(g.closing) })
	g.housekeeper.Wait()
	g.detach()
	return g.t.Close()
}
