package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mochi/coordinator/protocol"
)

// tickEvery is how often time passes for the core.
const tickEvery = 100 * time.Millisecond

// stoodStill is how late a tick must be for the coordinator to conclude that
// it was not running: well above what a busy machine's scheduler does, below
// the shortest silence that counts (Limits.SilentHinted).
const stoodStill = 500 * time.Millisecond

// linger is how long replicas have to hear Stop before the server goes.
const linger = time.Second

// loop feeds the core until it finishes.
func (s *Server) loop(ctx context.Context, deposed <-chan error) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	ticked := time.Now()
	hints := s.cfg.Hints
	finished := s.handle(ctx, Tick{})
	for s.setStatus(time.Now()); finished == nil; s.setStatus(time.Now()) {
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
		case w := <-s.writer.done:
			finished = s.written(w)
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
			s.watchLog(ticked)
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
		case w := <-s.writer.done:
			if f := s.written(w); f != nil {
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

// sendHome lets the replicas hear the end before the bus is closed.
func (s *Server) sendHome(ctx context.Context, f Finish) error {
	if f.Short {
		return fmt.Errorf("%w: %s", ErrLogShort, f.Reason)
	}
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
		case <-s.writer.done: // and what is queued behind it gets its turn
		case id := <-s.cfg.Bus.Lost():
			delete(waiting, id)
		case m, open := <-s.cfg.Bus.Messages(): // their last heartbeats
			if !open {
				clear(waiting)
			}
			// Of one that was given up, or that comes only now: without a word
			// it would wait for a coordinator for ever.
			if m.From != "" && !waiting[m.From] && m.Validate(s.bounds) == nil {
				waiting[m.From] = true
				s.send(Send{m.From, protocol.Message{Version: protocol.Version, Stop: &protocol.Stop{Reason: f.Reason, Failed: f.Failed}}})
			}
		}
	}
	if f.Failed {
		return fmt.Errorf("%w: %s", ErrJobFailed, f.Reason)
	}
	return nil
}
