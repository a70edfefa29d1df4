package library

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Cache keeps what was compiled in a folder, by source and target. A file is
// whole or not there, however many processes write it: it is written beside
// its place, synced and renamed. Its last 32 bytes are the digest of the rest,
// so that a damaged file is compiled again instead of loaded.
type Cache struct{ Folder string }

// UserCache is the user's folder for such things, $XDG_CACHE_HOME/mochi/kernels.
func UserCache() (Cache, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return Cache{}, fmt.Errorf("a folder for compiled kernels: %w", err)
	}
	return Cache{filepath.Join(dir, "mochi", "kernels")}, nil
}

// Get returns the program for a key, compiled now or before. A folder that
// cannot be written costs time, not the run: note says so then.
func (c Cache) Get(key string, compile func() ([]byte, error)) (image []byte, note, err error) {
	path := filepath.Join(c.Folder, name(key))
	kept, err := os.ReadFile(path)
	if err == nil {
		if image, ok := unseal(kept); ok {
			return image, nil, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		note = fmt.Errorf("read a compiled kernel: %w", err)
	}
	image, err = compile()
	if err != nil {
		return nil, note, err
	}
	if err := c.put(path, image); err != nil {
		note = fmt.Errorf("keep a compiled kernel, which will be compiled again next time: %w", err)
	}
	return image, note, nil
}

func name(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16]) + ".bin"
}

func unseal(kept []byte) (image []byte, ok bool) {
	n := len(kept) - sha256.Size
	if n <= 0 {
		return nil, false
	}
	sum := sha256.Sum256(kept[:n])
	return kept[:n:n], string(sum[:]) == string(kept[n:])
}

func (c Cache) put(path string, image []byte) (err error) {
	if err := os.MkdirAll(c.Folder, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(c.Folder, "new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	sum := sha256.Sum256(image)
	if _, err = f.Write(append(image[:len(image):len(image)], sum[:]...)); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
