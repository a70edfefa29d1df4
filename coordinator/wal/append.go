package wal

import (
	"fmt"
	"slices"
)

// Append writes records behind the last one as one batch and returns when they are
// on the disk. Their indexes follow Last. After an error none of them is in the log
// of this process, and Append may be called again; a process that opens the log
// later may find them all the same.
func (l *Log) Append(records ...Record) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	batch, offsets, err := l.encode(records)
	if err != nil || len(records) == 0 {
		return err
	}
	if l.active == nil {
		if err := l.heal(); err != nil {
			return err
		}
	}
	if s := l.last(); s == nil || s.size >= l.full {
		if err := l.roll(records[0].Index); err != nil {
			return err
		}
	}
	s := l.last()
	for i := range offsets {
		offsets[i] += uint32(s.size)
	}
	if err := l.write(batch, s.size); err != nil {
		_ = l.closeActive() // whatever it holds is not built upon
		return fmt.Errorf("wal: append record %d to %s: %w", records[0].Index, segmentName(s.first), err)
	}
	l.state.Lock()
	s.offsets = append(s.offsets, offsets...)
	s.size += int64(len(batch))
	l.state.Unlock()
	return nil
}

func (l *Log) write(batch []byte, at int64) error {
	if _, err := l.active.WriteAt(batch, at); err != nil {
		return err
	}
	return l.active.Sync()
}

// encode makes the bytes of a batch and the place of each record in it.
func (l *Log) encode(records []Record) (batch []byte, offsets []uint32, err error) {
	l.state.RLock()
	next, closed := l.next(), l.closed
	l.state.RUnlock()
	if closed {
		return nil, nil, ErrClosed
	}
	size := 0
	for i, r := range records {
		if r.Index != next+uint64(i) {
			return nil, nil, fmt.Errorf("wal: record %d cannot follow record %d", r.Index, next+uint64(i)-1)
		}
		if size += recordSize(len(r.Data)); len(r.Data) > MaxBatch || size > MaxBatch {
			return nil, nil, fmt.Errorf("wal: records from %d on have more than %d bytes: append less at once", records[0].Index, MaxBatch)
		}
	}
	batch = make([]byte, 0, size)
	for i, r := range records {
		offsets = append(offsets, uint32(len(batch)))
		batch = encode(batch, r, place{batch: next, last: i == len(records)-1})
	}
	return batch, offsets, nil
}

// last is the segment that records are appended to, nil when there is none yet.
func (l *Log) last() *segment {
	if len(l.segments) == 0 {
		return nil
	}
	return l.segments[len(l.segments)-1]
}

// heal opens the last segment for appending, without what a crash or an attempt
// that failed may have left behind its records, and writes the list if that on the
// disk may be another.
func (l *Log) heal() error {
	if l.suspect {
		if err := l.writeList(l.first, l.segments); err != nil {
			return err
		}
	}
	if err := l.files.SyncDir(); err != nil { // a rename may have been seen by processes only
		return fmt.Errorf("wal: sync the folder: %w", err)
	}
	s := l.last()
	if s == nil {
		return nil
	}
	name := segmentName(s.first)
	f, err := l.files.Open(name)
	if err != nil {
		return fmt.Errorf("wal: open %s for appending: %w", name, err)
	}
	size, err := f.Size()
	if err == nil && size < s.size {
		err = fmt.Errorf("it has %d bytes, of %d that were written: the disk has lost some", size, s.size)
	}
	if err == nil && size > s.size {
		if err = f.Truncate(s.size); err == nil {
			err = f.Sync()
		}
	}
	if err != nil {
		f.Close() // the first error counts
		return fmt.Errorf("wal: open %s for appending: %w", name, err)
	}
	l.active = f
	return nil
}

// roll begins a segment at the index first.
func (l *Log) roll(first uint64) error {
	name := segmentName(first)
	if err := Replace(l.files, name, encodeSegment(first)); err != nil {
		return fmt.Errorf("wal: begin %s: %w", name, err)
	}
	grown := append(slices.Clone(l.segments), &segment{first: first, size: segmentHeader})
	if err := l.writeList(l.first, grown); err != nil {
		return err
	}
	f, err := l.files.Open(name)
	_ = l.closeActive() // synced already, and read through handles of its own
	l.set(l.first, grown)
	if err != nil {
		return fmt.Errorf("wal: open %s for appending: %w", name, err)
	}
	l.active = f
	return nil
}

