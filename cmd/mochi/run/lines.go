package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// segmentBytes is how large a JSON-lines file grows before its lines are put aside and
// it begins anew. What a start reads is bounded by it.
const segmentBytes = 32 << 20

// lineFile is a JSON-lines file open for appending. When it is full it becomes the next
// of its segments, NAME.000001.jsonl and so on, which nothing changes any more; they and
// the file, in the order of their names, have all lines.
type lineFile struct {
	path    string
	full    int64 // size from which on it becomes a segment
	file    *os.File
	last    int64      // highest step in it or a segment, or about to be
	size    int64      // of the whole lines in it
	pending [][]byte   // lines that could not be written yet
	syncing chan error // answers when what it had is on the disk; nil: nobody has asked
}

// write writes a line behind those that could not be written before: after a full disk
// none is missing, none is there twice, and none is cut short.
func (f *lineFile) write(line []byte) error {
	f.pending = append(f.pending, append(line, '\n'))
	return f.flush()
}

func (f *lineFile) flush() error {
	for len(f.pending) > 0 {
		if f.size >= f.full {
			f.turn()
		}
		n, err := f.file.Write(f.pending[0])
		if err != nil {
			if n > 0 {
				err = errors.Join(err, f.file.Truncate(f.size)) // a part of the line
			}
			return err
		}
		f.size += int64(n)
		f.pending = f.pending[1:]
	}
	return nil
}

// turn makes the file a segment and begins it anew. All of it must be on the disk
// before, or a power cut could take lines from the middle; nobody waits for most of that.
// When it does not succeed the file grows on, and the next line tries again.
func (f *lineFile) turn() {
	if f.syncing == nil {
		file, done := f.file, make(chan error, 1)
		f.syncing = done
		go func() { done <- file.Sync() }()
		return
	}
	select {
	case err := <-f.syncing:
		f.syncing = nil
		if err != nil || f.file.Sync() != nil { // the lines since it was asked
			return
		}
	default:
		return
	}
	segments, err := segmentsOf(f.path)
	if err != nil {
		return
	}
	next, err := os.OpenFile(f.path+".next", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	to := segmentName(f.path, nextNumber(f.path, segments))
	if err = os.Rename(f.path, to); err == nil {
		if err = os.Rename(next.Name(), f.path); err != nil {
			err = errors.Join(err, os.Rename(to, f.path))
		}
	}
	if err != nil {
		_ = next.Close() // nothing was written to it
		return
	}
	_ = syncFolder(f.path) // without it a power cut may bring back the old names, with all lines
	_ = f.file.Close()     // it is on the disk
	f.file, f.size = next, 0
}

// segmentName is that of the nth segment.
func segmentName(path string, n int) string {
	return fmt.Sprintf("%s.%06d.jsonl", strings.TrimSuffix(path, ".jsonl"), n)
}

// segmentsOf are the segments of a file, the oldest first.
func segmentsOf(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries { // by name
		if n := numberOf(path, e.Name()); n > 0 {
			list = append(list, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return list, nil
}

// numberOf is the number of a segment by its name, 0 when it is none.
func numberOf(path, name string) int {
	base := strings.TrimSuffix(filepath.Base(path), ".jsonl")
	var n int
	if _, err := fmt.Sscanf(strings.TrimPrefix(name, base), ".%06d.jsonl", &n); err != nil || filepath.Base(segmentName(path, n)) != name {
		return 0
	}
	return n
}

func nextNumber(path string, segments []string) int {
	if len(segments) == 0 {
		return 1
	}
	return numberOf(path, filepath.Base(segments[len(segments)-1])) + 1
}

// syncFolder makes the names in a file's folder durable.
func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// openLines opens a JSON-lines file, without the lines of steps above cut, which are
// taken out of its segments too, and without a last line cut short by a crash. It reads
// segments only as far as it must: back to the last step.
func openLines(path string, cut int64) (*lineFile, error) {
	f := &lineFile{path: path, full: segmentBytes}
	if err := os.Remove(path + ".next"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	keep, dropped, last, err := readLines(path, cut)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = WriteFile(path, nil)
	case err == nil && dropped:
		err = keepLines(path, keep)
	}
	if err != nil {
		return nil, err
	}
	f.last, f.size = last, int64(len(keep))
	segments, err := segmentsOf(path)
	if err != nil {
		return nil, err
	}
	for _, segment := range slices.Backward(segments) {
		if f.last > 0 && !dropped {
			break
		}
		if keep, dropped, last, err = readLines(segment, cut); err != nil {
			return nil, err
		}
		switch {
		case dropped && len(keep) == 0:
			err = os.Remove(segment)
		case dropped:
			err = keepLines(segment, keep)
		}
		if err != nil {
			return nil, err
		}
		f.last = max(f.last, last)
		dropped = dropped || cut >= 0 && last == 0 // events alone: what is before may be above the cut
	}
	f.file, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o644)
	return f, err
}

// keepLines makes a file's lines those that are kept of it. An end that was cut short is
// cut off, which needs no room on the disk.
func keepLines(path string, keep []byte) error {
	all, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(all, keep) {
		return os.Truncate(path, int64(len(keep)))
	}
	return WriteFile(path, keep)
}

// readLines reads the whole lines of a file of steps up to cut (−1: of all), and says
// whether others were there, and the highest step.
func readLines(path string, cut int64) (keep []byte, dropped bool, last int64, err error) {
	all, err := os.ReadFile(path)
	if err != nil {
		return nil, false, 0, err
	}
	keep = make([]byte, 0, len(all))
	for line := range bytes.Lines(all) {
		var at struct {
			Step  int64  `json:"step"`
			Event string `json:"event"`
		}
		if json.Unmarshal(line, &at) != nil || !bytes.HasSuffix(line, []byte("\n")) || cut >= 0 && at.Step > cut {
			continue
		}
		keep = append(keep, line...)
		if at.Event == "" {
			last = max(last, at.Step)
		}
	}
	return keep, len(keep) < len(all), last, nil
}
