package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/network"
	"mochi/replica/data"
	"mochi/replica/input"
)

// Config is everything a replica is given; the rest comes from the
// coordinator.
type Config struct {
	ID      string      // unique to this process
	Name    string      // for people
	Binary  string      // build identity, compared with the coordinator's
	BulkURL string      // where the ring successor connects; "" = the coordinator's server
	Gossip  string      // memberlist address, "" = none
	Engine  OpenEngine  // called once the job is known
	Info    engine.Info // of the engine that Engine will open
	Data    *data.Set   // what to train on
	Workers int         // loader goroutines at most; default GOMAXPROCS
	Link    Link
	Ring    OpenRing
	Log     *slog.Logger // default: discard

	// Wait is how long to wait for the first Welcome; 0 = for ever. A
	// coordinator that this replica once heard from is waited for in any case:
	// it may be started again.
	Wait time.Duration

	// Orphaned is how long a replica that once heard from the coordinator does
	// without a connection to it; 0 = for ever. One that was suspended meanwhile,
	// and so has slept through the end, waits only wakeful.
	Orphaned time.Duration

	Joined func(protocol.Welcome) // optional: told once, after the first Welcome

	// Network makes the encoder of a job; nil: config.Job.Network.
	Network func(config.Job) (*network.Network, error)

	// Images makes the source of a job's images; nil: a data.Loader over Data.
	Images func(config.Job) input.Source
}

// ErrRefused is wrapped by the error of Run when the coordinator did not
// admit this replica; its message names the differing field.
var ErrRefused = errors.New("the coordinator refused this replica")

// ErrJobFailed is wrapped by the error of Run when the coordinator ended the
// job as failed.
var ErrJobFailed = errors.New("the job failed")

// Replica is one member of a job. Make it with New, run it with Run.
type Replica struct {
	cfg Config
	log *slog.Logger

	inbox   inbox
	uploads uploads
	leave   atomic.Bool
	built   atomic.Bool   // it has, or had, a session, and perhaps a state
	grace   atomic.Int64  // of the leave, in ms; 0: as long as it takes
	leaving chan struct{} // closed by the leave
	heard   atomic.Int64  // messages of the coordinator
	term    atomic.Uint64 // the highest of a leader that it has heard of
	obeyed  atomic.Pointer[obeyed]

	// Owned by Run's goroutine.
	instance string   // of the coordinator
	session  *session // nil before the first Welcome
	past     past
	last     protocol.Round // the last one that it heard of

	progress progress // shown in heartbeats
}

// obeyed is whose Welcome came last. It is noted when that comes, with its term, and not
// when it is handled: a Hello in between would say the new term and the old leader, which
// is to have obeyed another leader of that term.
type obeyed struct {
	leader string // instance
	term   uint64
}

// New makes a replica; it does nothing until Run.
func New(cfg Config) *Replica {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Replica{cfg: cfg, log: cfg.Log.With("replica", cfg.Name)}
	r.inbox.wake, r.leaving = make(chan struct{}, 1), make(chan struct{})
	r.uploads.link, r.uploads.log = cfg.Link, r.log
	return r
}

// ErrNoWelcome is wrapped by the error of Run when the coordinator did not
// answer within Config.Wait.
var ErrNoWelcome = errors.New("the coordinator does not answer")

// farewell is how long a leaver outside a round waits for the coordinator to
// let it go: it may be asked for its state first. It ends when no message has
// come for so long.
const farewell = 5 * time.Second

// longFarewell is the same while there is a connection to the coordinator: a
// checkpoint may be on its way.
const longFarewell = time.Minute

// Leave asks for an orderly leave: the step in hand is finished, or given up when
// it would take longer than grace (0: it may take as long as it does), what only
// this replica holds is handed over, then Run returns nil, at the latest when
// grace is over. Leave returns at once.
func (r *Replica) Leave(reason string, grace time.Duration) {
	if r.leave.CompareAndSwap(false, true) {
		r.grace.Store(grace.Milliseconds())
		close(r.leaving)
		if err := r.sayLeaving(context.Background(), reason); err != nil {
			r.log.Warn("the coordinator could not be told of the leave; it will be with the next greeting", "error", err)
		}
		r.inbox.poke()
	}
}

func (r *Replica) sayLeaving(ctx context.Context, reason string) error {
	return r.send(ctx, protocol.Message{Leaving: &protocol.Leaving{Reason: reason, GraceMS: r.grace.Load()}})
}

