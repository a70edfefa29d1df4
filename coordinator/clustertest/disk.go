package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/protocol"
	"mochi/replica/checkpoint"
)

// disk is the coordinator's state folder: what outlives its process.
type disk struct {
	w       *World
	commits []entry // as they were appended
	data    protocol.Data
	round   int64
	term    uint64
	notes   map[string]string
	files   map[string][]byte // checkpoints by name
	latest  *coordinator.Checkpoint

	recorded int64 // last step in the run's own log (log.jsonl)
	writes   int   // how many there have been

	stalled time.Duration // until then nothing is written
	full    time.Duration // until then there is no room
}

// entry is a commit in the log.
type entry struct {
	step int64
	data []byte // JSON
}

var errFull = errors.New("no space left on device")

// head is the last step of the log. The world's lock is held.
func (d *disk) head() int64 {
	if len(d.commits) == 0 {
		return 0
	}
	return d.commits[len(d.commits)-1].step
}

// StallDisk makes everything that the coordinator writes wait for a while.
func (w *World) StallDisk(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(nil, "disk stands still", int64(d))
	w.disk.stalled = w.now() + d
}

// FillDisk leaves no room for a while.
func (w *World) FillDisk(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(nil, "disk full", int64(d))
	w.disk.full = w.now() + d
}

// LoseTail takes the last commits from the log, as damage to its end or an old
// copy of the state folder does. No coordinator may be running.
func (w *World) LoseTail(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = min(n, len(w.disk.commits))
	w.note(nil, "the log loses its tail", int64(n))
	w.disk.commits = w.disk.commits[:len(w.disk.commits)-n]
}

// EmptyFolder takes all that the coordinator has on its disk, as another host
// does that takes its place. No coordinator may be running.
func (w *World) EmptyFolder() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(nil, "the state folder is gone", 0)
	d := w.disk
	*d = disk{w: w, notes: map[string]string{}, files: map[string][]byte{}, writes: d.writes, stalled: d.stalled, full: d.full}
}

// LatestCheckpoint is the step of the newest, 0 when there is none.
func (w *World) LatestCheckpoint() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.disk.latest == nil {
		return 0
	}
	return w.disk.latest.Step
}

// write does one thing to the disk, under the world's lock, as soon as that is
// possible. When ctx ends before, nobody knows: it may still happen.
func (p *Process) write(ctx context.Context, what string, do func() error) error {
	if err := p.pass(what, diskHost); err != nil {
		return err
	}
	w := p.w
	for {
		w.mu.Lock()
		wait := max(w.disk.stalled-w.now(), 0) + w.draw("disk", 200*time.Microsecond, 2*time.Millisecond)
		stalls := w.disk.stalled > w.now()
		w.mu.Unlock()
		if err := p.wait(ctx, wait); err != nil {
			if stalls && ctx.Err() != nil { // the system call goes on without its caller
				w.mu.Lock()
				before := w.disk.writes
				w.mu.Unlock()
				go func() {
					if p.wait(context.Background(), wait) == nil {
						w.mu.Lock()
						defer w.mu.Unlock()
						if w.disk.writes == before { // writes are done one after the other
							_ = do() // as its caller will find out
						}
					}
				}()
			}
			return err
		}
		w.mu.Lock()
		if w.disk.stalled > w.now() { // it began meanwhile
			w.mu.Unlock()
			continue
		}
		defer w.wake()
		defer w.mu.Unlock()
		switch {
		case p.dead:
			return errDead
		case w.disk.full > w.now():
			return errFull
		}
		w.disk.writes++
		return do()
	}
}

// log is a coordinator's hold on its log (a coordinator.Log).
type log struct {
	p    *Process
	last int // entries that it knows of
}

func (l *log) Last(context.Context) (c protocol.Commit, found bool, err error) {
	w := l.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.last = len(w.disk.commits); l.last == 0 {
		return c, false, nil
	}
	return c, true, json.Unmarshal(w.disk.commits[l.last-1].data, &c)
}

