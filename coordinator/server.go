package coordinator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"mochi/coordinator/jury"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/round"
)

// ErrJobFailed is wrapped by the error of Run when the job failed; the
// message says why.
var ErrJobFailed = errors.New("the job failed")

// ErrLogShort is wrapped by the error of Run when the log lacks steps that were
// committed, and nobody brings them (Config.Rebuild).
var ErrLogShort = errors.New("the commit log is not whole")

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

	Hints    <-chan Hint          // from the gossip; nil: none
	Gossip   []string             // gossip members for replicas to join
	Limits   Limits               // zero fields take their default
	CPU      func() time.Duration // processor time of the coordinator so far; nil: not known
	Recorded int64                // the last step the observer has on record: later ones are told again, as Recovered
	Key      []byte               // by which commits are sealed (CoreConfig.Key)
	Rebuild  bool                 // go on although the log lacks steps that are on record, and lead whoever is here
	Afresh   bool                 // take no commits of an earlier run from replicas
	Logger   *slog.Logger

	// Copied returns when most of the coordinators hold the checkpoint of a step, or a
	// later one: from then on it counts as stored, and the job may end. An error says who
	// lacks it. nil: this one alone.
	Copied func(ctx context.Context, step int64) error

	// Coordinators are the addresses, HOST:PORT, of all that may lead this job, for
	// replicas to find the next one; nil: this one alone.
	Coordinators []string
}

