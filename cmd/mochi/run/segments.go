package run

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// segment is a part of a copied file that nothing changes any more.
type segment struct {
	path   string
	before int64 // lines in those before it
	counted
}

// counted is what is remembered of a segment, so that a start need not read it.
type counted struct {
	Lines int64 `json:"lines"`
	Size  int64 `json:"size"`
	Last  int64 `json:"last"` // highest step in it
}

// countsName is the file that has them, by name of the segment.
const countsName = "lines.json"

// openSegments finds the segments of a file and counts their lines.
func (f *copied) openSegments() error {
	paths, err := segmentsOf(f.path)
	if err != nil || len(paths) == 0 {
		return err
	}
	known := f.counts()
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		c, ok := known[filepath.Base(path)]
		if !ok || c.Size != info.Size() {
			if c, err = count(path); err != nil {
				return err
			}
		}
		f.add(path, c)
	}
	return f.saveCounts()
}

func (f *copied) add(path string, c counted) {
	f.segments = append(f.segments, segment{path, f.before, c})
	f.before, f.last = f.before+c.Lines, max(f.last, c.Last)
}

// counts are those of the last start; none when they cannot be read: they are counted
// again then.
func (f *copied) counts() map[string]counted {
	known := map[string]counted{}
	text, err := os.ReadFile(f.countsPath())
	if err != nil || json.Unmarshal(text, &known) != nil {
		return nil
	}
	return known
}

func (f *copied) countsPath() string {
	return filepath.Join(Group(filepath.Dir(f.path)), filepath.Base(f.path)+"."+countsName)
}

// saveCounts remembers what is counted. Where there is no folder for it yet, the next
// start counts again.
func (f *copied) saveCounts() error {
	known := map[string]counted{}
	for _, s := range f.segments {
		known[filepath.Base(s.path)] = s.counted
	}
	text, err := json.Marshal(known)
	if err == nil {
		err = WriteFile(f.countsPath(), text)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// count reads a segment.
func count(path string) (counted, error) {
	file, err := os.Open(path)
	if err != nil {
		return counted{}, err
	}
	defer file.Close()
	f := copied{file: file}
	damaged, err := f.scan()
	if err == nil {
		var size int64
		if size, err = file.Seek(0, io.SeekEnd); err == nil && (damaged || size != f.size) {
			err = fmt.Errorf("%s: line %d is damaged: move the run folder of this coordinator aside, and it is filled from the others", path, f.count+1)
		}
	}
	return counted{f.count, f.size, f.last}, err
}

// turn makes the file a segment and begins it anew. What it has is on the disk before.
func (f *copied) turn() error {
	if err := f.file.Sync(); err != nil {
		return err
	}
	paths, err := segmentsOf(f.path)
	if err != nil {
		return err
	}
	to := segmentName(f.path, nextNumber(f.path, paths))
	if err := os.Rename(f.path, to); err != nil {
		return err
	}
	next, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return errors.Join(err, os.Rename(to, f.path))
	}
	_ = syncFolder(f.path) // without it a power cut may bring back the old names, with all lines
	_ = f.file.Close()     // it is on the disk
	f.add(to, counted{f.count, f.size, f.last})
	f.file, f.size, f.count, f.marks = next, 0, 0, nil
	return f.saveCounts()
}

// holds is the segment that has a line.
func (f *copied) holds(n int64) segment {
	for _, s := range f.segments {
		if n <= s.before+s.Lines {
			return s
		}
	}
	return f.segments[len(f.segments)-1]
}

// read returns lines of a segment from the nth of the whole file on.
func (s segment) read(n int64, bytes int) ([][]byte, error) {
	file, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readFrom(bufio.NewReader(file), n-s.before-1, bytes)
}
