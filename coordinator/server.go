package coordinator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
)

// ErrJobFailed is wrapped by the error of Run when the job failed; the
// message says why.
var ErrJobFailed = errors.New("the job failed")

// Config is what a coordinator is given.
type Config struct {
	Job          string
	Instance     string // this run; default random
	Binary       string // build identity; replicas must have the same
	Training     config.Job
	ConfigDigest string                      // of Training, compared with the replicas'
	Data         protocol.Data               // Kind "": what the log remembers, or the first replica has
	LR           func(epoch float64) float64 // learning rate at a point of the run: epochs from 0 on, with the part of the current one

	Bus         Bus
	Log         Log
	Lease       Lease // nil: this process alone can be the coordinator (its own embedded server)
	Checkpoints Checkpoints
	Observer    Observer

	Hints    <-chan Hint // from the gossip; nil: none
	Gossip   []string    // gossip members for replicas to join
	Limits   Limits      // zero fields take their default
	Recorded int64       // the last step the observer has on record: later ones are told again, as Recovered
	Logger   *slog.Logger
}

// tickEvery is how often time passes for the core.
const tickEvery = 100 * time.Millisecond

// stoodStill is how late a tick must be for the coordinator to conclude that
// it was not running: well above what a busy machine's scheduler does, below
// the shortest silence that counts (Limits.SilentHinted).
const stoodStill = 500 * time.Millisecond

// Times of the server itself.
const (
	logTimeout = 3 * time.Second // one attempt at the log
	logTries   = 3
	linger     = time.Second // for replicas to hear Stop before the server goes
)

// Server runs a job: one goroutine that owns a Core and carries out its
// plans.
type Server struct {
	cfg     Config
	log     *slog.Logger
	core    *Core
	started time.Time
	status  atomic.Pointer[protocol.Status]
	inner   chan Event  // from the bus's goroutines
	stop    chan string // capacity 1
	last    string      // last reason logged
}

// New makes a coordinator; it does nothing until Run.
func New(cfg Config) *Server {
	if cfg.Instance == "" {
		cfg.Instance = rand.Text()[:8]
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger.With("job", cfg.Job, "coordinator", cfg.Instance),
		inner: make(chan Event, 16), stop: make(chan string, 1),
	}
	s.status.Store(&protocol.Status{Job: cfg.Job, Phase: "waiting", Reason: "starting"})
	return s
}

// Stop asks for an orderly stop: the step in hand is finished, a checkpoint
// stored, the replicas sent home; then Run returns nil. It returns at once
// and may be called again.
func (s *Server) Stop(reason string) {
	select {
	case s.stop <- reason:
	default:
	}
}

// Status is how the job stands. It may be called from anywhere.
func (s *Server) Status() protocol.Status { return *s.status.Load() }

// Run coordinates the job until it is over: nil when it is done or was
// stopped in order, ErrJobFailed, ErrFenced when another coordinator has
// taken over, or ctx's error, with the step in hand dropped.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()

	deposed := make(chan error, 1)
	if l := s.cfg.Lease; l != nil {
		if err := l.Acquire(ctx); err != nil {
			return err
		}
		owned.Go(func() { renew(ctx, l, deposed) })
		defer func() {
			cancel()
			owned.Wait() // nobody renews what is released
			release, done := context.WithTimeout(context.WithoutCancel(ctx), l.TTL())
			defer done()
			if err := l.Release(release); err != nil {
				s.log.Warn("lease not released; a successor waits until it expires", "err", err)
			}
		}()
	}
	if err := s.load(ctx); err != nil {
		return err
	}
	if err := s.cfg.Bus.Serve(s.Status, func(_ context.Context, from string, step int64, r io.Reader) error {
		return s.save(ctx, from, step, r)
	}, s.cfg.Checkpoints.Open); err != nil {
		return err
	}
	return s.loop(ctx, deposed)
}

