package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
)

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
		case in := <-s.inner:
			finished = s.handle(ctx, in)
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
	return s.sendHome(ctx, *finished)
}

// drain handles what has arrived already.
func (s *Server) drain(ctx context.Context) *Finish {
	for {
		select {
		case in := <-s.inner:
			if f := s.handle(ctx, in); f != nil {
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

// handle gives one input to the core and carries out its plan.
func (s *Server) handle(ctx context.Context, in Input) *Finish {
	var finished *Finish
	for todo := []Input{in}; len(todo) > 0 && finished == nil; todo = todo[1:] {
		plan := s.core.Step(time.Now(), todo[0])
		for _, a := range plan.Actions {
			switch a := a.(type) {
			case Send:
				if err := s.cfg.Bus.Send(a.To, a.Message); err != nil {
					s.log.Warn("message not sent", "to", a.To, "err", err)
				}
			case Append:
				answer := s.append(ctx, a.Commit)
				if ctx.Err() != nil {
					return nil // dying: whether it was logged, the next coordinator will see
				}
				todo = append(todo, answer)
			case Record:
				s.cfg.Observer.Committed(a.CommitRecord)
			case Report:
				s.log.LogAttrs(ctx, a.Event.Level(), a.Event.EventName(), event.Attrs(a.Event)...)
				s.cfg.Observer.Event(a.Event)
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
func (s *Server) append(ctx context.Context, c protocol.Commit) Input {
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

// sendHome lets the replicas hear the end before the bus is closed.
func (s *Server) sendHome(ctx context.Context, f Finish) error {
	if f.Fenced {
		return fmt.Errorf("%w: %s", ErrFenced, f.Reason)
	}
	if err := s.cfg.Bus.Flush(ctx); err != nil {
		s.log.Warn("replicas may not have heard the end", "err", err)
	}
	timeout := time.NewTimer(linger)
	defer timeout.Stop()
	for waiting := s.core.roster.IDs(); len(waiting) > 0; {
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
