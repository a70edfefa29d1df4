package shards

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// maxOpen is how many shards Files keeps open.
const maxOpen = 32

// Files reads from shards at random and keeps few of them open: the ones used
// last. It is safe for concurrent use. Files that were dropped are closed when
// their last read ends; the others with the process.
type Files struct {
	paths []string
	files []string // that are read
	sizes []int64
	from  []io.ReaderAt // nil: a file

	mu   sync.Mutex
	open map[int]*openFile
	tick int64
}

type openFile struct {
	*os.File
	used    int64 // tick
	readers int
	dropped bool
}

// NewFiles prepares to read from the given shards; nothing is opened yet.
func NewFiles(shards []*Shard) *Files {
	f := &Files{open: make(map[int]*openFile)}
	for _, s := range shards {
		f.paths, f.files, f.sizes, f.from = append(f.paths, s.Path), append(f.files, s.File), append(f.sizes, s.Size), append(f.from, s.From)
	}
	return f
}

// From is where a shard is read from, nil where it is a file.
func (f *Files) From(shard int) io.ReaderAt { return f.from[shard] }

// Path is that of a shard.
func (f *Files) Path(shard int) string { return f.paths[shard] }

// FileError says that a shard as a whole cannot be read any more.
type FileError struct{ Err error }

func (e *FileError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// ReadAt fills b from a position of a shard. The error is a *FileError where
// the shard cannot be opened or is another than was scanned, ErrCut where it
// ends early. It is not for shards that are no files.
func (f *Files) ReadAt(shard int, b []byte, offset int64) error {
	file, err := f.take(shard)
	if err != nil {
		return err
	}
	defer f.give(file)
	n, err := file.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return ErrCut
	}
	return err
}

func (f *Files) take(shard int) (*openFile, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tick++
	file := f.open[shard]
	if file == nil {
		opened, err := os.Open(f.files[shard])
		if err != nil {
			return nil, &FileError{err}
		}
		info, err := opened.Stat()
		if err == nil && info.Size() != f.sizes[shard] {
			err = fmt.Errorf("the shard has changed: it had %d bytes and has %d", f.sizes[shard], info.Size())
		}
		if err != nil {
			opened.Close()
			return nil, &FileError{err}
		}
		if len(f.open) >= maxOpen {
			f.dropOldest()
		}
		file = &openFile{File: opened}
		f.open[shard] = file
	}
	file.used = f.tick
	file.readers++
	return file, nil
}

func (f *Files) give(file *openFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if file.readers--; file.readers == 0 && file.dropped {
		file.Close()
	}
}

func (f *Files) dropOldest() {
	oldest := -1
	for shard, file := range f.open {
		if oldest < 0 || file.used < f.open[oldest].used {
			oldest = shard
		}
	}
	file := f.open[oldest]
	delete(f.open, oldest)
	if file.dropped = true; file.readers == 0 {
		file.Close()
	}
}
