package remote

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// sumLen is the length of what stands behind the bytes of every file of the cache:
// their SHA-256.
const sumLen = sha256.Size

// indexFile is the name of the index of a shard beside its blocks, whose names are
// numbers.
const indexFile = "index"

// cache is a folder of blocks of shards, and of their indexes:
//
//	lock              whoever counts, adds or takes away holds it; in it, how many bytes
//	                  are there
//	new/              files on their way
//	claims/           locks of those who index a shard
//	shards/K/N        block N of the shard K
//	shards/K/index    what is known of that shard
//
// Files are written beside, synced and renamed, so that none is half there, and each
// ends with its digest, so that what a disk has lost or changed is seen when it is read
// first. Processes may share the folder: a file that one takes away stays readable for
// another that has it open, and what is gone is fetched again. When it was used last is
// the time of a file.
type cache struct {
	folder string
	limit  int64
	began  time.Time

	mu   sync.Mutex // the lock's, within this process
	lock *os.File
}

// openCache opens the cache in a folder, which is made for its user alone. limit is how
// many bytes it may hold, 0 for nine tenths of what is free or its own.
func openCache(folder string, limit int64) (*cache, error) {
	if folder == "" {
		home, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("there is no place for a cache by itself (%w): name a folder with --cache-dir", err)
		}
		folder = filepath.Join(home, "mochi", "data")
	}
	c := &cache{folder: folder, limit: limit, began: time.Now()}
	for _, dir := range []string{folder, filepath.Join(folder, "new"), filepath.Join(folder, "claims"), filepath.Join(folder, "shards")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, c.fault(err)
		}
	}
	info, err := os.Stat(folder)
	if err != nil {
		return nil, c.fault(err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, c.fault(fmt.Errorf("others can write into it (mode %04o), and so change what is trained on: chmod 700 it, or name another folder", mode))
	}
	if c.lock, err = os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, c.fault(err)
	}
	if err := c.begin(); err != nil {
		c.lock.Close()
		return nil, c.fault(err)
	}
	return c, nil
}

// fault is an error of the cache's folder.
func (c *cache) fault(err error) error {
	return fmt.Errorf("the cache of data (--cache-dir %s): %w", c.folder, err)
}

// begin counts what is there, and takes away what a process that died left half
// written.
func (c *cache) begin() error {
	return c.locked(func() error {
		if left, err := os.ReadDir(filepath.Join(c.folder, "new")); err == nil {
			for _, e := range left {
				if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > time.Hour {
					_ = os.Remove(filepath.Join(c.folder, "new", e.Name()))
				}
			}
		}
		_, used, err := c.list()
		if err != nil {
			return err
		}
		if c.limit == 0 {
			var s unix.Statfs_t
			if err := unix.Statfs(c.folder, &s); err != nil {
				return fmt.Errorf("how much is free cannot be seen (%w): say --cache-bytes", err)
			}
			c.limit = (int64(s.Bavail)*s.Bsize + used) / 10 * 9
		}
		if used > c.limit {
			if used, err = c.evict(0, false); err != nil {
				return err
			}
		}
		return c.setUsed(used)
	})
}

// locked runs f while no other process, and nobody else here, counts.
func (c *cache) locked(f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		err := unix.Flock(int(c.lock.Fd()), unix.LOCK_EX)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock it: %w", err)
		}
	}
	defer func() { _ = unix.Flock(int(c.lock.Fd()), unix.LOCK_UN) }() // which cannot fail, and ends with the process
	return f()
}

// claim says that this process indexes a shard; busy where another one does. Who dies
// claims nothing any more.
func (c *cache) claim(shard string) (release func(), busy bool, err error) {
	path := filepath.Join(c.folder, "claims", shard)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, false, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
			return nil, true, nil
		}
		return nil, false, fmt.Errorf("lock it: %w", err)
	}
	return func() {
		_ = os.Remove(path) // who opened it before looks for the index first
		f.Close()
	}, false, nil
}

// used is how many bytes are there. The caller holds the lock.
func (c *cache) used() int64 {
	b := make([]byte, 8)
	if n, _ := c.lock.ReadAt(b, 0); n < len(b) {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b))
}

func (c *cache) setUsed(n int64) error {
	_, err := c.lock.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(max(0, n))), 0)
	return err
}

// kept is a file of the cache.
type kept struct {
	path string
	size int64
	used time.Time
}

func (k kept) index() bool { return filepath.Base(k.path) == indexFile }