// set changes what readers see.
func (l *Log) set(first uint64, segments []*segment) {
	l.state.Lock()
	l.first, l.segments = first, segments
	l.state.Unlock()
}

// writeList makes a list the one on the disk. After an error either may be there:
// the next change writes it again.
func (l *Log) writeList(first uint64, segments []*segment) error {
	list := list{first: first}
	for _, s := range segments {
		list.segments = append(list.segments, s.first)
	}
	l.suspect = true
	if err := Replace(l.files, listName, list.encode()); err != nil {
		_ = l.closeActive() // so that the next Append comes by heal
		return fmt.Errorf("wal: write the list of segments: %w", err)
	}
	l.suspect = false
	return nil
}

// Replace writes a file as a whole or not at all.
func Replace(files Files, name string, content []byte) error {
	f, err := files.Create(name + temporary)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = files.Rename(name+temporary, name)
	}
	if err == nil {
		err = files.SyncDir()
	}
	return err
}

// TruncateFront forgets the records before first: First is first afterwards. Files
// go when no record of theirs counts any more. An index before First is nothing to
// do; one behind Last+1 an error (see Reset).
func (l *Log) TruncateFront(first uint64) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if first <= l.first {
		return l.usable()
	}
	if next := l.next(); first > next {
		return fmt.Errorf("wal: forget records before %d: the last one is %d", first, next-1)
	}
	keep := slices.IndexFunc(l.segments, func(s *segment) bool { return s.next() > first })
	if keep < 0 {
		keep = len(l.segments) // what is appended next begins a segment
	}
	return l.drop(first, l.segments[keep:], l.segments[:keep])
}

// TruncateBack takes back the records behind last: Last is last afterwards. An index
// from Last on is nothing to do; one before First−1 an error. A crash on the way may
// have taken back a part of them, the latest first.
func (l *Log) TruncateBack(last uint64) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if last+1 < l.first {
		return fmt.Errorf("wal: take back records behind %d: the first one is %d", last, l.first)
	}
	if last >= l.next()-1 {
		return l.usable()
	}
	keep := 0
	for keep < len(l.segments) && l.segments[keep].first <= last {
		keep++
	}
	if err := l.drop(l.first, l.segments[:keep], l.segments[keep:]); err != nil {
		return err
	}
	if s := l.last(); s != nil && s.next() > last+1 {
		return l.shorten(s, last)
	}
	return nil
}

// shorten replaces a segment by one that ends with the record last, which then ends
// its batch.
func (l *Log) shorten(s *segment, last uint64) error {
	name := segmentName(s.first)
	raw, err := readAll(l.files, name, maxSegment)
	if err != nil {
		return fmt.Errorf("wal: shorten %s: %w", name, err)
	}
	at, end := s.offsets[last-s.first], s.offsets[last+1-s.first]
	if int64(len(raw)) < int64(end) {
		return fmt.Errorf("wal: shorten %s: it has %d bytes, of %d that were written", name, len(raw), s.size)
	}
	r, p, _, v := decode(raw[at:end])
	if v != intact {
		return &DamageError{Damages: []Damage{{File: name, Offset: int64(at), From: last, To: last, What: words(v)}}}
	}
	p.last = true
	if err := Replace(l.files, name, encode(raw[:at:at], r, p)); err != nil {
		return fmt.Errorf("wal: shorten %s: %w", name, err)
	}
	l.state.Lock()
	s.size, s.offsets = int64(end), slices.Clone(s.offsets[:last+1-s.first]) // a reader may hold the longer one
	l.state.Unlock()
	return nil
}

// Reset forgets all records; the next one has the index next.
func (l *Log) Reset(next uint64) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if next < 1 {
		return fmt.Errorf("wal: indexes begin at 1, not %d", next)
	}
	return l.drop(next, nil, l.segments)
}

func (l *Log) usable() error {
	if l.closed {
		return ErrClosed
	}
	return nil
}

// drop makes kept the segments of the log, and removes those dropped.
func (l *Log) drop(first uint64, kept, dropped []*segment) error {
	if err := l.usable(); err != nil {
		return err
	}
	if err := l.writeList(first, kept); err != nil {
		return err
	}
	_ = l.closeActive() // Append opens what is the last one then
	l.set(first, slices.Clone(kept))
	for _, s := range dropped {
		if err := l.files.Remove(segmentName(s.first)); err != nil {
			return fmt.Errorf("wal: remove %s: %w (its records are forgotten)", segmentName(s.first), err)
		}
	}
	return nil
}