// Server runs a job: one goroutine that owns a Core and carries out its
// plans.
type Server struct {
	cfg     Config
	log     *slog.Logger
	core    *Core
	started time.Time
	bounds  protocol.Bounds // of messages
	status  atomic.Pointer[protocol.Status]
	inner   chan Input  // from the bus's goroutines
	arrived chan Stored // checkpoints that are here, and not yet at most of the coordinators
	stop    chan string // capacity 1
	last    string      // last reason logged
	changed bool        // what the status tells, since it was made
	unsent  []Lost      // those to whom a message could not be sent, until the core knows

	cpu       time.Duration // at the last record
	covered   int64         // the last step of which a checkpoint was stored
	term      uint64        // of this run as the leader
	keys      *keys
	writer    *writer
	votes     *votes
	asked     *asked
	reserving int       // numbers of rounds that are not durable yet
	held      []Send    // until they are
	slow      bool      // people were told that the log is waited for
	slowSince time.Time //
	full      bool      // because the disk is full
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
		bounds: protocol.BoundsOf(cfg.Training),
		inner:  make(chan Input, 16), arrived: make(chan Stored, 16), stop: make(chan string, 1), keys: newKeys(cfg.Training), writer: newWriter(), votes: newVotes(), asked: &asked{},
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
	owned.Go(func() { s.writer.run(ctx) })
	if s.cfg.Copied != nil {
		owned.Go(func() { s.copies(ctx) })
	}
	if err := s.cfg.Bus.Serve(s.Status, s.asked.wants, func(_ context.Context, from string, step int64, r io.Reader) error {
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
	if err := persist(ctx, func(ctx context.Context) (err error) {
		s.term, err = s.cfg.Log.Lead(ctx, 0)
		return err
	}, func(err error) {
		s.log.Warn("waiting for the log to begin a term", "err", err)
	}); err != nil {
		return fmt.Errorf("begin a term: %w", err)
	}
	head, found, err := s.cfg.Log.Last(ctx)
	if err != nil {
		return err
	}
	lastRound, err := s.cfg.Log.Round(ctx)
	if err != nil {
		return err
	}
	data, err := s.cfg.Log.Data(ctx)
	if err != nil {
		return err
	}
	if d := s.cfg.Data; d.Kind != "" {
		d.Numerics, d.JPEG = data.Numerics, data.JPEG // members agree on these among themselves
		if other := data.OtherShards(d); other != "" {
			return fmt.Errorf("the job was started on other data: the content of %s has changed since: use the same data, or a new state directory", other)
		}
		if data.Kind != "" && !data.Same(d) {
			return fmt.Errorf("the job was started on other data (%+v, now %+v): use the same data, or a new state directory", data, d)
		}
		if d.Shards == "" { // files of the same names and lengths, of which no more is known
			d.Shards = data.Shards
		}
		data = d
	}
	audits, err := s.cfg.Log.Note(ctx, NoteAudits)
	if err != nil {
		return err
	}
	if _, err := jury.Remember(audits); err != nil {
		s.log.Warn("who was left out may come back", "err", err)
		audits = ""
	}
	cfg := CoreConfig{
		Instance: s.cfg.Instance, Binary: s.cfg.Binary, Training: s.cfg.Training, ConfigDigest: s.cfg.ConfigDigest,
		Data: data, Round: lastRound, Term: s.term, LR: s.cfg.LR, Gossip: s.cfg.Gossip, Coordinators: s.cfg.Coordinators, Limits: s.cfg.Limits,
		Audits: audits, Recorded: s.cfg.Recorded, Rebuild: s.cfg.Rebuild, Key: s.cfg.Key,
	}
	if cfg.Since, err = s.since(ctx); err != nil {
		return err
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
		if cfg.Tail, err = s.cfg.Log.After(ctx, max(checkpoint.Step-1, 0)); err != nil {
			return err
		}
		missed, err := s.cfg.Log.After(ctx, s.cfg.Recorded)
		if err != nil {
			return err
		}
		for _, commit := range missed {
			record := round.RecordOf(commit)
			record.Recovered = true
			s.cfg.Observer.Committed(record)
		}
	}
	s.core = NewCore(cfg)
	s.votes.inherit(s.core.history.Head())
	s.votes.note(s.core, time.Since(s.started))
	s.log.Info("coordinator", "step", s.core.history.At(), "checkpoint", checkpoint.Name, "round", lastRound)
	return nil
}

// NoteSince is the note of a Log that has the first term of this run of the job, decimal;
// "": that is not known. What replicas keep of earlier terms is another run's.
const NoteSince = "since"

// since is the term from which on commits that replicas keep are this run's.
func (s *Server) since(ctx context.Context) (uint64, error) {
	if s.cfg.Afresh { // what there is was committed by others
		return math.MaxUint64, s.cfg.Log.SaveNote(ctx, NoteSince, strconv.FormatUint(s.term, 10))
	}
	text, err := s.cfg.Log.Note(ctx, NoteSince)
	if err != nil || text == "" {
		return 0, err
	}
	since, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the log's note of the first term: %w", err)
	}
	return since, nil
}

// save stores a replica's checkpoint; it runs on a goroutine of the bus. The
// core hears of it before the replica does.
func (s *Server) save(ctx context.Context, from string, step int64, r io.Reader) error {
	if err := s.asked.begins(from, step); err != nil {
		return err
	}
	upload := &watched{Reader: r, arriving: func() {
		select {
		case s.inner <- Arriving{From: from, Step: step}:
		default: // busy; it is said again
		}
	}}
	name, err := s.cfg.Checkpoints.Save(ctx, step, upload, func(ctx context.Context) (Voted, error) {
		return s.votes.after(ctx, step)
	})
	var in Input = Stored{Name: name, Step: step}
	if err != nil && errors.Is(upload.err, protocol.ErrSuperseded) {
		return upload.err // the one that took its place will be heard of
	}
	switch {
	case err != nil:
		in = StoreFailed{Step: step, Full: errors.Is(err, ErrDiskFull), Error: err.Error()}
	case s.cfg.Copied != nil:
		in = Arriving{Step: step}
	}
	if told := s.tell(ctx, in); err == nil {
		err = told
	}
	if err != nil {
		return fmt.Errorf("store the checkpoint of step %d from %s: %w", step, from, err)
	}
	if s.cfg.Copied != nil { // whoever sent it need not wait for the others
		select {
		case s.arrived <- Stored{Name: name, Step: step}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// tell gives the core an input.
func (s *Server) tell(ctx context.Context, in Input) error {
	select {
	case s.inner <- in:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// arrivingEvery is how often it is said that an upload gets on.
const arrivingEvery = time.Second

// watched is the reader of an upload: it says that something arrives, and
// remembers its error.
type watched struct {
	io.Reader
	arriving func()
	said     time.Time
	err      error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 && time.Since(w.said) >= arrivingEvery {
		w.said = time.Now()
		w.arriving()
	}
	if err != nil {
		w.err = err
	}
	return n, err
}
