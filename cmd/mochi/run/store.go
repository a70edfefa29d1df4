package run

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"mochi/coordinator"
	"mochi/coordinator/quorum"
	"mochi/replica/checkpoint"
)

// Store keeps a RUN's checkpoints for the coordinator.
type Store struct {
	Dir   string // RUN/checkpoints
	keep  int
	limit checkpoint.Bounds // of a checkpoint of the job

	// Saved is told of each new one, if it is not nil: its file, and the step and the
	// epoch whose state it has.
	Saved func(path string, step int64, epoch int)
	// Shared is told of each new one too: the others of a group are to fetch it.
	Shared func(c quorum.Checkpoint)

	arrived atomic.Int64 // bytes of checkpoints of other coordinators, so far

	folder sync.Mutex // held while checkpoints are put into the folder
	mu     sync.Mutex
	last   *coordinator.Checkpoint // the newest valid one
}

// Latest implements coordinator.Checkpoints.
func (s *Store) Latest() (coordinator.Checkpoint, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return coordinator.Checkpoint{}, false, nil
	}
	return *s.last, true, nil
}

// Step is that of the newest checkpoint, 0 when there is none.
func (s *Store) Step() int64 {
	c, _, _ := s.Latest()
	return c.Step
}

func (s *Store) setLast(c coordinator.Checkpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = &c
}

// Save implements coordinator.Checkpoints.
func (s *Store) Save(ctx context.Context, step int64, r io.Reader, voted func(context.Context) (coordinator.Voted, error)) (string, error) {
	s.folder.Lock()
	defer s.folder.Unlock()
	var epoch int
	var cursor int64
	path, err := checkpoint.ReceiveStep(s.Dir, step, s.keep, r, s.limit, func(st *checkpoint.State) error {
		epoch, cursor = st.Epoch, st.Cursor
		is, err := voted(ctx)
		if err != nil {
			return err
		}
		return st.Verify(is.Digest, is.Shards)
	})
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return "", fmt.Errorf("%w: %w", coordinator.ErrDiskFull, err)
	}
	if err != nil {
		return "", err
	}
	name := filepath.Base(path)
	s.setLast(coordinator.Checkpoint{Name: name, Step: step, Cursor: cursor})
	if s.Shared != nil {
		c, err := describe(path)
		if err != nil {
			return "", fmt.Errorf("read the checkpoint again: %w", err)
		}
		c.Step, c.Cursor = step, cursor
		s.Shared(c)
	}
	if s.Saved != nil {
		s.Saved(path, step, epoch)
	}
	return name, nil
}

// describe says what a checkpoint's file is.
func describe(path string) (quorum.Checkpoint, error) {
	f, err := os.Open(path)
	if err != nil {
		return quorum.Checkpoint{}, err
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, f)
	return quorum.Checkpoint{Name: filepath.Base(path), Size: size, Digest: hex.EncodeToString(h.Sum(nil))}, err
}

// Newest describes the newest checkpoint, false when there is none.
func (s *Store) Newest() (quorum.Checkpoint, bool, error) {
	last, ok, err := s.Latest()
	if err != nil || !ok {
		return quorum.Checkpoint{}, false, err
	}
	c, err := describe(filepath.Join(s.Dir, last.Name))
	c.Step, c.Cursor = last.Step, last.Cursor
	return c, err == nil, err
}

// Take stores a checkpoint that another coordinator has, and does nothing when there is
// one of that step or a later one. fetch writes the file; what comes must be what c says.
func (s *Store) Take(c quorum.Checkpoint, fetch func(w io.Writer) error) error {
	s.folder.Lock()
	defer s.folder.Unlock()
	if c.Step <= s.Step() {
		return nil
	}
	path, err := checkpoint.TakeStep(s.Dir, c.Step, s.keep, func(w io.Writer) error {
		h := sha256.New()
		counted := &counter{w: io.MultiWriter(w, h), all: &s.arrived}
		if err := fetch(counted); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); counted.n != c.Size || got != c.Digest {
			return fmt.Errorf("checkpoint %s: %d bytes came with digest %.16s…, and it has %d with %.16s…", c.Name, counted.n, got, c.Size, c.Digest)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.setLast(coordinator.Checkpoint{Name: filepath.Base(path), Step: c.Step, Cursor: c.Cursor})
	return nil
}

// Arrived is how much Take has got so far, of all checkpoints.
func (s *Store) Arrived() int64 { return s.arrived.Load() }

type counter struct {
	w   io.Writer
	n   int64
	all *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.all.Add(int64(n))
	return n, err
}

// Open implements coordinator.Checkpoints.
func (s *Store) Open(name string) (io.ReadSeekCloser, error) {
	if name != filepath.Base(name) || !strings.HasSuffix(name, ".safetensors") {
		return nil, fmt.Errorf("%q is not the name of a checkpoint", name)
	}
	return os.Open(filepath.Join(s.Dir, name))
}
