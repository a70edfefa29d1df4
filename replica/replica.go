// Package replica is the training loop of one replica: round → step → vote →
// commit.
//
// A replica knows the coordinator (through a Link), the ring of its round
// (an allreduce.Group), the method (model.MoCo over an engine.State), its
// input (data.Loader) and its shards of the negative queue. It decides nothing
// about membership: it runs the step it was dealt, holds the reduced
// gradients, votes READY, and changes its state only when a COMMIT arrives.
// So a step either happened on every replica or on none, and whatever
// interrupts it can be tried again from the same state.
//
// Everything a step computes is a function of (parameters, sample indices,
// seed), and gradients are summed exactly (see allreduce.Grid), so with fp32
// on the wire the state after step t has the same bits for any number of
// replicas.
//
// One goroutine owns the state (Run); a second receives messages and can only
// cancel the step in hand; a third sends heartbeats.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
	"mochi/model/engine"
	"mochi/replica/data"
)

// Link is the way to the coordinator.
type Link interface {
	// Send delivers a message to the coordinator, in order. It may buffer
	// while the connection is being restored.
	Send(ctx context.Context, m protocol.Message) error
	// Messages are those of the coordinator to this replica, in order. The
	// channel is closed when the link is.
	Messages() <-chan protocol.Message
	// Upload stores a checkpoint (safetensors) at the coordinator.
	Upload(ctx context.Context, step int64, state []byte) error
	// Download reads a checkpoint by the name given in a Round.
	Download(ctx context.Context, name string) ([]byte, error)
}

// Ring is the collectives of one round (an allreduce.Group).
type Ring interface {
	AllReduceSum(ctx context.Context, tag allreduce.Tag, data []float32) error
	AllReduceMax(ctx context.Context, tag allreduce.Tag, data []float32) error
	AllGather(ctx context.Context, tag allreduce.Tag, data []float32, counts []int) error
	Broadcast(ctx context.Context, tag allreduce.Tag, root int, data []byte) error
	Close() error
}

// OpenRing connects this replica to its neighbours in a round. The ring is
// closed by the replica when the round ends.
type OpenRing func(ctx context.Context, round protocol.Round, rank int, wire string) (Ring, error)

// OpenEngine starts this replica's engine in the precision of the job, which
// the coordinator decides. The replica closes it when it ends.
type OpenEngine func(precision engine.Precision) (engine.Engine, error)

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

	Joined func(protocol.Welcome) // optional: told once, after the first Welcome
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

	inbox inbox
	leave atomic.Bool

	// Owned by Run's goroutine.
	instance string   // of the coordinator
	session  *session // nil before the first Welcome

	// Shown in heartbeats.
	status struct {
		sync.Mutex
		protocol.Heartbeat
	}
}

// New makes a replica; it does nothing until Run.
func New(cfg Config) *Replica {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Replica{cfg: cfg, log: cfg.Log.With("replica", cfg.Name)}
	r.inbox.wake = make(chan struct{}, 1)
	return r
}

// ErrNoWelcome is wrapped by the error of Run when the coordinator did not
// answer within Config.Wait.
var ErrNoWelcome = errors.New("the coordinator does not answer")

// farewell is how long a leaver outside a step waits for the coordinator to
// let it go: it may be asked for its state first. It ends when no message has
// come for so long.
const farewell = 5 * time.Second

// Leave asks for an orderly leave: the step in hand is finished, then Run
// returns nil. It returns at once.
func (r *Replica) Leave(reason string) {
	if r.leave.CompareAndSwap(false, true) {
		r.sayLeaving(context.Background(), reason)
		r.inbox.poke()
	}
}

func (r *Replica) sayLeaving(ctx context.Context, reason string) error {
	return r.send(ctx, protocol.Message{Leaving: &protocol.Leaving{Reason: reason}})
}

// Run takes part in the job until it is over (nil), this replica leaves
// (nil), it is refused or the job fails (ErrRefused, ErrJobFailed), or ctx is
// cancelled (its error; the step in hand is dropped).
func (r *Replica) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()
	owned.Go(func() { r.receive(ctx) })
	owned.Go(func() { r.heartbeats(ctx) })
	defer func() {
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
			return r.flush(ctx)
		}
		if err != nil {
			return err
		}
		done, err := r.handle(ctx, m)
		if done || err != nil {
			return err
		}
	}
}

var errNoFarewell = errors.New("nobody lets this replica go")

