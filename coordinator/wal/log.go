// Package wal is an append-only log of records in files: what is appended is on
// the disk when Append returns, and what is read is what was appended, or an
// error that says which record of which file is not.
//
//	l, err := wal.Open(wal.Dir("state/commits"), wal.Options{})
//	err = l.Append(wal.Record{Index: l.Last() + 1, Kind: 1, Data: data})
//	r, err := l.Read(l.Last())
//
// Records have consecutive indexes, a kind of the caller's, and bytes. The log
// can be cut at both ends: TruncateFront forgets old records, TruncateBack takes
// back new ones, Reset begins anew at another index. That is what a store of a
// replicated log asks of it, too (indexes need not begin at 1).
//
// # Files
//
// A folder holds segments, named for their first record, and a list of them:
//
//	list                       the first index that counts, the segments, CRC32C
//	00000000000000000001.wal   header, then records
//	segment header  magic "mochiwal", version, index of its first record, CRC32C   32 bytes
//	record          magic, kind, whether it ends its batch, length, index, index of its batch's
//	                first record, CRC32C of the bytes and of this header   32 bytes, the bytes, an end mark
//
// List and segments are made as temporary files, fsynced, renamed, and the folder
// is fsynced. A segment is full at Options.SegmentBytes; the next Append begins
// another. Records of one Append are one batch: one write, one fsync, and after a
// crash they are there together or not at all.
//
// # What a crash leaves, and what damage is
//
// An Append that did not return may leave nothing, all of its batch, or a part:
// bytes that end early, or sectors of zeros that were never written. Such a part
// can only be at the end of the last segment, and Open cuts it off: nobody was
// told of it. Anything else is damage, and Open returns a *DamageError that names
// file, place and records: a bit that flipped (also in the last record), a record
// or a segment that is missing in the middle or at the end of the list, a list that
// is unreadable. Open never shortens a log for that; Salvage reads what is left,
// for a caller that knows where to get the rest. Two things cannot be seen from
// here: a last segment that lost its end looks like a crash, and an empty folder
// like a new log. Whoever knows better compares First and Last.
//
// # Errors
//
// After an error of Append nothing has been acknowledged, the log is as it was, and
// Append may be called again when the disk is well: it opens the file anew, cuts
// what the failed attempt left, and writes again. (After a failed fsync the
// system may have dropped the bytes and reported it once only, so nothing of that
// attempt is built upon.) An error never sticks. A call may take as long as the
// disk takes; First, Last and Read do not wait for it.
//
// One goroutine at a time may call what changes the log; others may read
// meanwhile. One process at a time may have a folder open: the caller sees to that.
//
// Cost: one write and one fsync an Append, 33 bytes a record; in memory 4 bytes a
// record; Open reads everything once.
//
// Sources: Pillai et al. 2014, "All file systems are not created equal" (what
// survives a crash); Rebello et al. 2020, "Can applications recover from fsync
// failures?"; Alagappan et al. 2018, "Protocol-aware recovery" (a torn end and a
// damaged record are told apart).
package wal

import (
	"errors"
	"fmt"
	"sync"
)

// ErrNotFound is wrapped by the error of Read for an index that the log does not
// hold.
var ErrNotFound = errors.New("no such record")

// ErrClosed is the error of a log that was closed.
var ErrClosed = errors.New("the log is closed")

// Options of a log; zero fields take their default.
type Options struct {
	SegmentBytes int64 // size at which a segment is full; default 4 MiB, at most 64 MiB
}

// Record is one entry of a log. Data belongs to whoever made the record: Append
// does not keep it, Read makes a new one.
type Record struct {
	Index uint64
	Kind  byte
	Data  []byte
}

// The most that can be appended at once, and the sizes that follow.
const (
	MaxBatch       = 64 << 20 // bytes of one Append, headers included
	maxSegment     = MaxBatch + maxSegmentFull + segmentHeader
	maxSegmentFull = 64 << 20
	defaultSegment = 4 << 20
)

// segment is a file of consecutive records. Its fields change only while
// Log.state is held for writing.
type segment struct {
	first   uint64
	offsets []uint32 // of each record in the file
	size    int64    // of what is known to be on the disk
}

// next is the index behind the last record.
func (s *segment) next() uint64 { return s.first + uint64(len(s.offsets)) }

// Log is an open log.
type Log struct {
	files Files
	full  int64

	writing sync.Mutex // held by what changes the log, over the disk's work
	active  File       // the last segment, open for appending; nil: to be opened
	suspect bool       // the list on the disk may not be the one in memory

	state    sync.RWMutex // held for moments only
	first    uint64       // the first index that counts
	segments []*segment
	closed   bool
}