// load makes the core from what survives, and tells the observer of commits
// that an earlier coordinator did not record.
func (s *Server) load(ctx context.Context) error {
	s.started = time.Now()
	head, found, err := s.cfg.Log.Last(ctx)
	if err != nil {
		return err
	}
	round, err := s.cfg.Log.Round(ctx)
	if err != nil {
		return err
	}
	data, err := s.cfg.Log.Data(ctx)
	if err != nil {
		return err
	}
	if d := s.cfg.Data; d.Kind != "" {
		if data.Kind != "" && data != d {
			return fmt.Errorf("the job was started on other data (%+v, now %+v): use the same data, or a new state directory", data, d)
		}
		data = d
	}
	cfg := CoreConfig{
		Instance: s.cfg.Instance, Binary: s.cfg.Binary, Training: s.cfg.Training, ConfigDigest: s.cfg.ConfigDigest,
		Data: data, Round: round, LR: s.cfg.LR, Gossip: s.cfg.Gossip, Limits: s.cfg.Limits,
	}
	checkpoint, exists, err := s.cfg.Checkpoints.Latest()
	if err != nil {
		return fmt.Errorf("find the latest checkpoint: %w", err)
	}
	if exists {
		cfg.Checkpoint = &checkpoint
	}
	if found {
		cfg.Head = &head
		if cfg.Tail, err = s.cfg.Log.After(ctx, checkpoint.Step); err != nil {
			return err
		}
		missed, err := s.cfg.Log.After(ctx, s.cfg.Recorded)
		if err != nil {
			return err
		}
		for _, commit := range missed {
			record := newRecord(commit)
			record.Recovered = true
			s.cfg.Observer.Committed(record)
		}
	}
	s.core = NewCore(cfg)
	s.log.Info("coordinator", "step", s.core.at, "checkpoint", checkpoint.Name, "round", round)
	return nil
}

// loop feeds the core until it finishes.
func (s *Server) loop(ctx context.Context, deposed <-chan error) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	ticked := time.Now()
	hints := s.cfg.Hints
	finished := s.handle(ctx, Tick{})
	for finished == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-deposed:
			return err
		case m, open := <-s.cfg.Bus.Messages():
			if !open {
				if ctx.Err() != nil { // both at once
					return ctx.Err()
				}
				return errors.New("the bus was closed")
			}
			finished = s.handle(ctx, Received{m})
		case e := <-s.inner:
			finished = s.handle(ctx, e)
		case id := <-s.cfg.Bus.Lost():
			// What it said before it went counts.
			if finished = s.drain(ctx); finished == nil {
				finished = s.handle(ctx, Lost{ID: id, Why: "connection closed"})
			}
		case h, open := <-hints:
			if !open {
				hints = nil
				continue
			}
			finished = s.handle(ctx, h)
		case <-tick.C:
			// Silence is measured on what has arrived, not on what was read.
			stood := time.Since(ticked) - tickEvery
			if stood < stoodStill {
				stood = 0
			}
			ticked = time.Now()
			if finished = s.drain(ctx); finished == nil {
				finished = s.handle(ctx, Tick{Stood: stood})
			}
		case reason := <-s.stop:
			finished = s.handle(ctx, StopRequested{reason})
		}
	}
	return s.conclude(ctx, *finished)
}

// drain handles what has arrived already.
func (s *Server) drain(ctx context.Context) *Finish {
	for {
		select {
		case e := <-s.inner:
			if f := s.handle(ctx, e); f != nil {
				return f
			}
		case m, open := <-s.cfg.Bus.Messages():
			if !open {
				return nil
			}
			if f := s.handle(ctx, Received{m}); f != nil {
				return f
			}
		default:
			return nil
		}
	}
}

// handle gives one event to the core and carries out its plan.
func (s *Server) handle(ctx context.Context, e Event) *Finish {
	var finished *Finish
	for events := []Event{e}; len(events) > 0 && finished == nil; events = events[1:] {
		plan := s.core.Step(time.Now(), events[0])
		for _, a := range plan.Actions {
			switch a := a.(type) {
			case Send:
				if err := s.cfg.Bus.Send(a.To, a.Message); err != nil {
					s.log.Warn("message not sent", "to", a.To, "err", err)
				}
			case Append:
				e := s.append(ctx, a.Commit)
				if ctx.Err() != nil {
					return nil // dying: whether it was logged, the next coordinator will see
				}
				events = append(events, e)
			case Record:
				s.cfg.Observer.Committed(a.CommitRecord)
			case Report:
				s.report(a)
			case Remember:
				s.persist(ctx, "data", func(ctx context.Context) error { return s.cfg.Log.SaveData(ctx, a.Data) })
			case Reserve:
				s.persist(ctx, "round", func(ctx context.Context) error { return s.cfg.Log.SaveRound(ctx, a.Round) })
			case Finish:
				finished = &a
			}
		}
		if plan.Reason != s.last {
			s.last = plan.Reason
			s.log.Debug("state", "reason", plan.Reason)
		}
	}
	status := s.core.Status()
	status.Job, status.StartedAt = s.cfg.Job, s.started.Format(time.RFC3339)
	s.status.Store(&status)
	return finished
}

// append writes a commit to the log. An attempt that timed out may have
// succeeded; trying again finds out.
func (s *Server) append(ctx context.Context, c protocol.Commit) Event {
	err := s.try(ctx, func(ctx context.Context) error { return s.cfg.Log.Append(ctx, c) })
	if err != nil {
		return AppendFailed{Step: c.Step, Fenced: errors.Is(err, ErrFenced), Error: err.Error()}
	}
	return Appended{c.Step}
}

