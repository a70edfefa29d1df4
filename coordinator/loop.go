package coordinator

import (
	"context"
	"errors"
	"time"
)

// tickEvery is how often time passes for the core.
const tickEvery = 100 * time.Millisecond

// stoodStill is how late a tick must be for the coordinator to conclude that
// it was not running: well above what a busy machine's scheduler does, below
// the shortest silence that counts (Limits.SilentHinted).
const stoodStill = 500 * time.Millisecond

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
