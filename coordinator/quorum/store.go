package quorum

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"mochi/coordinator/wal"
)

// errSlow: the disk did not finish in time. What was to be written may be written later.
var errSlow = errors.New("the disk does not finish")

// store is raft's log in a wal, with three things that raft needs and a wal cannot know:
//
//   - A limit of time. Raft's own goroutine waits for its disk, and its heartbeats go on
//     meanwhile: a leader whose disk stands still would lead for ever. With an error raft
//     steps down instead. The write itself cannot be called back: the next one waits for
//     it, and takes back what came of it.
//   - The reach: how far the log was when it was last written, in a file of its own. A
//     log that lost its end looks like one that a crash has cut, but others counted on
//     what it had.
//   - What is damaged ends this member. Raft's answer would be a panic.
type store struct {
	wal     *wal.Log
	reach   *reach
	room    func() error    // as of commitlog.Options
	limit   *limit          // of a write
	fail    func(error)     // this member cannot go on
	covered func() uint64   // the last entry that a snapshot has
	ended   <-chan struct{} // nobody needs answers any more

	running atomic.Bool   // raft runs, on goroutines of its own
	busy    chan struct{} // capacity 1: held by what changes the log

	mu      sync.Mutex
	trouble error // of the last write
	since   time.Time
	recent  map[uint64]*raft.Log // what was stored last
	oldest  uint64               // of them
	bytes   int                  // of them
	taken   uint64               // raft believes in entries up to here, which were taken back; 0: it knows what there is
}

// mostRecent is how much of the log is kept in memory: what members that are up to date
// are sent.
const mostRecent = 8 << 20

// mostWrite is how much is written at once.
const mostWrite = wal.MaxBatch / 2

func newStore(log *wal.Log, reach *reach) *store {
	return &store{wal: log, reach: reach, limit: newLimit(), busy: make(chan struct{}, 1), recent: map[uint64]*raft.Log{}}
}

// IsMonotonic tells raft that the log has no gaps.
func (s *store) IsMonotonic() bool { return true }

// FirstIndex implements raft.LogStore.
func (s *store) FirstIndex() (uint64, error) {
	if first := s.wal.First(); first <= s.wal.Last() {
		return first, nil
	}
	return 0, nil
}

// LastIndex implements raft.LogStore.
func (s *store) LastIndex() (uint64, error) {
	if last := s.wal.Last(); s.wal.First() <= last {
		return last, nil
	}
	return 0, nil
}

// GetLog implements raft.LogStore. A disk that cannot read is waited for.
func (s *store) GetLog(index uint64, to *raft.Log) error {
	s.mu.Lock()
	known := s.recent[index]
	s.mu.Unlock()
	if known != nil {
		*to = *known
		return nil
	}
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		r, err := s.wal.Read(index)
		if err == nil {
			err = decodeRecord(r, to)
		}
		var damaged *wal.DamageError
		switch {
		case err == nil:
			return nil
		case errors.Is(err, wal.ErrNotFound):
			if s.broken() && index > s.wal.Last() && index <= s.believed() {
				*to = raft.Log{Index: index, Type: raft.LogNoop} // of no term: raft puts another in its place
				return nil
			}
			return raft.ErrLogNotFound
		case errors.As(err, &damaged) || errors.Is(err, errEntry) || errors.Is(err, wal.ErrClosed) || errors.Is(err, fs.ErrNotExist):
			if !s.running.Load() {
				return err
			}
			s.fail(&DamagedError{What: err})
			runtime.Goexit() // raft would panic; it is being shut down
		}
		_ = s.note(err)
		select {
		case <-time.After(wait):
		case <-s.ended:
			runtime.Goexit()
		}
	}
}

// holds says whether an entry is in the log.
func (s *store) holds(index uint64) bool { return s.wal.First() <= index && index <= s.wal.Last() }

