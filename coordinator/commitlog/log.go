// Package commitlog keeps what must survive the coordinator in files of its own:
// the commits of a job, the highest number of a round, the term of the leader, the
// configuration and the data that the commits are of, and notes. It is a coordinator.Log over
// package wal.
//
//	l, found, err := commitlog.Open(wal.Dir("state/commits"), commitlog.Options{})
//
// A record of the wal is one commit, or all of the settings whenever one of them
// changes; so the newest settings are whole, and what is before them can go.
//
// # What is found
//
// Commits have consecutive steps, and each carries the running digest of all up to
// it (protocol.Commit.Chain), so a log proves that it is one history. Open goes on
// from a damaged log with the commits behind the damage when they reach further, and
// with those before it otherwise; the files as they were stay in the folder, as
// damaged-N.*. It never throws anything away, and Found says what was lost. Whether a
// log that ends early lost its end only somebody else can know: the coordinator
// compares with what is on record and with what the replicas hold.
//
// # What is forgotten
//
// Forget lets go of commits that stored checkpoints cover, by whole segments of the
// wal, but keeps the last Keep. The first commit that is kept carries the running
// digest of all before it, which is the proof that they were what somebody else
// (log.jsonl, a replica, a copy) says they were. So the size of the log is bounded by
// the distance of checkpoints, however long the job.
//
// # A full disk
//
// Options.Room is asked before anything is written: when it says that there is little
// left, nothing is tried, and the error (coordinator.ErrDiskFull) is one to wait on.
//
// Methods may be called from several goroutines; what is read may wait for what is
// written.
//
// Cost: a commit of 8 groups is about 1 KB and one fsync; 16 bytes of memory each.
package commitlog

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"sync"

	"mochi/coordinator"
	"mochi/coordinator/protocol"
	"mochi/coordinator/wal"
)

// Keep is how many commits Forget keeps at least.
const Keep = 1000

// Kinds of records.
const (
	kindCommit   = 1 // a protocol.Commit, JSON
	kindSettings = 2 // settings, JSON
)

// Options of a log; the zero value is usable.
type Options struct {
	Wal wal.Options
	// Room says why nothing should be written now: nil, or an error that wraps
	// coordinator.ErrDiskFull. It is asked before each write.
	Room func() error
}

// settings is everything but the commits.
type settings struct {
	Term   uint64        `json:"term"`
	Round  int64         `json:"round"`
	Data   protocol.Data `json:"data"`
	Config string        `json:"config"` // that the commits are of, as the caller writes it
	Base   int64         `json:"base"`   // the step before the first commit; what is before is not here
	Chain  string        `json:"chain"`  // of that step, "" when not known

	Notes map[string]string `json:"notes,omitempty"` // by name; never changed in place

	// What this record says of the commits before it.
	Anew bool  `json:"anew,omitempty"` // they count no more
	Cut  int64 `json:"cut,omitempty"`  // those after this step count no more, 0: all do
}

// Log is an open commit log.
type Log struct {
	room func() error

	mu       sync.Mutex
	wal      *wal.Log
	settings settings
	indexes  []uint64 // of the commits in the wal: of step Base+1 and so on
	last     *protocol.Commit
}

// Last implements coordinator.Log.
func (l *Log) Last(context.Context) (protocol.Commit, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		return protocol.Commit{}, false, nil
	}
	return *l.last, true, nil
}

// First is the step of the first commit that is here; 0 when there is none.
func (l *Log) First() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.indexes) == 0 {
		return 0
	}
	return l.settings.Base + 1
}

