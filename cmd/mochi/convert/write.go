package convert

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"mochi/model/exchange"
)

// WriteFile writes a file that is whole or not there: what stood at path before
// stays until the new one is on the disk.
func WriteFile(path string, write func(f *os.File) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*-"+filepath.Base(path))
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(filepath.Dir(path))
}

// writeFolder makes a folder that holds all files or is not there.
func writeFolder(path string, files []exchange.NamedFile) (err error) {
	path = filepath.Clean(path)
	defer func() {
		if err != nil {
			err = fmt.Errorf("write the folder %s: %w", path, err)
		}
	}()
	if entries, err := os.ReadDir(path); err == nil && len(entries) > 0 {
		return errors.New("it is there and not empty: choose another, or remove it")
	}
	temp, err := os.MkdirTemp(filepath.Dir(path), ".tmp-*-"+filepath.Base(path))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp))
		}
	}()
	for _, f := range files {
		if err := WriteFile(filepath.Join(temp, f.Name), func(w *os.File) error {
			_, err := w.Write(f.Content)
			return err
		}); err != nil {
			return err
		}
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil { // over an empty folder, too
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
