package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
	"mochi/replica/data/sampler"
)

// prefetch is how many steps the loader works ahead.
const prefetch = 2

// errSuperseded ends a round because a newer message is in the inbox.
var errSuperseded = errors.New("superseded by a newer message")

// membership is this replica's place in a round.
type membership struct {
	protocol.Round
	run    context.Context // of Replica.Run: outlives attempts at a step
	rank   int
	groups []int // of the global batch, dealt to this replica
	runs   []int // the first group of each run of a program over them
	ring   Ring
	order  []int // groups of all members, by rank: the order of gathered keys
	counts []int // float32 of keys contributed by each rank

	exchange *exchange // of a spread queue, made by the first step
}

// round runs one round: state, ring, then step after step until the
// coordinator ends it.
func (r *Replica) round(ctx context.Context, round protocol.Round) error {
	s := r.session
	m := &membership{Round: round, run: ctx, rank: -1}
	for rank, member := range round.Members {
		m.order = append(m.order, member.Groups...)
		m.counts = append(m.counts, len(member.Groups)*s.cfg.BNGroup*s.cfg.Dim)
		if member.ID == r.cfg.ID {
			m.rank, m.groups = rank, member.Groups
		}
	}
	if m.rank < 0 {
		r.setPhase(round.Round, round.Step, "standby")
		return nil
	}
	r.log.Info("round", "round", round.Round, "step", round.Step, "rank", m.rank, "world", len(round.Members), "groups", m.groups, "reason", round.Reason)

	err := r.runRound(ctx, m)
	if m.ring != nil {
		m.ring.Close()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil, errors.Is(err, errSuperseded):
		return nil // a leaver too: the coordinator says when it may go
	}
	return r.report(ctx, m, err)
}

// report tells the coordinator why a round failed here. What to do about it
// is the coordinator's decision: a new round, or the end of the job.
func (r *Replica) report(ctx context.Context, m *membership, err error) error {
	f := protocol.Failed{Round: m.Round.Round, Step: r.session.step + 1, Fatal: true, Error: err.Error()}
	var peer *allreduce.PeerError
	if errors.As(err, &peer) {
		f.Fatal = false
		alive := errors.Is(err, allreduce.ErrAborted) // it gave up for a reason of its own, and reports that itself
		if !alive && peer.Rank >= 0 && peer.Rank < len(m.Members) {
			f.Suspect = m.Members[peer.Rank].ID
		}
	}
	if errors.As(err, new(*ringError)) {
		f.Fatal = false
	}
	var damaged *damagedError
	if errors.As(err, &damaged) {
		f.Fatal, f.Damaged = false, []int{damaged.shard}
	}
	var transient *stateError
	if errors.As(err, &transient) {
		f.Fatal, f.NoState = false, !r.session.ready
	}
	r.log.Warn("step not finished", "round", f.Round, "step", f.Step, "err", err)
	r.setPhase(f.Round, f.Step, protocol.PhaseWaiting)
	return r.send(ctx, protocol.Message{Failed: &f})
}

func (r *Replica) runRound(ctx context.Context, m *membership) error {
	attempt, end := r.inbox.step(ctx)
	defer end()
	if err := r.session.runs(m); err != nil {
		return err
	}
	if err := r.prepare(attempt, m); err != nil {
		if attempt.Err() != nil {
			return errSuperseded
		}
		return err
	}
	if m.Save {
		return r.save(attempt, m)
	}
	s := r.session
	if err := s.unstage(); err != nil {
		return err
	}
	s.loader.Reset()
	for ahead := range prefetch {
		if err := s.loader.Submit(s.request(m, ahead)); err != nil {
			return err
		}
	}
	for {
		commit, err := r.step(attempt, m)
		if err != nil {
			if attempt.Err() != nil && !errors.As(err, new(*stateError)) {
				return errSuperseded
			}
			return err
		}
		if commit.EndRound || commit.Final {
			return nil
		}
		if attempt.Err() != nil {
			return errSuperseded
		}
	}
}

// runs finds the runs of a program over this member's groups. It checks what
// others were dealt too, whose runs an exchange must know.
func (s *session) runs(m *membership) error {
	for _, member := range m.Members {
		if len(member.Groups)%s.atOnce != 0 {
			return fmt.Errorf("round %d deals groups %v to %s, not in units of %d", m.Round.Round, member.Groups, member.Name, s.atOnce)
		}
		for i, group := range member.Groups {
			if first := member.Groups[i-i%s.atOnce]; group != first+i%s.atOnce {
				return fmt.Errorf("round %d deals groups %v to %s, not in units of %d consecutive ones", m.Round.Round, member.Groups, member.Name, s.atOnce)
			}
		}
	}
	m.runs = s.runsOf(m.groups)
	return nil
}

// runsOf are the first groups of the runs over groups.
func (s *session) runsOf(groups []int) (first []int) {
	for i := 0; i < len(groups); i += s.atOnce {
		first = append(first, groups[i])
	}
	return first
}

