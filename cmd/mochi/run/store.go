package run

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"mochi/coordinator"
	"mochi/replica/checkpoint"
)

// Store keeps a RUN's checkpoints for the coordinator.
type Store struct {
	Dir   string // RUN/checkpoints
	keep  int
	limit int64                   // bytes of a checkpoint of the job, at most
	last  *coordinator.Checkpoint // the newest valid one

	// Saved is told of each new one, if it is not nil: its file, and the step and the
	// epoch whose state it has.
	Saved func(path string, step int64, epoch int)
}

// Latest implements coordinator.Checkpoints.
func (s *Store) Latest() (coordinator.Checkpoint, bool, error) {
	if s.last == nil {
		return coordinator.Checkpoint{}, false, nil
	}
	return *s.last, true, nil
}

// Save implements coordinator.Checkpoints.
func (s *Store) Save(ctx context.Context, step int64, r io.Reader, voted func(context.Context) (coordinator.Voted, error)) (string, error) {
	epoch := 0
	path, err := checkpoint.ReceiveStep(s.Dir, step, s.keep, r, s.limit, func(st *checkpoint.State) error {
		epoch = st.Epoch
		is, err := voted(ctx)
		if err != nil {
			return err
		}
		return st.Verify(is.Digest, is.Shards)
	})
	if err != nil {
		return "", err
	}
	if s.Saved != nil {
		s.Saved(path, step, epoch)
	}
	return filepath.Base(path), nil
}

// Open implements coordinator.Checkpoints.
func (s *Store) Open(name string) (io.ReadSeekCloser, error) {
	if name != filepath.Base(name) || !strings.HasSuffix(name, ".safetensors") {
		return nil, fmt.Errorf("%q is not the name of a checkpoint", name)
	}
	return os.Open(filepath.Join(s.Dir, name))
}