// After implements coordinator.Log.
func (l *Log) After(_ context.Context, step int64) ([]protocol.Commit, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := max(step-l.settings.Base, 0)
	if from >= int64(len(l.indexes)) {
		return nil, nil
	}
	commits := make([]protocol.Commit, 0, int64(len(l.indexes))-from)
	counts := l.indexes[from:]
	err := l.wal.Range(counts[0], counts[len(counts)-1], func(r wal.Record) error {
		if r.Index != counts[0] {
			return nil
		}
		counts = counts[1:]
		c, err := decodeCommit(r)
		commits = append(commits, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the commits after step %d: %w", step, err)
	}
	return commits, nil
}

// Append implements coordinator.Log. Nobody else appends to these files, so
// ErrFenced means that the commit does not belong behind the last one.
func (l *Log) Append(_ context.Context, c protocol.Commit) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.last; last != nil {
		if c.Step == last.Step && c.Digest == last.Digest && c.Chain == last.Chain {
			return nil // an answer that was lost
		}
		if err := c.Follows(*last); err != nil {
			return fmt.Errorf("append commit %d: %w: %w", c.Step, err, coordinator.ErrFenced)
		}
	}
	record, err := encodeCommit(l.wal.Last()+1, c)
	if err != nil {
		return err
	}
	if err := l.write([]wal.Record{record}); err != nil {
		return fmt.Errorf("append commit %d: %w", c.Step, err)
	}
	if len(l.indexes) == 0 {
		l.settings.Base = c.Step - 1
	}
	l.indexes, l.last = append(l.indexes, record.Index), &c
	return nil
}

// Adopt implements coordinator.Log.
func (l *Log) Adopt(_ context.Context, commits []protocol.Commit) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 1; i < len(commits); i++ {
		if err := commits[i].Follows(commits[i-1]); err != nil {
			return fmt.Errorf("adopt commits: %w", err)
		}
	}
	if len(commits) == 0 {
		return nil
	}
	first := commits[0]
	keep := first.Step - 1 - l.settings.Base // commits that stay
	if keep > 0 && keep <= int64(len(l.indexes)) {
		before, err := l.commitAt(int(keep) - 1)
		if err != nil {
			return err
		}
		if first.Follows(before) == nil {
			return l.adopt(int(keep), commits)
		}
	}
	return l.adopt(0, commits) // what is here is none of that history, or too far back
}

// adopt keeps so many of the commits that are here, and puts others behind them. It
// is one batch of the wal, so it happens or not.
func (l *Log) adopt(keep int, commits []protocol.Commit) error {
	s := l.settings
	if s.Cut = commits[0].Step - 1; keep == 0 {
		s.Base, s.Chain, s.Anew = s.Cut, "", true
	}
	records, err := encodeAll(l.wal.Last()+1, s, commits)
	if err != nil {
		return err
	}
	if err := l.write(records); err != nil {
		return fmt.Errorf("adopt commits: %w", err)
	}
	s.Anew, s.Cut = false, 0
	l.settings, l.indexes = s, l.indexes[:keep:keep]
	for _, r := range records[1:] {
		l.indexes = append(l.indexes, r.Index)
	}
	l.last = &commits[len(commits)-1]
	if keep == 0 {
		return l.wal.TruncateFront(records[0].Index)
	}
	return nil
}

// encodeAll are the records of settings and of commits behind them.
func encodeAll(index uint64, s settings, commits []protocol.Commit) ([]wal.Record, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the settings: %w", err)
	}
	records := []wal.Record{{Index: index, Kind: kindSettings, Data: data}}
	for _, c := range commits {
		r, err := encodeCommit(index+uint64(len(records)), c)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

func encodeCommit(index uint64, c protocol.Commit) (wal.Record, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return wal.Record{}, fmt.Errorf("encode commit %d: %w", c.Step, err)
	}
	return wal.Record{Index: index, Kind: kindCommit, Data: data}, nil
}

func (l *Log) write(records []wal.Record) error {
	if l.room != nil {
		if err := l.room(); err != nil {
			return err
		}
	}
	return l.wal.Append(records...)
}

