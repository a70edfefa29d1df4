package wal

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Files is a folder of files. Dir is one of the system's; package waltest has one
// in memory whose disk fails on request. An error for a name that is not there wraps
// fs.ErrNotExist.
type Files interface {
	List() ([]string, error)
	Open(name string) (File, error)   // for reading and writing; it must be there
	Create(name string) (File, error) // empty, whatever was there
	Rename(from, to string) error     // over what is there
	Remove(name string) error         // no error when it is not there
	SyncDir() error                   // what was created, renamed and removed is on the disk
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error // what was written is on the disk
	Size() (int64, error)
}

// Dir is the folder of that path. It is made when it is not there.
func Dir(path string) Files { return folder(path) }

type folder string

func (d folder) path(name string) string { return filepath.Join(string(d), name) }

func (d folder) List() ([]string, error) {
	if _, err := os.Stat(string(d)); errors.Is(err, fs.ErrNotExist) {
		if err := d.make(); err != nil {
			return nil, err
		}
	}
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// make makes the folder; its entry is on the disk then.
func (d folder) make() error {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return err
	}
	return folder(filepath.Dir(filepath.Clean(string(d)))).SyncDir()
}

func (d folder) Open(name string) (File, error) {
	return opened(os.OpenFile(d.path(name), os.O_RDWR, 0))
}

func (d folder) Create(name string) (File, error) {
	return opened(os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644))
}

func opened(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err // no *os.File in the interface
	}
	return osFile{f}, nil
}

func (d folder) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d folder) Remove(name string) error {
	if err := os.Remove(d.path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d folder) SyncDir() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	err = f.Sync()
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
