package replica

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/audit"
	"mochi/replica/criterion"
)

// errSuperseded ends a round because a newer message is in the inbox.
var errSuperseded = errors.New("superseded by a newer message")

// party is a round that this replica takes part in: who is in it, the ring
// between them, and the loss against the queue as they hold it.
type party struct {
	*membership
	*progress
	ring *watchedRing
	loss criterion.Criterion

	// Of the step in hand.
	audited audit.Deal // what is computed twice
	waves   int        // of its losses
}

// wave names what this member computes in a wave, for messages.
func (p *party) wave(model *encoders, wave int) string {
	if wave < len(p.own()) {
		return model.unit(p.own()[wave])
	}
	return "the shards held here"
}

// round takes part in one round: state, ring, then step after step until the
// coordinator ends it. What goes wrong in it is reported and no error.
func (r *Replica) round(ctx context.Context, round protocol.Round) error {
	if r.last = round; round.Last != nil {
		r.past.add(*round.Last)
	}
	m := newMembership(round, r.cfg.ID, r.session.job)
	if m.rank < 0 {
		r.progress.phase(round.Round, round.Step, protocol.PhaseWaiting)
		return nil
	}
	r.log.Info("round", "round", round.Round, "step", round.Step, "rank", m.rank, "world", len(round.Members), "groups", runs(m.self().Groups), "reason", round.Reason)

	err := r.takePart(ctx, m)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil, errors.Is(err, errSuperseded):
		return nil // a leaver too: the coordinator says when it may go
	}
	return r.report(ctx, m, err)
}

// takePart runs a round of which this replica is a member. The attempt ends when
// a message makes it pointless.
func (r *Replica) takePart(ctx context.Context, m *membership) error {
	attempt, end := r.inbox.attempt(ctx)
	defer end()
	s := r.session
	if err := m.splitUnits(s.model.atOnce); err != nil {
		return &dealError{err}
	}
	p := &party{membership: m, progress: &r.progress}
	defer func() {
		if p.ring != nil {
			p.ring.Close()
		}
	}()
	if err := r.prepare(attempt, p); err != nil {
		return superseded(attempt, err)
	}
	if m.Save {
		return superseded(attempt, r.save(ctx, attempt, p))
	}
	first := make([]int, len(m.own())) // samples of this member's units
	for i, group := range m.own() {
		first[i] = group * s.job.BNGroup
	}
	besides := func(step int64) []int { return s.besides(p, step) }
	if err := s.input.Start(s.at.step, s.at.cursor, first, besides); err != nil {
		return err
	}
	if len(m.Trial) > 0 {
		return superseded(attempt, r.trial(ctx, attempt, p))
	}
	for {
		commit, err := r.step(ctx, attempt, p)
		if err != nil {
			if errors.As(err, new(*stateError)) {
				return err
			}
			return superseded(attempt, err)
		}
		if commit.EndRound || commit.Final {
			return nil
		}
		if attempt.Err() != nil {
			return errSuperseded
		}
	}
}

// superseded is err, or errSuperseded when the attempt was to end anyway.
func superseded(attempt context.Context, err error) error {
	if attempt.Err() != nil {
		return errSuperseded
	}
	return err
}

// prepare brings the state to where the round starts, opens the ring and makes
// what the steps of the round need.
func (r *Replica) prepare(ctx context.Context, p *party) error {
	s, m := r.session, p.membership
	p.phase(m.Round.Round, m.Step, protocol.PhasePreparing)
	if m.self().State != protocol.FromSelf {
		s.at.ready = false // until it has all of it
	}
	s.queue.seat(m)
	switch m.self().State {
	case protocol.FromSeed:
		s.initialise()
	case protocol.FromCheckpoint:
		blob, err := r.cfg.Link.Download(ctx, m.Checkpoint)
		if err != nil {
			return &givenError{fmt.Errorf("download checkpoint %s from the coordinator: %w", m.Checkpoint, err)}
		}
		p.did()
		if err := s.load(blob); err != nil {
			return &givenError{fmt.Errorf("restore checkpoint %s: %w", m.Checkpoint, err)}
		}
		p.did()
	case protocol.FromSelf:
		s.vote = nil // one that was not followed by its commit is void in a new round
	}
	ring, err := r.cfg.Ring(ctx, m.Round, m.rank, s.job)
	if err != nil {
		return &ringError{err}
	}
	p.ring = p.progress.ring(ring)
	p.did()
	if err := s.queue.transfer(ctx, m, p.ring); err != nil {
		return err
	}
	if m.Donor >= 0 {
		if err := s.recover(ctx, p); err != nil {
			return err
		}
	}
	if !s.at.ready || s.at.step != m.Step-1 || s.at.cursor != m.Cursor {
		have := fmt.Sprintf("step %d", s.at.step)
		if !s.at.ready {
			have = "no state"
		}
		s.at.ready = false
		return &stateError{fmt.Sprintf("round %d starts after step %d, this replica has %s", m.Round.Round, m.Step-1, have)}
	}
	if v, lacks := s.queue.lacking(); lacks {
		return &damagedError{v}
	}
	p.loss = s.objective.criterion(p, 0)
	return nil
}

