package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
)

// handle gives one input to the core and carries out its plan.
func (s *Server) handle(ctx context.Context, in Input) (finished *Finish) {
	if m, said := in.(Received); said {
		if err := m.Message.Validate(s.bounds); err != nil {
			s.log.Warn("message dropped", "err", err)
			return nil
		}
	}
	plan := s.core.Step(time.Now(), in)
	if _, said := in.(Received); !said || len(plan.Actions) > 0 {
		s.changed = true
	}
	if stored, ok := in.(Stored); ok {
		s.forget(stored.Step)
		s.votes.covered(stored.Step)
	}
	if m, ok := in.(Received); ok {
		s.votes.listen(s.core, m.Message)
	}
	s.asked.note(s.core, in) // before anybody hears of it
	for _, a := range plan.Actions {
		if f := s.carryOut(ctx, a); f != nil {
			finished = f
			break
		}
	}
	if plan.Reason != s.last {
		s.last = plan.Reason
		s.log.Debug("state", "reason", plan.Reason)
	}
	s.votes.note(s.core, time.Since(s.started))
	for finished == nil && len(s.unsent) > 0 {
		lost := s.unsent[0]
		s.unsent = s.unsent[1:]
		finished = s.handle(ctx, lost)
	}
	return finished
}

// carryOut does one action, or sees to it that it is done. Messages that come after a
// Reserve wait until it is durable; so the server never waits for the log.
func (s *Server) carryOut(ctx context.Context, a Action) *Finish {
	switch a := a.(type) {
	case Send:
		if s.reserving > 0 {
			s.held = append(s.held, a)
		} else {
			s.send(a)
		}
	case Append:
		s.writer.put(write{
			what: fmt.Sprintf("commit %d", a.Commit.Step),
			do: func(ctx context.Context) error {
				if a.Anew {
					return s.cfg.Log.Adopt(ctx, []protocol.Commit{a.Commit})
				}
				return s.cfg.Log.Append(ctx, a.Commit)
			},
			then: func(err error) *Finish {
				if err != nil {
					return s.handle(ctx, AppendFailed{Step: a.Commit.Step, Fenced: errors.Is(err, ErrFenced), Error: err.Error()})
				}
				return s.handle(ctx, Appended{a.Commit.Step})
			},
		})
	case Record:
		s.votes.report(a.Commit.Step, Voted{Digest: a.StateDigest, Shards: a.Shards})
		s.measure(a.CommitRecord)
		s.cfg.Observer.Committed(a.CommitRecord)
	case Report:
		s.report(a.Event)
	case Remember:
		s.writer.put(write{
			what: "what the job trains on",
			do:   func(ctx context.Context) error { return s.cfg.Log.SaveData(ctx, a.Data) },
			then: fencedOnly,
		})
	case Note:
		s.writer.put(write{
			what: "the note of " + a.Name,
			do:   func(ctx context.Context) error { return s.cfg.Log.SaveNote(ctx, a.Name, a.Text) },
			then: fencedOnly,
		})
	case Reserve:
		s.reserving++
		s.writer.put(write{
			what: fmt.Sprintf("the number of round %d", a.Round),
			do:   func(ctx context.Context) error { return s.cfg.Log.SaveRound(ctx, a.Round) },
			then: s.reserved,
		})
	case Lead:
		var term uint64
		s.writer.put(write{
			what: "the beginning of a term",
			do: func(ctx context.Context) (err error) {
				term, err = s.cfg.Log.Lead(ctx, a.Above)
				return err
			},
			then: func(err error) *Finish {
				if err != nil {
					return fencedOnly(err)
				}
				s.term = term
				return s.handle(ctx, Led{term})
			},
		})
	case Adopt:
		s.writer.put(write{
			what: fmt.Sprintf("the commits %d to %d, which a replica held", a.Commits[0].Step, a.Commits[len(a.Commits)-1].Step),
			do:   func(ctx context.Context) error { return s.cfg.Log.Adopt(ctx, a.Commits) },
			then: func(err error) *Finish {
				if err != nil {
					return fencedOnly(err)
				}
				return s.handle(ctx, Adopted{})
			},
		})
	case Finish:
		// A round that was not announced never is; that the job ends, all hear.
		held := slices.DeleteFunc(s.held, func(m Send) bool { return m.Message.Round != nil })
		s.held, s.reserving = nil, 0
		for _, m := range held {
			s.send(m)
		}
		return &a
	}
	return nil
}

