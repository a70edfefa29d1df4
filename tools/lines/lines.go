// Package lines reads a JSON-lines file of a run with its segments: the lines that
// the program put aside when the file had grown large, as NAME.000001.jsonl and so on
// beside NAME.jsonl.
package lines

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Open opens all of them, in the order in which they were written, as one file. The
// file may be written to meanwhile, and become a segment.
func Open(path string) (io.ReadCloser, error) {
	for {
		names, err := list(path)
		if err != nil {
			return nil, err
		}
		all := &files{}
		for _, name := range append(names, path) {
			f, err := os.Open(name)
			if err != nil {
				return nil, errors.Join(err, all.Close())
			}
			all.open = append(all.open, f)
		}
		again, err := list(path)
		if err != nil {
			return nil, errors.Join(err, all.Close())
		}
		if !slices.Equal(names, again) { // what was the file may be missing
			if err := all.Close(); err != nil {
				return nil, err
			}
			continue
		}
		readers := make([]io.Reader, len(all.open))
		for i, f := range all.open {
			readers[i] = f
		}
		all.Reader = io.MultiReader(readers...)
		return all, nil
	}
}

// list are the segments of a file, the oldest first.
func list(path string) ([]string, error) {
	return filepath.Glob(strings.TrimSuffix(path, ".jsonl") + ".[0-9][0-9][0-9][0-9][0-9][0-9].jsonl") // by name
}

type files struct {
	io.Reader
	open []*os.File
}

// Close closes all of them.
func (f *files) Close() error {
	var err error
	for _, o := range f.open {
		err = errors.Join(err, o.Close())
	}
	return err
}