// report tells the coordinator why a round failed here. What to do about it is
// the coordinator's decision: a new round, without this replica if it keeps
// failing, or the end of the job. What is this replica's own trouble ends it,
// with that error: the others go on.
func (r *Replica) report(ctx context.Context, m *membership, err error) error {
	f := failure(m, err)
	f.Step = r.session.at.step + 1
	f.NoState = !r.session.at.ready && !f.Leaves
	r.log.Warn("step not finished", "round", f.Round, "step", f.Step, "err", err)
	r.progress.phase(f.Round, f.Step, protocol.PhaseWaiting)
	if serr := r.send(ctx, protocol.Message{Failed: f}); serr != nil || !f.Leaves {
		return serr
	}
	return fmt.Errorf("this replica leaves the job, which goes on without it: %w", err)
}

// failure says whose fault an error is: that of the training, of another
// member, of what the replica was given, or, if nothing else is known, its own.
func failure(m *membership, err error) *protocol.Failed {
	f := &protocol.Failed{Round: m.Round.Round, Error: err.Error()}
	var (
		peer    *allreduce.PeerError
		damaged *damagedError

		noNumber *notFiniteError
	)
	switch {
	case errors.As(err, &noNumber):
		f.Fatal, f.NotFinite, f.Recounts, f.Keys = true, true, noNumber.own, noNumber.keys
	case errors.As(err, new(*dealError)), errors.As(err, new(*divergedError)):
		f.Fatal = true
	case errors.As(err, &peer):
		f.Follows = peer.Origin != m.rank || errors.Is(err, allreduce.ErrAborted)
		alive := errors.Is(err, allreduce.ErrAborted) // it gave up for a reason of its own, and reports that itself
		if !alive && peer.Rank >= 0 && peer.Rank < len(m.Members) {
			f.Suspect = m.Members[peer.Rank].ID
		}
	case errors.As(err, &damaged):
		f.Damaged = []int{damaged.shard}
	case errors.As(err, new(*ringError)), errors.As(err, new(*stateError)), errors.As(err, new(*givenError)):
	default:
		f.Leaves = true
	}
	return f
}

// dealError is a deal of groups that does not fit what the engines compute.
type dealError struct{ error }

// givenError is a state that could not be had from where the round said: the way
// to it, or the state itself, may be better next time, or elsewhere.
type givenError struct{ error }

func (e *givenError) Unwrap() error { return e.error }

// ringError is a ring that could not be opened, whatever the reason: members
// that die meanwhile close connections at any point of it. A new round, with
// those who are left, may fare better.
type ringError struct{ error }

func (e *ringError) Unwrap() error { return e.error }

// stateError is a state that does not fit the round: the replica needs one
// from a peer, which a new round brings.
type stateError struct{ what string }

func (e *stateError) Error() string { return e.what }

// runs is ascending numbers for people, runs of them by their ends: "0-3 7".
func runs(numbers []int) string {
	var out []string
	for i := 0; i < len(numbers); {
		end := i
		for end+1 < len(numbers) && numbers[end+1] == numbers[end]+1 {
			end++
		}
		run := strconv.Itoa(numbers[i])
		if end > i {
			run += "-" + strconv.Itoa(numbers[end])
		}
		out = append(out, run)
		i = end + 1
	}
	return strings.Join(out, " ")
}