// Open opens the log in a folder, or makes an empty one that begins at index 1. A
// *DamageError means that what is there is not what was written, and that nothing
// was changed.
func Open(files Files, o Options) (*Log, error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegment
	}
	if o.SegmentBytes < 1 || o.SegmentBytes > maxSegmentFull {
		return nil, fmt.Errorf("wal: segments of %d bytes: 1 to %d are possible", o.SegmentBytes, maxSegmentFull)
	}
	found, err := examine(files, nil)
	if err != nil {
		return nil, err
	}
	if len(found.damage) > 0 {
		return nil, &DamageError{Damages: found.damage}
	}
	l := &Log{files: files, full: o.SegmentBytes, first: found.list.first, segments: found.segments}
	if found.fresh {
		if err := l.writeList(l.first, nil); err != nil {
			return nil, err
		}
	}
	for _, name := range found.stray { // of what did not finish; nothing in them counts
		if err := files.Remove(name); err != nil {
			return nil, fmt.Errorf("wal: remove %s, which a crash left: %w", name, err)
		}
	}
	if err := l.heal(); err != nil {
		return nil, err
	}
	return l, l.settle(found.tail)
}

// settle makes sure that what Open has seen is on the disk: the process that wrote
// the end of the last segment may have died before it was synced, or been told that
// it could not be, which the system tells once. from is where its last batch begins.
func (l *Log) settle(from int64) error {
	s := l.last()
	if s == nil || from == s.size {
		return nil
	}
	tail := make([]byte, s.size-from)
	_, err := l.active.ReadAt(tail, from)
	if err == nil {
		err = l.write(tail, from)
	}
	if err != nil {
		return fmt.Errorf("wal: make the end of %s durable: %w", segmentName(s.first), err)
	}
	return nil
}

// First is the index of the first record; Last+1 when there is none.
func (l *Log) First() uint64 {
	l.state.RLock()
	defer l.state.RUnlock()
	return l.first
}

// Last is the index of the last record; First−1 when there is none.
func (l *Log) Last() uint64 {
	l.state.RLock()
	defer l.state.RUnlock()
	return l.next() - 1
}

// next is the index of the record that is appended next. The state is held.
func (l *Log) next() uint64 {
	if n := len(l.segments); n > 0 {
		return l.segments[n-1].next()
	}
	return l.first
}

// Read returns a record. ErrNotFound: the log does not hold it, or has forgotten it
// by now; *DamageError: it is not what was appended.
func (l *Log) Read(index uint64) (Record, error) {
	var found Record
	err := l.Range(index, index, func(r Record) error { found = r; return nil })
	return found, err
}

// Range calls do for the records from first to last, both included, ascending. It
// stops at an error, do's own included. Errors are as of Read.
func (l *Log) Range(first, last uint64, do func(Record) error) error {
	for first <= last {
		s, err := l.holding(first)
		if err != nil {
			return err
		}
		if first, err = l.readSegment(s, first, last, do); err != nil {
			return err
		}
	}
	return nil
}

// holding is a copy of the segment that holds a record.
func (l *Log) holding(index uint64) (segment, error) {
	l.state.RLock()
	defer l.state.RUnlock()
	if l.closed {
		return segment{}, ErrClosed
	}
	if index < l.first || index >= l.next() {
		return segment{}, fmt.Errorf("wal: record %d: %w (the log holds %d to %d)", index, ErrNotFound, l.first, l.next()-1)
	}
	i := len(l.segments) - 1
	for l.segments[i].first > index {
		i--
	}
	return *l.segments[i], nil
}

// readSegment reads records of one segment, from first on, and returns the index
// behind the last one read.
func (l *Log) readSegment(s segment, first, last uint64, do func(Record) error) (uint64, error) {
	name := segmentName(s.first)
	f, err := l.files.Open(name)
	if err != nil {
		if first < l.First() { // it was forgotten meanwhile
			return 0, fmt.Errorf("wal: record %d: %w", first, ErrNotFound)
		}
		return 0, fmt.Errorf("wal: read %s: %w", name, err)
	}
	defer f.Close()
	for ; first <= last && first < s.next(); first++ {
		at := int64(s.offsets[first-s.first])
		end := s.size
		if i := int(first-s.first) + 1; i < len(s.offsets) {
			end = int64(s.offsets[i])
		}
		raw := make([]byte, end-at)
		if _, err := f.ReadAt(raw, at); err != nil {
			return 0, fmt.Errorf("wal: read record %d at byte %d of %s: %w", first, at, name, err)
		}
		r, _, n, verdict := decode(raw)
		if verdict != intact || n != len(raw) || r.Index != first {
			return 0, &DamageError{Damages: []Damage{{File: name, Offset: at, From: first, To: first, What: "the record is not what was written"}}}
		}
		if err := do(r); err != nil {
			return 0, err
		}
	}
	return first, nil
}

// Close closes the log. What was appended is safe already.
func (l *Log) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.state.Lock()
	l.closed = true
	l.state.Unlock()
	return l.closeActive()
}

func (l *Log) closeActive() error {
	if l.active == nil {
		return nil
	}
	f := l.active
	l.active = nil
	return f.Close()
}
