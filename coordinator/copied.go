package coordinator

import (
	"context"
	"errors"
	"time"
)

// copies waits for the other coordinators to hold what has arrived here, and says then
// that it is stored.
func (s *Server) copies(ctx context.Context) {
	for {
		var in Stored
		select {
		case in = <-s.arrived:
		case <-ctx.Done():
			return
		}
		done := make(chan error, 1)
		go func() { done <- s.cfg.Copied(ctx, in.Step) }()
		err := s.copying(ctx, in.Step, done)
		switch {
		case ctx.Err() != nil, errors.Is(err, ErrFenced): // the next leader sees what there is
		case err != nil:
			err = s.tell(ctx, StoreFailed{Step: in.Step, Error: err.Error()})
		default:
			err = s.tell(ctx, in)
		}
		if ctx.Err() != nil || errors.Is(err, ErrFenced) {
			return
		}
	}
}

// copying says now and then that the copies of a checkpoint are waited for, until it is
// done.
func (s *Server) copying(ctx context.Context, step int64, done <-chan error) error {
	tick := time.NewTicker(arrivingEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if err := s.tell(ctx, Arriving{Step: step}); err != nil {
				return errors.Join(err, <-done)
			}
		}
	}
}
