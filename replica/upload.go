package replica

import (
	"bytes"
	"context"
	"fmt"

	"mochi/coordinator/protocol"
	"mochi/replica/checkpoint"
)

// uploadCheckpoint sends the state after a commit to the coordinator, which
// keeps the run's files. The state is encoded now and travels while training
// goes on; one upload is in flight at a time.
//
// Members of a round whose queue is spread all take part, and rank 0 uploads;
// m is nil outside a round, where one replica holds everything. ctx ends the
// gathering, not the upload.
func (r *Replica) uploadCheckpoint(ctx context.Context, m *membership) error {
	s := r.session
	keys, labels, err := s.whole(ctx, m)
	if err != nil {
		if m.rank == 0 {
			// Said at once and of no round: the next one may have begun.
			f := protocol.Failed{Step: s.step + 1, Unsaved: s.step, Error: err.Error()}
			if serr := r.send(m.run, protocol.Message{Failed: &f}); serr != nil {
				return serr
			}
		}
		return err
	}
	if m != nil {
		if ctx = m.run; m.rank != 0 {
			return nil
		}
	}
	if err := s.waitUpload(ctx); err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := checkpoint.Write(&buf, s.snapshot(keys, labels)); err != nil {
		return fmt.Errorf("write the checkpoint of step %d: %w", s.step, err)
	}
	step := s.step
	s.upload.Go(func() {
		if err := r.cfg.Link.Upload(ctx, step, buf.Bytes()); err != nil {
			// Training goes on: the coordinator reports that the checkpoint is
			// missing, and the previous one stays valid.
			r.log.Error("checkpoint not stored", "step", step, "err", err)
		}
	})
	return nil
}

// waitUpload waits for a checkpoint in flight.
func (s *session) waitUpload(ctx context.Context) error {
	done := make(chan struct{})
	go func() { s.upload.Wait(); close(done) }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return nil
	}
}