// termOf is the term of an entry, if it is here.
func (s *store) termOf(index uint64) (term uint64, found bool) {
	r, err := s.wal.Read(index)
	var l raft.Log
	if err != nil || decodeRecord(r, &l) != nil {
		return 0, false
	}
	return l.Term, true
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (s *store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	if s.room != nil {
		if err := s.room(); err != nil {
			return s.note(err)
		}
	}
	return s.note(s.change(func() error {
		last := s.wal.Last()
		cut, err := s.makeWay(logs[0].Index)
		for wait := 10 * time.Millisecond; err == nil; wait = min(2*wait, time.Second) {
			if err = s.append(logs); err == nil || !cut {
				break
			}
			// Raft believes in what was taken back until its place is taken.
			s.take(last)
			_ = s.note(err)
			select {
			case <-time.After(wait):
				err = nil
			case <-s.ended:
			}
		}
		if err == nil {
			s.take(0)
		}
		return err
	}))
}

// append writes what raft has given, as far as it is not there yet.
func (s *store) append(logs []*raft.Log) error {
	for len(logs) > 0 && logs[0].Index <= s.wal.Last() {
		logs = logs[1:]
	}
	for len(logs) > 0 {
		n, size := 0, 0
		var records []wal.Record
		for ; n < len(logs) && (n == 0 || size+len(logs[n].Data) <= mostWrite); n++ {
			records = append(records, encodeRecord(logs[n]))
			size += len(logs[n].Data)
		}
		if err := s.wal.Append(records...); err != nil {
			return err
		}
		s.keep(logs[:n])
		logs = logs[n:]
	}
	return s.reach.set(s.wal.Last())
}

// makeWay lets the log end before the index that comes next. cut: entries that raft
// believes in, or had given up, were taken back.
func (s *store) makeWay(next uint64) (cut bool, err error) {
	switch last := s.wal.Last(); {
	case last+1 == next:
		return false, nil
	case last+1 > next && next >= s.wal.First():
		return true, s.cut(next - 1)
	case next <= s.covered()+1: // a snapshot has taken the place of what was here
		s.drop()
		if err := s.reach.lower(0); err != nil {
			return false, err
		}
		return false, s.wal.Reset(next)
	default:
		return false, fmt.Errorf("entry %d cannot follow entry %d", next, last)
	}
}

// cut takes back what is behind an index.
func (s *store) cut(last uint64) error {
	s.drop()
	if err := s.reach.lower(last); err != nil {
		return err
	}
	return s.wal.TruncateBack(last)
}

func (s *store) take(last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = last
}

func (s *store) believed() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// broken says whether raft believes in entries that are not here: such a member must not
// lead.
func (s *store) broken() bool { return s.believed() > 0 }

// DeleteRange implements raft.LogStore: raft takes away one of the log's ends, or all. It
// takes away the newest entries only to store others in their place, and if that fails it
// believes that they are still there; so they are, until StoreLogs replaces them.
func (s *store) DeleteRange(first, last uint64) error {
	if first > s.wal.First() {
		return nil
	}
	return s.note(s.change(func() error { return s.wal.TruncateFront(min(last, s.wal.Last()) + 1) }))
}

// change does something to the log, and waits for it so long as a write may take.
func (s *store) change(do func() error) error {
	start := time.Now()
	expired := time.NewTimer(s.limit.now())
	defer expired.Stop()
	select {
	case s.busy <- struct{}{}:
	case <-expired.C:
		return s.limit.exceeded(time.Since(start))
	}
	done := make(chan error, 1)
	go func() {
		err := do()
		<-s.busy
		done <- err
	}()
	select {
	case err := <-done:
		s.limit.kept(time.Since(start))
		return err
	case <-expired.C:
		return s.limit.exceeded(time.Since(start))
	}
}

// keep remembers entries that were stored.
func (s *store) keep(logs []*raft.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range logs {
		if len(s.recent) == 0 {
			s.oldest = l.Index
		}
		kept := *l
		s.recent[l.Index], s.bytes = &kept, s.bytes+len(l.Data)+200
	}
	for s.bytes > mostRecent && len(s.recent) > 0 {
		s.bytes -= len(s.recent[s.oldest].Data) + 200
		delete(s.recent, s.oldest)
		s.oldest++
	}
}

// drop forgets what keep remembers.
func (s *store) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.recent)
	s.bytes = 0
}

// note remembers how the last write went.
func (s *store) note(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (err == nil) != (s.trouble == nil) {
		s.since = time.Now()
	}
	s.trouble = err
	return err
}

// held is what keeps the store from writing, nil when nothing does.
func (s *store) held() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble == nil {
		return nil
	}
	return fmt.Errorf("its log is not written since %s: %w", s.since.Format(time.TimeOnly), s.trouble)
}

// close closes the log, behind what is being written, unless that does not end.
func (s *store) close() error {
	select {
	case s.busy <- struct{}{}:
		return errors.Join(s.wal.Close(), s.reach.close())
	case <-time.After(time.Second):
		return fmt.Errorf("close the log: %w", errSlow)
	}
}

// A record of the wal is an entry of raft: its type is the kind, then come term and
// time, and its bytes.
func encodeRecord(l *raft.Log) wal.Record {
	data := binary.AppendUvarint(nil, l.Term)
	data = binary.AppendVarint(data, l.AppendedAt.UnixNano())
	data = appendBytes(data, l.Extensions)
	return wal.Record{Index: l.Index, Kind: byte(l.Type) + 1, Data: append(data, l.Data...)}
}

func decodeRecord(r wal.Record, to *raft.Log) error {
	term, n := binary.Uvarint(r.Data)
	if n <= 0 || r.Kind == 0 {
		return fmt.Errorf("record %d: %w", r.Index, errEntry)
	}
	nanos, m := binary.Varint(r.Data[n:])
	if m <= 0 {
		return fmt.Errorf("record %d: %w", r.Index, errEntry)
	}
	extensions, data, err := cutBytes(r.Data[n+m:])
	if err != nil {
		return fmt.Errorf("record %d: %w", r.Index, err)
	}
	*to = raft.Log{Index: r.Index, Term: term, Type: raft.LogType(r.Kind - 1), Data: data, AppendedAt: time.Unix(0, nanos)}
	if len(extensions) > 0 {
		to.Extensions = extensions
	}
	return nil
}