// prepare brings the state to where the round starts and opens the ring.
func (r *Replica) prepare(ctx context.Context, m *membership) error {
	s := r.session
	r.setPhase(m.Round.Round, m.Step, "preparing")
	if m.Members[m.rank].State != protocol.FromSelf {
		s.ready = false // until it has all of it
	}
	s.place(m)
	switch m.Members[m.rank].State {
	case protocol.FromSeed:
		s.initialise()
	case protocol.FromCheckpoint:
		blob, err := r.cfg.Link.Download(ctx, m.Checkpoint)
		if err != nil {
			return fmt.Errorf("download checkpoint %s from the coordinator: %w", m.Checkpoint, err)
		}
		if err := s.load(blob); err != nil {
			return fmt.Errorf("restore checkpoint %s: %w", m.Checkpoint, err)
		}
	case protocol.FromSelf:
		// A vote that was not followed by its commit is void in a new round.
		s.pending = nil
	}
	var err error
	if m.ring, err = r.cfg.Ring(ctx, m.Round, m.rank, s.cfg.Wire); err != nil {
		return &ringError{err}
	}
	if err := s.transfer(ctx, m); err != nil {
		return err
	}
	if m.Donor >= 0 {
		if err := s.recover(ctx, m); err != nil {
			return err
		}
	}
	if !s.ready || s.step != m.Step-1 || s.cursor != m.Cursor {
		have := fmt.Sprintf("step %d", s.step)
		if !s.ready {
			have = "no state"
		}
		s.ready = false
		return &stateError{fmt.Sprintf("round %d starts after step %d, this replica has %s", m.Round.Round, m.Step-1, have)}
	}
	return nil
}

// ringError is a ring that could not be opened, whatever the reason: members
// that die meanwhile close connections at any point of it. A new round, with
// those who are left, may fare better.
type ringError struct{ error }

func (e *ringError) Unwrap() error { return e.error }

// stateError is a state that does not fit the round: the replica needs one
// from a peer, which a new round brings.
type stateError struct{ what string }

func (e *stateError) Error() string { return e.what }

func (s *session) load(blob []byte) error {
	c, err := checkpoint.Read(bytes.NewReader(blob))
	if err != nil {
		return err
	}
	return s.restore(c)
}

// loadModel takes a state withoutQueue, and where the queue stands.
func (s *session) loadModel(blob []byte, ptr int, filled int64) error {
	c, err := checkpoint.Read(bytes.NewReader(blob))
	if err != nil {
		return err
	}
	if err := c.Matches(s.net, 1, s.cfg.Dim); err != nil {
		return err
	}
	if err := s.queue.SetPosition(ptr, filled); err != nil {
		return err
	}
	s.restoreModel(c)
	return nil
}

// recoveryPiece is how much of the state travels in one broadcast.
const recoveryPiece = 16 << 20

// recover streams the donor's state (in the checkpoint format) around the
// ring; members that are current pass it on and ignore it. A spread queue is
// not part of it, but for its position.
func (s *session) recover(ctx context.Context, m *membership) error {
	start := time.Now()
	tag := allreduce.Tag{Step: uint64(m.Step), Bucket: recoveryTag}
	var blob []byte
	if m.rank == m.Donor {
		var buf bytes.Buffer
		state := s.withoutQueue()
		if m.Holders == nil {
			state = s.snapshot(s.queue.Keys(), s.queue.Labels())
		}
		if err := checkpoint.Write(&buf, state); err != nil {
			return fmt.Errorf("write the state for a joiner: %w", err)
		}
		blob = buf.Bytes()
	}
	head := make([]byte, 24) // length, queue pointer, keys enqueued
	binary.LittleEndian.PutUint64(head, uint64(len(blob)))
	binary.LittleEndian.PutUint64(head[8:], uint64(s.queue.Ptr()))
	binary.LittleEndian.PutUint64(head[16:], uint64(s.queue.Filled()))
	if err := m.ring.Broadcast(ctx, tag, m.Donor, head); err != nil {
		return fmt.Errorf("receive the state from %s: %w", m.Members[m.Donor].Name, err)
	}
	if m.rank != m.Donor {
		blob = make([]byte, binary.LittleEndian.Uint64(head))
	}
	for lo := 0; lo < len(blob); lo += recoveryPiece {
		tag.Bucket++
		if err := m.ring.Broadcast(ctx, tag, m.Donor, blob[lo:min(lo+recoveryPiece, len(blob))]); err != nil {
			return fmt.Errorf("receive the state from %s: %w", m.Members[m.Donor].Name, err)
		}
	}
	if m.Members[m.rank].State != protocol.FromPeer {
		return nil
	}
	load := s.load
	if m.Holders != nil {
		load = func(blob []byte) error {
			return s.loadModel(blob, int(binary.LittleEndian.Uint64(head[8:])), int64(binary.LittleEndian.Uint64(head[16:])))
		}
	}
	if err := load(blob); err != nil {
		return fmt.Errorf("the state received from %s (%d bytes in %v): %w", m.Members[m.Donor].Name, len(blob), time.Since(start).Round(time.Millisecond), err)
	}
	return nil
}

// request says what to load for the step that is ahead steps after the next.
func (s *session) request(m *membership, ahead int) data.Request {
	cursor := s.cursor + int64(ahead*s.cfg.Batch)
	refs := s.sampler.Batch(cursor, s.cfg.Batch)
	perm := s.sampler.Shuffle(cursor, s.cfg.Batch)
	req := data.Request{Step: s.step + 1 + int64(ahead)}
	for _, first := range m.runs {
		lo, hi := s.rows(first)
		req.Query = append(req.Query, refs[lo:hi])
		keys := make([]sampler.Ref, hi-lo)
		for i := range keys {
			keys[i] = refs[perm[lo+i]]
		}
		req.Key = append(req.Key, keys)
	}
	return req
}

// rows are the places of a run's samples in the global batch, [lo, hi).
func (s *session) rows(first int) (lo, hi int) {
	return first * s.cfg.BNGroup, (first + s.atOnce) * s.cfg.BNGroup
}
