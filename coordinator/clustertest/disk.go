package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
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
	rounds  map[int64]string  // members of every round that was announced on this log, by its number
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

var errFull = fmt.Errorf("no space left on device: %w", coordinator.ErrDiskFull)

func (w *World) newDisk() *disk {
	return &disk{w: w, notes: map[string]string{}, rounds: map[int64]string{}, files: map[string][]byte{}}
}

// first is the step of the first commit that is in the log, 1 when there is none.
func (d *disk) first() int64 {
	if len(d.commits) == 0 {
		return 1
	}
	return d.commits[0].step
}

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
	w.check.short = true
}

// EmptyFolder takes all that the coordinator has on its disk, as another host
// does that takes its place. No coordinator may be running.
func (w *World) EmptyFolder() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(nil, "the state folder is gone", 0)
	d := w.disk
	empty := w.newDisk()
	empty.writes, empty.stalled, empty.full = d.writes, d.stalled, d.full
	*d = *empty
	w.check.short = true
}

// LatestCheckpoint is the step of the newest, 0 when there is none.
func (w *World) LatestCheckpoint() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest()
}

// latest is LatestCheckpoint with the lock held; of a group it is what any of its
// coordinators has.
func (w *World) latest() (step int64) {
	for _, d := range append(w.group.disks(), w.disk) {
		if d.latest != nil {
			step = max(step, d.latest.Step)
		}
	}
	return step
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
		wait := max(p.disk.stalled-w.now(), 0) + w.draw("disk", 200*time.Microsecond, 2*time.Millisecond)
		stalls := p.disk.stalled > w.now()
		w.mu.Unlock()
		if err := p.wait(ctx, wait); err != nil {
			if stalls && ctx.Err() != nil { // the system call goes on without its caller
				w.mu.Lock()
				before := p.disk.writes
				w.mu.Unlock()
				go func() {
					if p.wait(context.Background(), wait) == nil {
						w.mu.Lock()
						defer w.mu.Unlock()
						if p.disk.writes == before { // writes are done one after the other
							_ = do() // as its caller will find out
						}
					}
				}()
			}
			return err
		}
		w.mu.Lock()
		if p.disk.stalled > w.now() { // it began meanwhile
			w.mu.Unlock()
			continue
		}
		defer w.wake()
		defer w.mu.Unlock()
		switch {
		case p.dead:
			return errDead
		case p.disk.full > w.now():
			return errFull
		}
		p.disk.writes++
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
	if l.last = len(l.p.journal.commits); l.last == 0 {
		return c, false, nil
	}
	return c, true, json.Unmarshal(l.p.journal.commits[l.last-1].data, &c)
}

func (l *log) After(_ context.Context, step int64) (list []protocol.Commit, err error) {
	w := l.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range l.p.journal.commits {
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
	err = l.write(ctx, "append", func() error {
		switch n := len(l.p.journal.commits); {
		case n > 0 && bytes.Equal(l.p.journal.commits[n-1].data, data):
			l.last = n // an attempt before this one that nobody heard of
			return nil
		case n != l.last:
			return fmt.Errorf("append commit %d behind %d: %w", c.Step, l.p.journal.head(), coordinator.ErrFenced)
		}
		w.checkAppend(l.p.journal, c)
		l.p.journal.commits = append(l.p.journal.commits, entry{c.Step, data})
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
	return l.write(ctx, "adopt", func() error {
		d := l.p.journal
		keep := 0
		for keep < len(d.commits) && d.commits[keep].step < added[0].step {
			keep++
		}
		if keep > 0 && d.commits[keep-1].step+1 != added[0].step {
			keep = 0
		}
		for _, c := range commits {
			l.p.w.checkLogged(c)
		}
		d.commits = append(d.commits[:keep:keep], added...)
		l.last = len(d.commits)
		return nil
	})
}

// write makes something durable, in the log of a group as soon as most of its members
// have it.
func (l *log) write(ctx context.Context, what string, do func() error) error {
	if g := l.p.w.group; g != nil {
		return g.write(ctx, l.p, what, do)
	}
	return l.p.write(ctx, what, do)
}

// Forget keeps everything.
func (l *log) Forget(context.Context, int64) error { return nil }

func (l *log) Lead(ctx context.Context, above uint64) (term uint64, err error) {
	err = l.write(ctx, "lead", func() error {
		l.p.journal.term = max(l.p.journal.term, above) + 1
		term = l.p.journal.term
		return nil
	})
	return term, err
}

func (l *log) Data(context.Context) (protocol.Data, error) {
	l.p.w.mu.Lock()
	defer l.p.w.mu.Unlock()
	return l.p.journal.data, nil
}

func (l *log) SaveData(ctx context.Context, d protocol.Data) error {
	return l.write(ctx, "save data", func() error { l.p.journal.data = d; return nil })
}

func (l *log) Round(context.Context) (int64, error) {
	l.p.w.mu.Lock()
	defer l.p.w.mu.Unlock()
	return l.p.journal.round, nil
}

func (l *log) SaveRound(ctx context.Context, round int64) error {
	return l.write(ctx, "save round", func() error {
		l.p.journal.round = max(l.p.journal.round, round)
		return nil
	})
}

func (l *log) Note(_ context.Context, name string) (string, error) {
	l.p.w.mu.Lock()
	defer l.p.w.mu.Unlock()
	return l.p.journal.notes[name], nil
}

func (l *log) SaveNote(ctx context.Context, name, text string) error {
	return l.write(ctx, "save note", func() error { l.p.journal.notes[name] = text; return nil })
}

// store keeps checkpoints (a coordinator.Checkpoints).
type store struct{ p *Process }

func (s *store) Latest() (coordinator.Checkpoint, bool, error) {
	s.p.w.mu.Lock()
	defer s.p.w.mu.Unlock()
	if l := s.p.disk.latest; l != nil {
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
		s.p.disk.keep(coordinator.Checkpoint{Name: name, Step: step, Cursor: state.Cursor}, blob)
		w.group.stored(s.p, step)
		return nil
	})
	if err == nil {
		err = s.p.pass("stored", "")
	}
	return name, err
}

// keep stores a checkpoint. An old one may come late, and is not the latest. The lock is
// held.
func (d *disk) keep(c coordinator.Checkpoint, blob []byte) {
	d.files[c.Name] = blob
	if d.latest == nil || d.latest.Step <= c.Step {
		d.latest = &c
	}
}

// step is that of the newest checkpoint, 0 when there is none. The lock is held.
func (d *disk) step() int64 {
	if d.latest == nil {
		return 0
	}
	return d.latest.Step
}

func (s *store) Open(name string) (io.ReadSeekCloser, error) {
	s.p.w.mu.Lock()
	defer s.p.w.mu.Unlock()
	blob, there := s.p.disk.files[name]
	if !there {
		return nil, fmt.Errorf("no checkpoint %s", name)
	}
	return file{bytes.NewReader(blob)}, nil
}

type file struct{ *bytes.Reader }

func (file) Close() error { return nil }