// save writes new settings.
func (l *Log) save(s settings) error {
	records, err := encodeAll(l.wal.Last()+1, s, nil)
	if err != nil {
		return err
	}
	if err := l.write(records); err != nil {
		return fmt.Errorf("save the settings: %w", err)
	}
	l.settings = s
	return nil
}

// change saves the settings with one of them changed.
func (l *Log) change(do func(*settings)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.settings
	if do(&s); reflect.DeepEqual(s, l.settings) {
		return nil
	}
	return l.save(s)
}

func (l *Log) current() settings {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settings
}

// Data implements coordinator.Log.
func (l *Log) Data(context.Context) (protocol.Data, error) { return l.current().Data, nil }

// SaveData implements coordinator.Log.
func (l *Log) SaveData(_ context.Context, d protocol.Data) error {
	return l.change(func(s *settings) { s.Data = d })
}

// Round implements coordinator.Log.
func (l *Log) Round(context.Context) (int64, error) { return l.current().Round, nil }

// SaveRound implements coordinator.Log.
func (l *Log) SaveRound(_ context.Context, round int64) error {
	return l.change(func(s *settings) { s.Round = max(s.Round, round) })
}

// Note implements coordinator.Log.
func (l *Log) Note(_ context.Context, name string) (string, error) {
	return l.current().Notes[name], nil
}

// SaveNote implements coordinator.Log.
func (l *Log) SaveNote(_ context.Context, name, text string) error {
	if len(text) > coordinator.MaxNote {
		return fmt.Errorf("save the note %s: %d bytes, at most %d", name, len(text), coordinator.MaxNote)
	}
	return l.change(func(s *settings) {
		notes := maps.Clone(s.Notes)
		if notes == nil {
			notes = map[string]string{}
		}
		if notes[name] = text; text == "" {
			delete(notes, name)
		}
		s.Notes = notes
	})
}

// Notes are all of them, by name.
func (l *Log) Notes() map[string]string { return maps.Clone(l.current().Notes) }

// Lead implements coordinator.Log.
func (l *Log) Lead(_ context.Context, above uint64) (uint64, error) {
	err := l.change(func(s *settings) { s.Term = max(s.Term, above) + 1 })
	return l.current().Term, err
}

// Term is that of the last leader, 0 when there was none.
func (l *Log) Term() uint64 { return l.current().Term }

// Config is the configuration that the commits are of, as SaveConfig was given it; "":
// it is not known.
func (l *Log) Config() string { return l.current().Config }

// SaveConfig says of which configuration the commits are.
func (l *Log) SaveConfig(text string) error {
	return l.change(func(s *settings) { s.Config = text })
}

// Forget implements coordinator.Log.
func (l *Log) Forget(_ context.Context, step int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(step-l.settings.Base, int64(len(l.indexes))-Keep) // commits to forget
	if n < Keep {
		return nil // not worth a change
	}
	last, err := l.commitAt(int(n) - 1)
	if err != nil {
		return err
	}
	s := l.settings
	s.Base, s.Chain = last.Step, last.Chain
	if err := l.save(s); err != nil {
		return err
	}
	from := l.indexes[n]
	l.indexes = append([]uint64(nil), l.indexes[n:]...)
	return l.wal.TruncateFront(from)
}

// commitAt reads the nth commit that is here.
func (l *Log) commitAt(n int) (protocol.Commit, error) {
	r, err := l.wal.Read(l.indexes[n])
	if err != nil {
		return protocol.Commit{}, fmt.Errorf("read commit %d: %w", l.settings.Base+int64(n)+1, err)
	}
	return decodeCommit(r)
}

func decodeCommit(r wal.Record) (protocol.Commit, error) {
	var c protocol.Commit
	if err := json.Unmarshal(r.Data, &c); err != nil {
		return c, fmt.Errorf("decode the commit in record %d: %w", r.Index, err)
	}
	return c, nil
}

// Close closes the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wal.Close()
}

var _ coordinator.Log = (*Log)(nil)