// measure adds the coordinator's own processor time since the last record.
func (s *Server) measure(r CommitRecord) {
	if s.cfg.CPU == nil || r.CPU == nil {
		return
	}
	now := s.cfg.CPU()
	if s.cpu > 0 {
		r.CPU["coordinator"] = (now - s.cpu).Seconds() * 1e3
	}
	s.cpu = now
}

// send sends a message. Whoever does not get one is lost: it would wait for it, and
// others for it, as long as nobody misses it.
func (s *Server) send(a Send) {
	a.Message.Term = s.term
	if r := a.Message.Round; r != nil {
		a.Message.Round = s.keys.with(r, a.To)
	}
	if err := s.cfg.Bus.Send(a.To, a.Message); err != nil {
		s.log.Warn("message not sent", "to", a.To, "err", err)
		s.unsent = append(s.unsent, Lost{ID: a.To, Why: "a message to it could not be sent: " + err.Error()})
	}
}

func (s *Server) report(e event.Event) {
	s.log.LogAttrs(context.Background(), e.Level(), e.EventName(), event.Attrs(e)...)
	s.cfg.Observer.Event(e)
}

// fencedOnly ends the job when another coordinator leads it.
func fencedOnly(err error) *Finish {
	if err != nil {
		return &Finish{Failed: true, Fenced: true, Reason: err.Error()}
	}
	return nil
}

// forget lets the log go of what the checkpoint before the one that is stored now
// covers.
func (s *Server) forget(step int64) {
	covered := s.covered
	if s.covered = max(step, covered); covered == 0 || covered == s.covered {
		return
	}
	s.writer.put(write{
		what: "that commits are covered by checkpoints",
		do:   func(ctx context.Context) error { return s.cfg.Log.Forget(ctx, covered) },
		then: fencedOnly,
	})
}

// reserved sends what waited for the number of a round.
func (s *Server) reserved(err error) *Finish {
	if err != nil {
		return fencedOnly(err)
	}
	if s.reserving > 0 {
		s.reserving--
	}
	if s.reserving == 0 {
		held := s.held
		s.held = nil
		for _, m := range held {
			s.send(m)
		}
	}
	return nil
}

// written takes what the writer has finished.
func (s *Server) written(w written) *Finish {
	if s.slow {
		s.slow = false
		s.report(event.LogGoesOn{Seconds: time.Since(s.slowSince).Seconds()})
	}
	return w.then(w.err)
}

// watchLog tells people when the log is waited for.
func (s *Server) watchLog(now time.Time) {
	d, held := s.writer.held(now)
	if !held {
		return
	}
	full := errors.Is(d.err, ErrDiskFull)
	if s.slow && s.full == full {
		return
	}
	if !s.slow {
		s.slowSince = d.since
	}
	s.slow, s.full = true, full
	if full {
		s.report(event.DiskFull{What: d.what, Error: d.err.Error()})
		return
	}
	s.report(event.LogWaits{What: d.what, Error: errorText(d.err)})
}

func errorText(err error) string {
	if err == nil {
		return "the disk does not answer"
	}
	return err.Error()
}

// setStatus makes the status that of now. A message that nothing follows from, such as
// a heartbeat, or a vote of many, changes little in it: the next tick tells that.
func (s *Server) setStatus(now time.Time) {
	if !s.changed {
		return
	}
	s.changed = false
	status := s.core.Status()
	status.Job, status.StartedAt, status.Term = s.cfg.Job, s.started.Format(time.RFC3339), s.term
	if d, held := s.writer.held(now); held {
		status.Reason = fmt.Sprintf("waiting for the log since %s, to write %s: %s", d.since.Format(time.TimeOnly), d.what, errorText(d.err))
	}
	s.status.Store(&status)
}
