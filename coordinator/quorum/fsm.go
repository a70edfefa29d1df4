package quorum

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// machine is raft's FSM: a state, and a deliverer that is told of it.
type machine struct {
	deliver *deliverer
	fail    func(error)
	applied func() // something was

	mu      sync.RWMutex
	state   *state
	failed  error
	entries int   // applied since the last snapshot
	bytes   int64 // of them
}

// outcome is what came of an entry.
type outcome struct {
	value uint64
	err   error
}

// Apply implements raft.FSM.
func (m *machine) Apply(l *raft.Log) any {
	m.mu.Lock()
	if m.failed != nil {
		m.mu.Unlock()
		return outcome{err: m.failed}
	}
	e, err := decodeEntry(l.Data)
	var value uint64
	var told []item
	m.state.index = l.Index - 1 // raft has entries of its own
	if err == nil {
		value, told, err = m.state.apply(l.Term, e)
	}
	m.state.index, m.state.under = l.Index, l.Term
	m.entries, m.bytes = m.entries+1, m.bytes+int64(len(l.Data))
	if errors.Is(err, errDiverged) || errors.Is(err, errEntry) {
		m.failed = fmt.Errorf("entry %d cannot be applied: %w", l.Index, err)
	}
	failed := m.failed
	m.mu.Unlock()
	if failed != nil {
		m.fail(&DamagedError{What: failed})
	}
	m.deliver.put(told)
	m.applied()
	return outcome{value, err}
}

// Restore implements raft.FSM.
func (m *machine) Restore(from io.ReadCloser) error {
	s, err := readState(from)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.state, m.entries, m.bytes = s, 0, 0
	told := []item{{counts: maps.Clone(s.lines)}}
	if s.settings.Config != "" {
		told = append(told, item{config: s.settings.Config})
	}
	if s.checkpoint != nil {
		told = append(told, item{stored: s.checkpoint})
	}
	if s.over != nil {
		told = append(told, item{over: s.over})
	}
	m.mu.Unlock()
	m.deliver.put(told)
	m.applied()
	return nil
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed != nil {
		return nil, m.failed
	}
	m.entries, m.bytes = 0, 0
	return &frozen{m.state.copy(), m.deliver}, nil
}

// frozen is a state that is being written.
type frozen struct {
	state   *state
	deliver *deliverer
}

// linesWait is how long a snapshot waits for the follower to write the lines before it.
const linesWait = 10 * time.Second

// Persist implements raft.FSMSnapshot. What a snapshot covers leaves the log, so its
// lines must be in their files.
func (f *frozen) Persist(sink raft.SnapshotSink) error {
	ctx, cancel := context.WithTimeout(f.deliver.node.ctx, linesWait)
	defer cancel()
	err := f.deliver.reached(ctx, f.state.lines)
	if err != nil {
		err = fmt.Errorf("the lines before it are not written yet: %w", err)
	}
	if err == nil {
		err = f.deliver.follow.Sync()
	}
	if err == nil {
		err = f.state.write(sink)
	}
	if err != nil {
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (f *frozen) Release() {}

// read looks at the state; what it returns must not be changed.
func (m *machine) read(do func(*state)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	do(m.state)
}

// grown is how much was applied since the last snapshot, and the last index.
func (m *machine) grown() (entries int, bytes int64, index uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.entries, m.bytes, m.state.index
}

// again says that a snapshot of so much was not made after all.
func (m *machine) again(entries int, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries, m.bytes = m.entries+entries, m.bytes+bytes
}