func (s *Server) try(ctx context.Context, do func(context.Context) error) (err error) {
	for range logTries {
		attempt, cancel := context.WithTimeout(ctx, logTimeout)
		err = do(attempt)
		cancel()
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrFenced) {
			return err
		}
		s.log.Warn("the log does not answer", "err", err)
	}
	return err
}

// persist keeps what a restart should know. A log that cannot take it cannot
// take the next commit either, which ends the job, so here it is only
// reported.
func (s *Server) persist(ctx context.Context, what string, do func(context.Context) error) {
	if err := s.try(ctx, do); err != nil {
		s.log.Warn("not remembered for a restart", "what", what, "err", err)
	}
}

func (s *Server) report(r Report) {
	level := slog.LevelInfo
	switch r.Name {
	case "replica lost", "replica refused", "step failed", "digest mismatch", "replay mismatch",
		"rolled back", "shards lost", "shard mismatch", "checkpoint failed", "replica ahead of the log":
		level = slog.LevelWarn
	case "failed":
		level = slog.LevelError
	}
	var attrs []any
	for k, v := range r.Fields {
		attrs = append(attrs, k, v)
	}
	s.log.Log(context.Background(), level, r.Name, attrs...)
	s.cfg.Observer.Event(r.Name, r.Fields)
}

// save stores a replica's checkpoint; it runs on a goroutine of the bus. The
// core hears of it before the replica does.
func (s *Server) save(ctx context.Context, from string, step int64, r io.Reader) error {
	name, err := s.cfg.Checkpoints.Save(ctx, step, r)
	var e Event = Stored{Name: name, Step: step}
	if err != nil {
		e = StoreFailed{Step: step, Error: err.Error()}
	}
	select {
	case s.inner <- e:
	case <-ctx.Done():
		if err == nil {
			err = ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("store the checkpoint of step %d from %s: %w", step, from, err)
	}
	return nil
}

// conclude lets the replicas hear the end before the bus is closed.
func (s *Server) conclude(ctx context.Context, f Finish) error {
	if f.Fenced {
		return fmt.Errorf("%w: %s", ErrFenced, f.Reason)
	}
	if err := s.cfg.Bus.Flush(ctx); err != nil {
		s.log.Warn("replicas may not have heard the end", "err", err)
	}
	timeout := time.NewTimer(linger)
	defer timeout.Stop()
	for waiting := s.core.ids(); len(waiting) > 0; {
		select {
		case <-ctx.Done():
			clear(waiting)
		case <-timeout.C:
			clear(waiting)
		case id := <-s.cfg.Bus.Lost():
			delete(waiting, id)
		case m, open := <-s.cfg.Bus.Messages(): // their last heartbeats
			if !open {
				clear(waiting)
			}
			// Of one that was given up, or that comes only now: without a word
			// it would wait for a coordinator for ever.
			if m.From != "" && !waiting[m.From] {
				waiting[m.From] = true
				stop := protocol.Message{Version: protocol.Version, Stop: &protocol.Stop{Reason: f.Reason, Failed: f.Failed}}
				if err := s.cfg.Bus.Send(m.From, stop); err != nil {
					s.log.Warn("message not sent", "to", m.From, "err", err)
				}
			}
		}
	}
	if f.Failed {
		return fmt.Errorf("%w: %s", ErrJobFailed, f.Reason)
	}
	return nil
}

// ids are the admitted replicas.
func (c *Core) ids() map[string]bool {
	ids := map[string]bool{}
	for id := range c.replicas {
		ids[id] = true
	}
	return ids
}

// renewTries is how many renewals in a row may go unanswered, a third of the
// lease's life each: about 10 s at 2 s.
const renewTries = 15

// renew keeps the lease until ctx ends; it reports when another holds it, or
// when the message server no longer answers. An expired lease alone is no
// reason to stop (Lease.Renew takes it again when it is free), and neither is
// the time gone by: a suspended process has done nothing in it.
func renew(ctx context.Context, l Lease, deposed chan<- error) {
	tick := time.NewTicker(l.TTL() / 3)
	defer tick.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		attempt, cancel := context.WithTimeout(ctx, l.TTL()/3)
		err := l.Renew(attempt)
		cancel()
		switch {
		case err == nil:
			failures = 0
			continue
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrFenced):
			deposed <- err
			return
		}
		if failures++; failures == renewTries {
			deposed <- fmt.Errorf("the message server does not answer (%d times in a row): %w", failures, err)
			return
		}
	}
}
