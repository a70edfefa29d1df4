package replica

import (
	"bytes"
	"context"
	"fmt"

	"mochi/replica/checkpoint"
)

// uploadCheckpoint sends the state after a commit to the coordinator, which
// keeps the run's files. The state is encoded now and travels while training
// goes on; one upload is in flight at a time.
func (r *Replica) uploadCheckpoint(ctx context.Context) error {
	s := r.session
	if err := s.waitUpload(ctx); err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := checkpoint.Write(&buf, s.snapshot()); err != nil {
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
