package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
)

// lineFile is a JSON-lines file open for appending.
type lineFile struct {
	file    *os.File
	last    int64    // highest step in it, or about to be
	size    int64    // of the whole lines in it
	pending [][]byte // lines that could not be written yet
}

// write writes a line behind those that could not be written before: after a full disk
// none is missing, none is there twice, and none is cut short.
func (f *lineFile) write(line []byte) error {
	f.pending = append(f.pending, append(line, '\n'))
	return f.flush()
}

func (f *lineFile) flush() error {
	for len(f.pending) > 0 {
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

// openLines opens a JSON-lines file, without the lines of steps above cut and
// without a last line cut short by a crash.
func openLines(path string, cut int64) (*lineFile, error) {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f := &lineFile{}
	var keep bytes.Buffer
	for line := range bytes.Lines(old) {
		var at struct {
			Step  int64  `json:"step"`
			Event string `json:"event"`
		}
		if json.Unmarshal(line, &at) != nil || !bytes.HasSuffix(line, []byte("\n")) || cut >= 0 && at.Step > cut {
			continue
		}
		keep.Write(line)
		if at.Event == "" {
			f.last = max(f.last, at.Step)
		}
	}
	if err := WriteFile(path, keep.Bytes()); err != nil {
		return nil, err
	}
	f.size = int64(keep.Len())
	f.file, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o644)
	return f, err
}
