package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// mostDamages is how many places are told of one log.
const mostDamages = 100

// found is what examine sees in a folder.
type found struct {
	list     list
	fresh    bool // there is nothing yet
	segments []*segment
	tail     int64    // where the last batch begins in it
	stray    []string // files that do not count
	damage   []Damage
}

func (f *found) damaged(d Damage) {
	if len(f.damage) < mostDamages {
		f.damage = append(f.damage, d)
	}
}

// Salvage calls do for every record that can be read, ascending, whatever lies
// between, and says which are lost. Nothing is changed. The error is that of
// reading the files, or do's.
func Salvage(files Files, do func(Record) error) ([]Damage, error) {
	f, err := examine(files, do)
	if err != nil {
		return nil, err
	}
	return f.damage, nil
}

// Rebuild makes a log of these records in place of a damaged one, and opens it. Their
// indexes are given anew, behind all that the damaged one may have had. A crash leaves
// the damaged one or the new one. The files of the damaged one are lost.
func Rebuild(files Files, o Options, records []Record) (*Log, error) {
	f, err := examine(files, nil)
	if err != nil {
		return nil, err
	}
	next := f.list.first
	for _, s := range f.segments {
		next = max(next, s.next())
	}
	names, err := files.List()
	if err != nil {
		return nil, fmt.Errorf("wal: read the folder: %w", err)
	}
	for _, name := range names {
		if first, ok := firstOf(name); ok {
			next = max(next, first)
		}
	}
	next += 1 << 20 // more than what is damaged can have held: a segment
	made := list{first: next}
	for len(records) > 0 {
		made.segments = append(made.segments, next)
		content := encodeSegment(next)
		for len(records) > 0 && len(content) < defaultSegment {
			r := Record{Index: next, Kind: records[0].Kind, Data: records[0].Data}
			content = encode(content, r, place{batch: next, last: true})
			records, next = records[1:], next+1
		}
		name := segmentName(made.segments[len(made.segments)-1])
		if err := Replace(files, name, content); err != nil {
			return nil, fmt.Errorf("wal: write %s: %w", name, err)
		}
	}
	if err := Replace(files, listName, made.encode()); err != nil {
		return nil, fmt.Errorf("wal: write the list of segments: %w", err)
	}
	return Open(files, o)
}

// examine reads a folder; emit, if there is one, is called for every intact record
// that counts.
func examine(files Files, emit func(Record) error) (*found, error) {
	names, err := files.List()
	if err != nil {
		return nil, fmt.Errorf("wal: read the folder: %w", err)
	}
	f := &found{list: list{first: 1}}
	var there []uint64 // segments
	for _, name := range names {
		if first, ok := firstOf(name); ok {
			there = append(there, first)
		} else if strings.HasSuffix(name, temporary) {
			f.stray = append(f.stray, name)
		}
	}
	slices.Sort(there)
	switch raw, err := readAll(files, listName, 1<<24); {
	case errors.Is(err, fs.ErrNotExist) && len(there) == 0:
		f.fresh = true
		return f, nil
	case errors.Is(err, fs.ErrNotExist):
		f.list = list{first: there[0], segments: there}
		f.damaged(Damage{File: listName, From: there[0], What: "the list of segments is missing"})
	case err != nil:
		return nil, fmt.Errorf("wal: read the list of segments: %w", err)
	default:
		if f.list, err = decodeList(raw); err != nil {
			f.list = list{first: 1, segments: there}
			if len(there) > 0 {
				f.list.first = there[0]
			}
			f.damaged(Damage{File: listName, From: f.list.first, What: err.Error()})
		}
	}
	for _, first := range there {
		if !slices.Contains(f.list.segments, first) {
			f.stray = append(f.stray, segmentName(first))
		}
	}
	return f, f.readSegments(files, there, emit)
}

func (f *found) readSegments(files Files, there []uint64, emit func(Record) error) error {
	count := func(r Record) error {
		if emit == nil || r.Index < f.list.first {
			return nil
		}
		return emit(r)
	}
	for i, first := range f.list.segments {
		until := uint64(0) // index behind the segment; 0: it is the last one
		if i+1 < len(f.list.segments) {
			until = f.list.segments[i+1]
		}
		if i == 0 && first > f.list.first {
			f.damaged(Damage{File: segmentName(f.list.first), From: f.list.first, To: first - 1, What: "the segment is missing"})
		}
		s := &segment{first: first, size: segmentHeader}
		f.segments = append(f.segments, s)
		if !slices.Contains(there, first) {
			f.damaged(Damage{File: segmentName(first), From: first, To: max(until, 1) - 1, What: "the segment is missing"})
			continue
		}
		raw, err := readAll(files, segmentName(first), maxSegment)
		if errors.Is(err, errTooLong) {
			f.damaged(Damage{File: segmentName(first), From: first, To: max(until, 1) - 1, What: "it is longer than a segment can be"})
			continue
		}
		if err != nil {
			return fmt.Errorf("wal: read %s: %w", segmentName(first), err)
		}
		w := walker{found: f, s: s, raw: raw, until: until, emit: count, start: segmentHeader}
		if err := w.walk(); err != nil {
			return err
		}
	}
	if n := len(f.segments); n > 0 && f.segments[n-1].next() < f.list.first && len(f.damage) == 0 {
		s := f.segments[n-1]
		f.damaged(Damage{File: segmentName(s.first), Offset: s.size, From: s.next(), To: f.list.first - 1, What: "the records are missing"})
	}
	return nil
}

var errTooLong = errors.New("the file is too long")

// readAll reads a file of at most so many bytes.
func readAll(files Files, name string, most int64) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > most {
		return nil, errTooLong
	}
	b := make([]byte, size)
	if size == 0 {
		return b, nil
	}
	_, err = f.ReadAt(b, 0)
	return b, err
}