func (l *log) After(_ context.Context, step int64) (list []protocol.Commit, err error) {
	w := l.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.disk.commits {
		if e.step <= step {
			continue
		}
		var c protocol.Commit
		if err := json.Unmarshal(e.data, &c); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

func (l *log) Append(ctx context.Context, c protocol.Commit) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	w := l.p.w
	err = l.p.write(ctx, "append", func() error {
		switch n := len(w.disk.commits); {
		case n > 0 && bytes.Equal(w.disk.commits[n-1].data, data):
			l.last = n // an attempt before this one that nobody heard of
			return nil
		case n != l.last:
			return fmt.Errorf("append commit %d behind %d: %w", c.Step, w.disk.head(), coordinator.ErrFenced)
		}
		w.checkAppend(c)
		w.disk.commits = append(w.disk.commits, entry{c.Step, data})
		l.last++
		return nil
	})
	if err == nil {
		err = l.p.pass("appended", "")
	}
	return err
}

// Adopt takes what the replicas say that the log had.
func (l *log) Adopt(ctx context.Context, commits []protocol.Commit) error {
	if len(commits) == 0 {
		return nil
	}
	var added []entry
	for _, c := range commits {
		data, err := json.Marshal(c)
		if err != nil {
			return err
		}
		added = append(added, entry{c.Step, data})
	}
	return l.p.write(ctx, "adopt", func() error {
		d := l.p.w.disk
		keep := 0
		for keep < len(d.commits) && d.commits[keep].step < added[0].step {
			keep++
		}
		if keep > 0 && d.commits[keep-1].step+1 != added[0].step {
			keep = 0
		}
		d.commits = append(d.commits[:keep:keep], added...)
		l.last = len(d.commits)
		return nil
	})
}

// Forget keeps everything.
func (l *log) Forget(context.Context, int64) error { return nil }

func (l *log) Lead(ctx context.Context, above uint64) (term uint64, err error) {
	err = l.p.write(ctx, "lead", func() error {
		l.p.w.disk.term = max(l.p.w.disk.term, above) + 1
		term = l.p.w.disk.term
		return nil
	})
	return term, err
}

func (l *log) Data(context.Context) (protocol.Data, error) {
	l.p.w.mu.Lock()
	defer l.p.w.mu.Unlock()
	return l.p.w.disk.data, nil
}

func (l *log) SaveData(ctx context.Context, d protocol.Data) error {
	return l.p.write(ctx, "save data", func() error { l.p.w.disk.data = d; return nil })
}

func (l *log) Round(context.Context) (int64, error) {
	l.p.w.mu.Lock()
	defer l.p.w.mu.Unlock()
	return l.p.w.disk.round, nil
}

func (l *log) SaveRound(ctx context.Context, round int64) error {
	return l.p.write(ctx, "save round", func() error {
		l.p.w.disk.round = max(l.p.w.disk.round, round)
		return nil
	})
}

func (l *log) Note(_ context.Context, name string) (string, error) {
	l.p.w.mu.Lock()
	defer l.p.w.mu.Unlock()
	return l.p.w.disk.notes[name], nil
}

func (l *log) SaveNote(ctx context.Context, name, text string) error {
	return l.p.write(ctx, "save note", func() error { l.p.w.disk.notes[name] = text; return nil })
}

// store keeps checkpoints (a coordinator.Checkpoints).
type store struct{ p *Process }

func (s *store) Latest() (coordinator.Checkpoint, bool, error) {
	s.p.w.mu.Lock()
	defer s.p.w.mu.Unlock()
	if l := s.p.w.disk.latest; l != nil {
		return *l, true, nil
	}
	return coordinator.Checkpoint{}, false, nil
}

func (s *store) Save(ctx context.Context, step int64, r io.Reader, voted func(context.Context) (coordinator.Voted, error)) (string, error) {
	if err := s.p.pass("save", ""); err != nil {
		return "", err
	}
	blob, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	state, err := checkpoint.Read(bytes.NewReader(blob))
	if err != nil {
		return "", err
	}
	if state.Step != step {
		return "", fmt.Errorf("a checkpoint of step %d was announced as one of %d", state.Step, step)
	}
	is, err := voted(ctx)
	if err != nil {
		return "", err
	}
	if err := state.Verify(is.Digest, is.Shards); err != nil {
		return "", err
	}
	name := fmt.Sprintf("step-%d", step)
	w := s.p.w
	err = s.p.write(ctx, "store", func() error {
		w.checkStored(state)
		w.disk.files[name] = blob
		if l := w.disk.latest; l == nil || l.Step <= step { // an old one may come late, and is not the latest
			w.disk.latest = &coordinator.Checkpoint{Name: name, Step: step, Cursor: state.Cursor}
		}
		return nil
	})
	if err == nil {
		err = s.p.pass("stored", "")
	}
	return name, err
}

func (s *store) Open(name string) (io.ReadSeekCloser, error) {
	s.p.w.mu.Lock()
	defer s.p.w.mu.Unlock()
	blob, there := s.p.w.disk.files[name]
	if !there {
		return nil, fmt.Errorf("no checkpoint %s", name)
	}
	return file{bytes.NewReader(blob)}, nil
}

type file struct{ *bytes.Reader }

func (file) Close() error { return nil }