// Run takes part in the job until it is over (nil), this replica leaves
// (nil), it is refused or the job fails (ErrRefused, ErrJobFailed), it is alone
// for too long (ErrOrphaned), it has trouble of its own (that error), or ctx is
// cancelled (its error; the step in hand is dropped).
func (r *Replica) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	err := r.run(ctx, cancel)
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, ErrOrphaned):
		return cause
	case errors.Is(cause, errGraceOver):
		r.log.Warn("leaving without a word from the coordinator: the grace is over")
		return nil
	case errors.Is(cause, errNobody):
		r.log.Warn("leaving without a word from the coordinator: it is not reached")
		return nil
	}
	return err
}

func (r *Replica) run(ctx context.Context, cancel context.CancelCauseFunc) error {
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel(nil)
	owned.Go(func() { r.receive(ctx) })
	owned.Go(func() { r.heartbeats(ctx) })
	owned.Go(func() { r.endGrace(ctx, cancel) })
	if link, tells := r.cfg.Link.(Presence); tells && r.cfg.Orphaned > 0 {
		owned.Go(func() { r.watchAlone(ctx, link, cancel) })
	}
	defer func() {
		r.uploads.running.Wait()
		if r.session != nil {
			r.session.close()
		}
	}()

	if err := r.hello(ctx); err != nil {
		return err
	}
	for {
		m, err := r.next(ctx)
		if errors.Is(err, errNoFarewell) {
			r.log.Warn("leaving without a word from the coordinator", "waited", farewell)
			return r.uploads.wait(ctx)
		}
		if err != nil {
			return err
		}
		done, err := r.handle(ctx, m)
		if done || err != nil {
			return err
		}
		if r.session != nil {
			r.progress.idle()
		}
	}
}

var errNoFarewell = errors.New("nobody lets this replica go")

// next is the next message outside a round.
func (r *Replica) next(ctx context.Context) (protocol.Message, error) {
	wait, why := time.Duration(0), error(nil)
	switch {
	case r.leave.Load():
		wait, why = farewell, errNoFarewell
		if link, tells := r.cfg.Link.(Presence); tells && link.Connected() {
			wait = longFarewell
		}
	case r.session == nil && r.cfg.Wait > 0:
		wait, why = r.cfg.Wait, fmt.Errorf("%w within %v: is the job over?", ErrNoWelcome, r.cfg.Wait)
	}
	if wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, wait, why)
		defer cancel()
	}
	m, err := r.inbox.next(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return m, err
}

// handle acts on one message outside a round, as the table of states says. A
// Round runs until something else has to be handled.
func (r *Replica) handle(ctx context.Context, m protocol.Message) (done bool, err error) {
	switch r.state().on(m) {
	case join:
		return false, r.welcome(ctx, *m.Welcome)
	case adopt:
		r.setInstance(m.Welcome.Instance)
	case fail:
		f := m.Refused
		return true, fmt.Errorf("%w: %s differs: the job has %q, this replica %q: %s", ErrRefused, f.Field, f.Want, f.Got, f.Hint)
	case end:
		if m.Stop.Failed {
			return true, fmt.Errorf("%w: %s", ErrJobFailed, m.Stop.Reason)
		}
		r.log.Info("the job is over", "reason", m.Stop.Reason)
		return true, r.uploads.wait(ctx)
	case introduce:
		if r.instance != m.Again.Instance {
			r.log.Warn("the coordinator does not know this replica; introducing it again")
		}
		return false, r.hello(ctx)
	case upload:
		if s := r.session; s.at.ready && s.at.step == m.Snapshot.Step && s.queue.Complete() {
			return false, r.saveAlone(ctx)
		}
	case apply:
		return false, r.lateCommit(ctx, *m.Commit)
	case takePart:
		return false, r.round(ctx, *m.Round)
	case recount:
		return false, r.recalled(ctx, *m.Recall)
	}
	return false, nil
}

// lateCommit applies a commit outside a round: one that a restarted coordinator
// found in its log and that this replica voted for.
func (r *Replica) lateCommit(ctx context.Context, c protocol.Commit) error {
	if c.Step != r.session.vote.step {
		return nil
	}
	err := r.finish(ctx, c, newPhases())
	if errors.As(err, new(*stateError)) {
		return r.hello(ctx)
	}
	return err
}

