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
	last  *coordinator.Checkpoint    // the newest valid one
	Saved func(st *checkpoint.State) // optional: told of each new one
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
	st, err := checkpoint.Read(r)
	if err != nil {
		return "", err
	}
	if st.Step != step {
		return "", fmt.Errorf("the state is that of step %d, not %d", st.Step, step)
	}
	is, err := voted(ctx)
	if err != nil {
		return "", err
	}
	if err := st.Verify(is.Digest, is.Shards); err != nil {
		return "", err
	}
	path, err := checkpoint.SaveStep(s.Dir, st, s.keep)
	if err != nil {
		return "", err
	}
	if s.Saved != nil {
		s.Saved(st)
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
