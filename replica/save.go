package replica

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"

	"mochi/coordinator/protocol"
	"mochi/replica/checkpoint"
)

// save stores the state of a round, after a commit or of a round that has no
// step, as a checkpoint: rank 0 does, and the members of a spread queue send it
// their shards. If that fails rank 0 says so (Failed.Unsaved) and the coordinator
// tries again later. The attempt ends the gathering, not the upload.
func (r *Replica) save(ctx, attempt context.Context, p *party) error {
	s := r.session
	p.phase(p.Round.Round, s.at.step, protocol.PhaseSaving)
	keys, labels, err := s.queue.gather(attempt, p.membership, p.ring, s.at.step)
	if err != nil {
		if p.rank == 0 {
			// Said at once and of no round: the next one may have begun.
			f := protocol.Failed{Step: s.at.step + 1, Unsaved: s.at.step, Error: err.Error()}
			if serr := r.send(ctx, protocol.Message{Failed: &f}); serr != nil {
				return serr
			}
		}
		return err
	}
	if p.rank != 0 {
		return nil
	}
	return r.uploads.start(ctx, s.snapshot(keys, labels))
}

// saveAlone stores the state of a replica that holds all of it, outside a round.
func (r *Replica) saveAlone(ctx context.Context) error {
	s := r.session
	return r.uploads.start(ctx, s.snapshot(s.queue.Keys(), s.queue.Labels()))
}

// uploads sends checkpoints to the coordinator, which keeps the run's files. A
// state is encoded at once and travels while training goes on, one at a time.
type uploads struct {
	link    Link
	log     *slog.Logger
	running sync.WaitGroup
}

// start waits for the upload before and then sends a state.
func (u *uploads) start(ctx context.Context, state *checkpoint.State) error {
	if err := u.wait(ctx); err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := checkpoint.Write(&buf, state); err != nil {
		return fmt.Errorf("write the checkpoint of step %d: %w", state.Step, err)
	}
	step := state.Step
	u.running.Go(func() {
		if err := u.link.Upload(ctx, step, buf.Bytes()); err != nil {
			// Training goes on: the coordinator reports that the checkpoint is
			// missing, and the previous one stays valid.
			u.log.Error("checkpoint not stored", "step", step, "err", err)
		}
	})
	return nil
}

// wait waits for a checkpoint in flight.
func (u *uploads) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { u.running.Wait(); close(done) }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return nil
	}
}
