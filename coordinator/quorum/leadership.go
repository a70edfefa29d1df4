package quorum

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"mochi/coordinator"
	"mochi/coordinator/follow"
	"mochi/coordinator/protocol"
)

// Leadership is the log of the job for as long as this node leads; then what writes
// returns coordinator.ErrFenced. Whether what was being written then is in the history
// is seen by the next leader.
type Leadership struct {
	node  *Node
	under uint64 // raft's term
	done  <-chan struct{}

	writing chan struct{}  // capacity 1: held by what depends on what is applied
	pending <-chan outcome // of an attempt whose caller gave up waiting; guarded by writing

	told *follow.Outbox[told]
	halt chan struct{}
	once sync.Once
}

// told is what is replicated without anybody waiting for it.
type told struct {
	line   line
	stored *Checkpoint
}

func newLeadership(n *Node, done <-chan struct{}) *Leadership {
	return &Leadership{
		node: n, done: done, writing: make(chan struct{}, 1),
		told: follow.NewOutbox[told](), halt: make(chan struct{}),
	}
}

// Done is closed when this node no longer leads.
func (l *Leadership) Done() <-chan struct{} { return l.done }

func (l *Leadership) over() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

func (l *Leadership) stop() { l.once.Do(func() { close(l.halt) }) }

// submit replicates an entry and returns what it came to, when it is applied here.
func (l *Leadership) submit(ctx context.Context, kind byte, body any) (uint64, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	return l.wait(ctx, l.start(entry{kind: kind, under: l.under, body: text}))
}

// start hands an entry to raft for as long as this is the leadership.
func (l *Leadership) start(e entry) <-chan outcome {
	if l.over() {
		out := make(chan outcome, 1)
		out <- outcome{err: coordinator.ErrFenced}
		return out
	}
	return l.node.propose(e)
}

// propose hands an entry to raft, which may take as long as a disk takes.
func (n *Node) propose(e entry) <-chan outcome {
	out := make(chan outcome, 1)
	data, err := e.encode()
	if err != nil {
		out <- outcome{err: err}
		return out
	}
	n.mu.Lock()
	r := n.raft
	if n.closing || r == nil {
		n.mu.Unlock()
		out <- outcome{err: coordinator.ErrFenced}
		return out
	}
	n.underWay++
	n.mu.Unlock()
	go func() {
		defer func() {
			n.mu.Lock()
			n.underWay--
			n.mu.Unlock()
		}()
		f := r.Apply(data, 0)
		if err := f.Error(); err != nil {
			out <- outcome{err: meaning(err)}
			return
		}
		out <- f.Response().(outcome)
	}()
	return out
}

// meaning is what an error of raft's is here.
func meaning(err error) error {
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return fmt.Errorf("the leadership is being handed over: %w", err)
	}
	// Whatever else it is, raft has stepped down, or never led.
	return fmt.Errorf("%w: %w", err, coordinator.ErrFenced)
}

