package wal

import (
	"bytes"
	"encoding/binary"
)

// walker reads the records of one segment.
type walker struct {
	found *found
	s     *segment
	raw   []byte
	until uint64 // index that must follow its last record; 0: it is the last segment
	emit  func(Record) error

	pending []Record // of the batch in hand
	start   int      // its place in raw
	batch   uint64   // its first index
	whole   bool     // its last record is there
	held    bool     // behind a damage: there is nothing to open any more
}

// walk reads to the end, over damage where there is any.
func (w *walker) walk() error {
	w.header()
	next, at := w.s.first, min(segmentHeader, len(w.raw))
	for at < len(w.raw) {
		r, p, size, v := decode(w.raw[at:])
		begins := p.batch == r.Index
		if v == intact && (r.Index != next || !begins && (p.batch != w.batch || w.whole)) {
			v = mangled // intact in itself, in the wrong place
		}
		if v != intact {
			behind := w.behind(at+1, next)
			if w.unfinished(at, next, behind, v) {
				break
			}
			if err := w.skip(at, next, behind, v); err != nil || behind.at < 0 {
				return err
			}
			at, next = behind.at, behind.index
			continue
		}
		if begins {
			if err := w.flush(); err != nil {
				return err
			}
			w.batch, w.start = r.Index, at
		}
		w.whole = p.last
		w.pending = append(w.pending, r)
		at, next = at+size, next+1
		if !w.held {
			w.s.offsets = append(w.s.offsets, uint32(at-size))
			w.s.size = int64(at)
		}
	}
	if w.until == 0 && !w.held {
		w.cut()
		return w.flush()
	}
	if next != w.until && w.until > 0 {
		w.damaged(len(w.raw), next, w.until-1, "the segment ends early")
	}
	return w.flush()
}

func (w *walker) damaged(at int, from, to uint64, what string) {
	w.held = true
	w.found.damaged(Damage{File: segmentName(w.s.first), Offset: int64(at), From: from, To: to, What: what})
}

// header checks the segment's own.
func (w *walker) header() {
	if len(w.raw) >= segmentHeader && bytes.Equal(w.raw[:segmentHeader], encodeSegment(w.s.first)) {
		return
	}
	what := "its header is not what was written"
	if len(w.raw) >= 12 && bytes.Equal(w.raw[:8], segmentMagic[:]) && binary.LittleEndian.Uint32(w.raw[8:]) > version {
		what = "it is damaged, or a later build of mochi wrote it"
	}
	w.damaged(0, w.s.first, max(w.until, 1)-1, what)
}

// rest is what is intact behind a place that is not.
type rest struct {
	at    int    // of the first record; −1: there is none
	index uint64 // of it
	batch uint64 // first index of the last batch of which there is anything
}

// behind looks for intact records from a place on, of indexes above after.
func (w *walker) behind(from int, after uint64) rest {
	found := rest{at: -1}
	for at := from; at+recordHeader < len(w.raw); {
		if w.raw[at] != recordMagic {
			at++
			continue
		}
		r, p, size, v := decode(w.raw[at:])
		if v != intact || r.Index <= after || w.until > 0 && r.Index >= w.until || p.batch > r.Index {
			at++
			continue
		}
		if found.at < 0 {
			found.at, found.index = at, r.Index
		}
		found.batch = p.batch
		after, at = r.Index, at+size
	}
	return found
}

// unfinished says whether what is at a place can be the part of a batch that a crash
// left: it is behind all others, and bytes are missing or were never written.
func (w *walker) unfinished(at int, next uint64, behind rest, v verdict) bool {
	if w.until > 0 || w.held {
		return false
	}
	batch := next // the place begins one
	if len(w.pending) > 0 && !w.whole {
		batch = w.batch
	}
	if behind.at < 0 {
		return v == short || unwritten(w.raw, at)
	}
	return behind.batch == batch && unwritten(w.raw[:behind.at], at)
}

// unwritten says whether a sector of b, or the part of one that is behind at, is
// zeros. No record ends so, and none begins so.
func unwritten(b []byte, at int) bool {
	for at < len(b) {
		end := min(len(b), (at/sector+1)*sector)
		if bytes.Count(b[at:end], []byte{0}) == end-at {
			return true
		}
		at = end
	}
	return false
}

// skip notes a damage and goes on behind it.
func (w *walker) skip(at int, next uint64, behind rest, v verdict) error {
	if err := w.flush(); err != nil {
		return err
	}
	if behind.at < 0 {
		w.damaged(at, next, max(w.until, 1)-1, words(v))
		return nil
	}
	w.damaged(at, next, behind.index-1, words(v))
	if _, p, _, _ := decode(w.raw[behind.at:]); p.batch != behind.index { // in the middle of a batch
		w.batch, w.whole = p.batch, false
	}
	return nil
}

func words(v verdict) string {
	switch v {
	case short:
		return "the file ends within a record"
	case mistaken:
		return "the record is not what was written"
	}
	return "there is no record at this place"
}

// cut takes a batch that is not whole off the end.
func (w *walker) cut() {
	if n := len(w.pending); n > 0 && !w.whole {
		w.s.offsets = w.s.offsets[:len(w.s.offsets)-n]
		w.s.size = int64(w.start)
		w.pending = nil
	}
	w.found.tail = int64(w.start)
}

// flush passes the batch in hand on.
func (w *walker) flush() error {
	for _, r := range w.pending {
		if err := w.emit(r); err != nil {
			return err
		}
	}
	w.pending = nil
	return nil
}