// list is all files of the cache, and their bytes.
func (c *cache) list() (files []kept, total int64, err error) {
	root := filepath.Join(c.folder, "shards")
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				files = append(files, kept{path, info.Size(), info.ModTime()})
				total += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // taken away meanwhile
		}
		return err
	})
	return files, total, err
}

// errFull says that there is no room without taking away what is needed.
var errFull = errors.New("the cache is full")

// evict takes away the files that were used longest ago, until there is room for need
// bytes, and some more so that this is not done for every file; indexes last. With
// recent it leaves what was used since this process began, and is errFull where that
// is too much. It returns the bytes that are left. The caller holds the lock.
func (c *cache) evict(need int64, recent bool) (used int64, err error) {
	files, used, err := c.list()
	if err != nil {
		return 0, err
	}
	slices.SortFunc(files, func(a, b kept) int {
		if a.index() != b.index() {
			if a.index() {
				return 1
			}
			return -1
		}
		return cmp.Or(a.used.Compare(b.used), strings.Compare(a.path, b.path))
	})
	goal := c.limit - need
	for len(files) > 0 && used > goal-c.limit/16 {
		k := files[0]
		if recent && !k.used.Before(c.began) || k.index() && used <= goal { // an index is worth more than room to spare
			break
		}
		if err := os.Remove(k.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		_ = os.Remove(filepath.Dir(k.path)) // if it is empty now
		used -= k.size
		files = files[1:]
	}
	if used > goal {
		return used, errFull
	}
	return used, nil
}

// path is that of a file of a shard.
func (c *cache) path(shard, name string) string {
	return filepath.Join(c.folder, "shards", shard, name)
}

func blockName(n int) string { return strconv.Itoa(n) }

// put adds a file; recent is that of evict. It is errFull where there is no room.
func (c *cache) put(shard, name string, content []byte, recent bool) error {
	need := int64(len(content)) + sumLen
	if need > c.limit {
		return errFull
	}
	f, err := os.CreateTemp(filepath.Join(c.folder, "new"), "*") // for its user alone
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	sum := sha256.Sum256(content)
	_, err = f.Write(content)
	if err == nil {
		_, err = f.Write(sum[:])
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return c.shrink(need)
	} else if err != nil {
		return err
	}
	now := time.Now()
	if err := os.Chtimes(f.Name(), now, now); err != nil {
		return err
	}
	to := c.path(shard, name)
	return c.locked(func() error {
		used := c.used()
		if info, err := os.Stat(to); err == nil {
			used -= info.Size()
		}
		if used+need > c.limit {
			if used, err = c.evict(need, recent); err != nil {
				_ = c.setUsed(used)
				return err
			}
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := os.Rename(f.Name(), to); err != nil {
			return err
		}
		return c.setUsed(used + need)
	})
}

// shrink makes the limit what is there, since the disk has no more, and makes room. It
// is errFull: this file is not kept.
func (c *cache) shrink(need int64) error {
	return c.locked(func() error {
		_, used, err := c.list()
		if err != nil {
			return err
		}
		c.limit = min(c.limit, max(used, 2*need))
		if used, err = c.evict(need, false); err == nil {
			err = errFull
		}
		return errors.Join(err, c.setUsed(used))
	})
}

// whole reads a file of size bytes, or of any size (−1), and checks its digest. A file
// that is not what was written is taken away, and counts as not there.
func (c *cache) whole(shard, name string, size int64) ([]byte, bool) {
	path := c.path(shard, name)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, false
	}
	n := len(b) - sumLen
	if n >= 0 && (size < 0 || int64(n) == size) {
		if sum := sha256.Sum256(b[:n]); string(sum[:]) == string(b[n:]) {
			return b[:n:n], true
		}
	}
	_ = os.Remove(path)
	return nil, false
}

// part reads a part of a file that was whole before; false where it is not there. (Of
// an *os.File more is made than of the read itself.)
func (c *cache) part(shard, name string, b []byte, offset int64) bool {
	f, err := unix.Open(c.path(shard, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(f)
	for n := 0; n < len(b); {
		m, err := unix.Pread(f, b[n:], offset+int64(n))
		if m <= 0 && !errors.Is(err, unix.EINTR) {
			return false
		}
		n += max(m, 0)
	}
	return true
}

// touch says that a file is used.
func (c *cache) touch(shard, name string) bool {
	now := time.Now()
	return os.Chtimes(c.path(shard, name), now, now) == nil
}