// hello introduces this replica with all that the coordinator needs to place it.
func (r *Replica) hello(ctx context.Context) error {
	info, with := r.cfg.Info, r.obeyed.Load()
	if with == nil {
		with = &obeyed{}
	}
	h := protocol.Hello{
		ID: r.cfg.ID, Name: r.cfg.Name, Binary: r.cfg.Binary,
		Data: r.cfg.Data.Info, Engine: info.Name, Numerics: info.Numerics, Threads: info.Threads,
		Device: info.Device, Versions: info.Versions,
		BulkURL: r.cfg.BulkURL, Gossip: r.cfg.Gossip,
		Leader: with.leader, Head: r.past.head(), Stored: r.past.saved, Round: r.last.Round, Uploading: r.uploads.step(),
	}
	for _, m := range r.last.Members {
		h.Members = append(h.Members, m.ID)
	}
	if r.session != nil {
		h.Config = r.session.job.Digest()
		h.State = r.session.position()
		if v := r.session.vote; v != nil {
			h.Pending = &protocol.Pending{Round: v.round, Step: v.step, Digest: v.digest}
		}
	}
	if err := r.send(ctx, protocol.Message{Term: with.term, Hello: &h}); err != nil || !r.leave.Load() {
		return err
	}
	return r.sayLeaving(ctx, "leaving") // to a coordinator that may not have heard it
}

// welcome builds the session, on the first Welcome, which may take minutes (an
// engine that compiles), and says then that this replica is ready: until then it
// is no member of a round, and nobody waits for it.
func (r *Replica) welcome(ctx context.Context, w protocol.Welcome) error {
	r.setInstance(w.Instance)
	r.progress.phase(0, 0, protocol.PhaseBuilding)
	s, err := newSession(r.cfg, w.Config)
	if err != nil {
		f := protocol.Failed{Leaves: true, Error: err.Error()}
		if serr := r.send(ctx, protocol.Message{Failed: &f}); serr != nil {
			r.log.Warn("the coordinator could not be told", "error", serr)
		}
		return err
	}
	r.session = s
	r.built.Store(true)
	if r.cfg.Joined != nil {
		r.cfg.Joined(w)
	}
	return r.hello(ctx)
}

func (r *Replica) send(ctx context.Context, m protocol.Message) error {
	m.Version, m.From = protocol.Version, r.cfg.ID
	if m.Hello == nil { // which says its own
		m.Term = r.term.Load()
	}
	if err := r.cfg.Link.Send(ctx, m); err != nil {
		return fmt.Errorf("send to the coordinator: %w", err)
	}
	return nil
}

// receive moves messages into the inbox until the link closes. Another coordinator
// is greeted without waiting until it asks for that.
func (r *Replica) receive(ctx context.Context) {
	var moved <-chan struct{}
	if link, tells := r.cfg.Link.(Moves); tells {
		moved = link.Moved()
	}
	bounds := protocol.AnyJob() // of messages, until it is known which job it is
	for {
		select {
		case <-ctx.Done():
			return
		case <-moved:
			r.inbox.put(protocol.Message{Again: &protocol.Again{}})
		case m, open := <-r.cfg.Link.Messages():
			if !open {
				r.inbox.close(errors.New("the link to the coordinator was closed"))
				return
			}
			if err := m.Validate(bounds); err != nil {
				r.log.Warn("message of the coordinator dropped", "err", err)
				continue
			}
			if !r.obeys(m) {
				continue
			}
			if m.Welcome != nil {
				r.obeyed.Store(&obeyed{m.Welcome.Instance, m.Term})
				bounds = protocol.BoundsOf(m.Welcome.Config)
			}
			r.heard.Add(1)
			r.inbox.put(m)
		}
	}
}

// obeys says whether a message is of a leader whose term is not over. A deposed leader,
// or a coordinator on an old copy of its folder, may go on for a while; what it says
// would contradict its successor. Only the term counts: the commit of an older round
// may be sent again at any time. That a coordinator asks who this is, is answered
// whatever its term: it learns from the answer that there was a later one.
func (r *Replica) obeys(m protocol.Message) bool {
	if m.Again != nil {
		return true
	}
	if term := r.term.Load(); m.Term < term {
		r.log.Debug("a message of an earlier leader is dropped", "term", m.Term, "heard", term)
		return false
	}
	r.term.Store(m.Term)
	return true
}

// recalled sends commits that the coordinator has lost.
func (r *Replica) recalled(ctx context.Context, q protocol.Recall) error {
	return r.send(ctx, protocol.Message{Recalled: r.past.recall(q.From)})
}

// heartbeats shows life while there is anybody to see it: a heartbeat that waits
// for a connection says nothing when it arrives, and many of them are a burden.
func (r *Replica) heartbeats(ctx context.Context) {
	link, tells := r.cfg.Link.(Presence)
	tick := time.NewTicker(protocol.HeartbeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if tells && !link.Connected() {
				continue
			}
			h := r.progress.now()
			if err := r.send(ctx, protocol.Message{Heartbeat: &h}); err != nil && ctx.Err() == nil {
				r.log.Debug("heartbeat not sent", "err", err)
			}
		}
	}
}

func (r *Replica) setInstance(id string) {
	r.instance = id
	r.progress.believe(id)
}