// next is the next message outside a step.
func (r *Replica) next(ctx context.Context) (protocol.Message, error) {
	wait, why := time.Duration(0), error(nil)
	switch {
	case r.leave.Load():
		wait, why = farewell, errNoFarewell
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

// handle acts on one message outside a step. A Round runs until something
// else has to be handled.
func (r *Replica) handle(ctx context.Context, m protocol.Message) (done bool, err error) {
	switch {
	case m.Welcome != nil:
		return false, r.welcome(*m.Welcome)
	case m.Refused != nil:
		f := m.Refused
		return true, fmt.Errorf("%w: %s differs: the job has %q, this replica %q: %s", ErrRefused, f.Field, f.Want, f.Got, f.Hint)
	case m.Stop != nil:
		if m.Stop.Failed {
			return true, fmt.Errorf("%w: %s", ErrJobFailed, m.Stop.Reason)
		}
		r.log.Info("the job is over", "reason", m.Stop.Reason)
		return true, r.flush(ctx)
	case m.Again != nil:
		if r.instance != m.Again.Instance {
			r.log.Warn("the coordinator does not know this replica; introducing it again")
		}
		return false, r.hello(ctx)
	case m.Snapshot != nil && r.session != nil:
		if r.session.ready && r.session.step == m.Snapshot.Step && r.session.queue.Complete() {
			return false, r.uploadCheckpoint(ctx, nil)
		}
	case m.Commit != nil && r.session != nil:
		return false, r.lateCommit(ctx, *m.Commit)
	case m.Round != nil && r.session != nil:
		return false, r.round(ctx, *m.Round)
	}
	return false, nil
}

// hello introduces this replica with all that the coordinator needs to place it.
func (r *Replica) hello(ctx context.Context) error {
	info := r.cfg.Info
	h := protocol.Hello{
		ID: r.cfg.ID, Name: r.cfg.Name, Binary: r.cfg.Binary,
		Data: r.cfg.Data.Info, Engine: info.Name, Numerics: info.Numerics, Threads: info.Threads,
		Device: info.Device, Versions: info.Versions,
		BulkURL: r.cfg.BulkURL, Gossip: r.cfg.Gossip,
	}
	if r.session != nil {
		h.Config = r.session.cfg.Digest()
		h.State = r.session.position()
		if p := r.session.pending; p != nil {
			h.Pending = &protocol.Pending{Round: p.round, Step: p.step, Digest: p.digest}
		}
	}
	if err := r.send(ctx, protocol.Message{Hello: &h}); err != nil || !r.leave.Load() {
		return err
	}
	return r.sayLeaving(ctx, "leaving") // to a coordinator that may not have heard it
}

// welcome builds the session on the first Welcome; later ones (a restarted
// coordinator) only change the instance.
func (r *Replica) welcome(w protocol.Welcome) error {
	r.setInstance(w.Instance)
	if r.session != nil {
		return nil
	}
	s, err := newSession(r.cfg, w.Config)
	if err != nil {
		return err
	}
	r.session = s
	if r.cfg.Joined != nil {
		r.cfg.Joined(w)
	}
	return nil
}

// flush waits for a checkpoint that is still being uploaded.
func (r *Replica) flush(ctx context.Context) error {
	if r.session == nil {
		return nil
	}
	return r.session.waitUpload(ctx)
}

func (r *Replica) send(ctx context.Context, m protocol.Message) error {
	m.Version, m.From = protocol.Version, r.cfg.ID
	if err := r.cfg.Link.Send(ctx, m); err != nil {
		return fmt.Errorf("send to the coordinator: %w", err)
	}
	return nil
}

// receive moves messages into the inbox until the link closes.
func (r *Replica) receive(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m, open := <-r.cfg.Link.Messages():
			if !open {
				r.inbox.close(errors.New("the link to the coordinator was closed"))
				return
			}
			r.inbox.put(m)
		}
	}
}

func (r *Replica) heartbeats(ctx context.Context) {
	tick := time.NewTicker(protocol.HeartbeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.status.Lock()
			h := r.status.Heartbeat
			r.status.Unlock()
			if err := r.send(ctx, protocol.Message{Heartbeat: &h}); err != nil && ctx.Err() == nil {
				r.log.Debug("heartbeat not sent", "err", err)
			}
		}
	}
}

func (r *Replica) setInstance(id string) {
	r.instance = id
	r.status.Lock()
	r.status.Instance = id
	r.status.Unlock()
}

func (r *Replica) setPhase(round, step int64, phase string) {
	r.status.Lock()
	r.status.Round, r.status.Step, r.status.Phase = round, step, phase
	r.status.Unlock()
}