// wait returns what came of an entry. When the leadership ends that is not known.
func (l *Leadership) wait(ctx context.Context, out <-chan outcome) (uint64, error) {
	select {
	case o := <-out:
		return o.value, o.err
	case <-l.done:
		return 0, coordinator.ErrFenced
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// write replicates an entry that depends on what is applied: check looks at the state
// first, and says whether there is anything to do. What an earlier call gave up waiting
// for is waited for before.
func (l *Leadership) write(ctx context.Context, check func(*state) (bool, error), entries ...entry) (value uint64, err error) {
	select {
	case l.writing <- struct{}{}:
		defer func() { <-l.writing }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if l.pending != nil {
		if _, err := l.wait(ctx, l.pending); ctx.Err() != nil {
			return 0, err
		}
		l.pending = nil
	}
	if l.over() {
		return 0, coordinator.ErrFenced
	}
	needed := true
	l.node.machine.read(func(s *state) {
		if check != nil {
			needed, err = check(s)
		}
	})
	if err != nil || !needed {
		return 0, err
	}
	for _, e := range entries {
		e.under = l.under
		out := l.start(e)
		if value, err = l.wait(ctx, out); err != nil {
			if ctx.Err() != nil && !errors.Is(err, coordinator.ErrFenced) {
				l.pending = out
			}
			return 0, err
		}
	}
	return value, nil
}

func (l *Leadership) writeOne(ctx context.Context, kind byte, body any, check func(*state) (bool, error)) error {
	text, err := json.Marshal(body)
	if err == nil {
		_, err = l.write(ctx, check, entry{kind: kind, body: text})
	}
	return err
}

// read looks at what is applied; after the leadership it is not the leader's any more.
func (l *Leadership) read(do func(*state)) error {
	if l.over() {
		return coordinator.ErrFenced
	}
	l.node.machine.read(do)
	return nil
}

// Last implements coordinator.Log.
func (l *Leadership) Last(context.Context) (c protocol.Commit, ok bool, err error) {
	err = l.read(func(s *state) {
		if ok = s.last != nil; ok {
			c = *s.last
		}
	})
	return c, ok, err
}

// First is the step of the first commit that is here; 0 when there is none.
func (l *Leadership) First() (step int64) {
	l.node.machine.read(func(s *state) {
		if len(s.commits) > 0 {
			step = s.base + 1
		}
	})
	return step
}

// After implements coordinator.Log.
func (l *Leadership) After(_ context.Context, step int64) ([]protocol.Commit, error) {
	var bodies [][]byte
	if err := l.read(func(s *state) { bodies = s.after(step) }); err != nil {
		return nil, err
	}
	var commits []protocol.Commit
	for _, b := range bodies {
		c, err := decodeCommit(b)
		if err != nil {
			return nil, err
		}
		commits = append(commits, c)
	}
	return commits, nil
}

// Append implements coordinator.Log.
func (l *Leadership) Append(ctx context.Context, c protocol.Commit) error {
	err := l.writeOne(ctx, kindCommit, c, func(s *state) (bool, error) {
		if s.last == nil {
			return true, nil
		}
		if same(c, *s.last) {
			return false, nil // an answer that was lost
		}
		if err := c.Follows(*s.last); err != nil {
			return false, fmt.Errorf("%w: %w", err, coordinator.ErrFenced)
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("append commit %d: %w", c.Step, err)
	}
	return nil
}

// Adopt implements coordinator.Log.
func (l *Leadership) Adopt(ctx context.Context, commits []protocol.Commit) error {
	if err := consecutive(commits); err != nil {
		return fmt.Errorf("adopt commits: %w", err)
	}
	if len(commits) == 0 {
		return nil
	}
	var entries []entry
	part, size := adoptEntry{First: true, More: true}, 0
	finish := func() error {
		text, err := json.Marshal(part)
		entries = append(entries, entry{kind: kindAdopt, body: text})
		part, size = adoptEntry{More: true}, 0
		return err
	}
	for i, c := range commits {
		text, err := json.Marshal(c)
		part.Commits, size = append(part.Commits, text), size+len(text)
		part.More = i < len(commits)-1
		if err == nil && (size >= batchAdopt || !part.More) {
			err = finish()
		}
		if err != nil {
			return fmt.Errorf("adopt commits: %w", err)
		}
	}
	if _, err := l.write(ctx, nil, entries...); err != nil {
		return fmt.Errorf("adopt commits: %w", err)
	}
	return nil
}

// Forget implements coordinator.Log.
func (l *Leadership) Forget(ctx context.Context, step int64) error {
	return l.writeOne(ctx, kindForget, stepEntry{step}, func(s *state) (bool, error) { return s.forgettable(step) > 0, nil })
}

// Lead implements coordinator.Log.
func (l *Leadership) Lead(ctx context.Context, above uint64) (uint64, error) {
	text, err := json.Marshal(leadEntry{above})
	if err != nil {
		return 0, err
	}
	return l.write(ctx, nil, entry{kind: kindLead, body: text})
}

// Data implements coordinator.Log.
func (l *Leadership) Data(context.Context) (d protocol.Data, err error) {
	err = l.read(func(s *state) { d = s.settings.Data })
	return d, err
}

// SaveData implements coordinator.Log.
func (l *Leadership) SaveData(ctx context.Context, d protocol.Data) error {
	return l.writeOne(ctx, kindData, d, func(s *state) (bool, error) { return s.settings.Data != d, nil })
}

// Round implements coordinator.Log.
func (l *Leadership) Round(context.Context) (round int64, err error) {
	err = l.read(func(s *state) { round = s.settings.Round })
	return round, err
}

// SaveRound implements coordinator.Log.
func (l *Leadership) SaveRound(ctx context.Context, round int64) error {
	return l.writeOne(ctx, kindRound, roundEntry{round}, func(s *state) (bool, error) { return round > s.settings.Round, nil })
}

// Note implements coordinator.Log.
func (l *Leadership) Note(_ context.Context, name string) (text string, err error) {
	err = l.read(func(s *state) { text = s.settings.Notes[name] })
	return text, err
}

// SaveNote implements coordinator.Log.
func (l *Leadership) SaveNote(ctx context.Context, name, text string) error {
	if len(text) > coordinator.MaxNote {
		return fmt.Errorf("save the note %s: %d bytes, at most %d", name, len(text), coordinator.MaxNote)
	}
	return l.writeOne(ctx, kindNote, noteEntry{name, text}, func(s *state) (bool, error) { return s.settings.Notes[name] != text, nil })
}

// Notes are all of them, by name.
func (l *Leadership) Notes() (notes map[string]string) {
	l.node.machine.read(func(s *state) { notes = maps.Clone(s.settings.Notes) })
	return notes
}

// Config is the configuration that the commits are of; "": it is not known.
func (l *Leadership) Config() (text string) {
	l.node.machine.read(func(s *state) { text = s.settings.Config })
	return text
}

// SaveConfig says of which configuration the commits are.
func (l *Leadership) SaveConfig(ctx context.Context, text string) error {
	return l.writeOne(ctx, kindConfig, configEntry{text}, func(s *state) (bool, error) { return s.settings.Config != text, nil })
}

// Resign hands the leadership over to another member that is up to date. After an error
// this node may still lead.
func (l *Leadership) Resign(ctx context.Context) error {
	heard := l.node.asked.all(ctx)
	var others []string
	for name, a := range heard {
		if a.Standing == voting && a.Trouble == "" {
			others = append(others, name)
		}
	}
	slices.SortFunc(others, func(a, b string) int {
		return cmp.Or(cmp.Compare(heard[b].Entries, heard[a].Entries), cmp.Compare(a, b))
	})
	faults := []error{errors.New("no other coordinator is ready to lead")}
	for _, name := range others {
		err := l.handTo(ctx, name)
		if err == nil || ctx.Err() != nil {
			return err
		}
		faults = append(faults, fmt.Errorf("hand over to coordinator %s: %w", name, err))
	}
	return errors.Join(faults...)
}

// handTo hands the leadership over to one member.
func (l *Leadership) handTo(ctx context.Context, name string) error {
	if l.over() {
		return nil
	}
	// What came of it is seen by what happens: raft does not answer always.
	l.node.raft.LeadershipTransferToServer(raft.ServerID(name), raft.ServerAddress(name))
	select {
	case <-l.done:
		return nil
	case <-time.After(2 * l.node.o.Heartbeat):
		return errors.New("it did not take over")
	case <-ctx.Done():
		return ctx.Err()
	}
}

var _ coordinator.Log = (*Leadership)(nil)
