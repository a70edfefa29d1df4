// Package unpacked keeps what archives that allow no access at random hold: each is
// unpacked once, into a folder that processes share, and found there afterwards.
//
// A file of the folder is named for the place of its source, the source's length and
// time, and its own length: one that was cut, or is of a source that has changed since,
// is not used. It is written under another name, synced and renamed, so that one half
// written is never found; and one process writes while the others wait for it.
package unpacked

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Folder keeps what is unpacked.
type Folder struct {
	Dir string // "": the user's, $XDG_CACHE_HOME/mochi/unpacked
	// Progress, when not nil, is told now and then what is unpacked.
	Progress func(text string)
}

// Maker writes what a source holds to out. Source is open at its beginning.
type Maker struct {
	Kind string // part of the name; another for what comes out differently
	Make func(out io.Writer, source *os.File) error
}

// DamagedError says that a source cannot be unpacked, and why: it is the source's fault.
type DamagedError struct{ error }

// Damaged is a *DamagedError of a text, as fmt.Errorf has it.
func Damaged(format string, args ...any) error {
	return &DamagedError{fmt.Errorf(format, args...)}
}

// Unwrap returns the cause.
func (e *DamagedError) Unwrap() error { return e.error }

// place is the folder, made where it was not there.
func (f Folder) place() (string, error) {
	dir := f.Dir
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("there is no folder to unpack to (%w): set XDG_CACHE_HOME", err)
		}
		dir = filepath.Join(user, "mochi", "unpacked")
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// Open returns the path of what the file at source holds, after it was made, now or
// before.
func (f Folder) Open(source string, m Maker) (path string, err error) {
	dir, err := f.place()
	if err != nil {
		return "", err
	}
	in, err := os.Open(source)
	if err != nil {
		return "", err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return "", err
	}
	full, err := filepath.Abs(source)
	if err != nil {
		return "", err
	}
	whose := m.Kind + "-" + digest(full)
	prefix := filepath.Join(dir, fmt.Sprintf("%s-%s-", whose, digest(fmt.Sprint(info.Size(), info.ModTime().UnixNano()))))
	if path := whole(prefix); path != "" {
		return path, nil
	}
	free, err := f.lock(filepath.Join(dir, whose+".lock"), source)
	if err != nil {
		return "", err
	}
	defer free()
	if path := whole(prefix); path != "" { // another process was first
		return path, nil
	}
	for _, old := range []string{whose + "-*", "." + whose + ".*"} { // of the source as it was, and what was given up
		found, err := filepath.Glob(filepath.Join(dir, old))
		if err != nil {
			return "", err
		}
		for _, old := range found {
			os.Remove(old)
		}
	}
	return f.make(prefix, "."+whose+".", in, m)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

const ending = ".unpacked"

// whole is the file whose name begins so and says its length, "" for none.
func whole(prefix string) string {
	found, err := filepath.Glob(prefix + "*" + ending)
	if err != nil {
		return ""
	}
	for _, path := range found {
		length, err := strconv.ParseInt(strings.TrimSuffix(path[len(prefix):], ending), 10, 64)
		if info, statErr := os.Stat(path); err == nil && statErr == nil && info.Mode().IsRegular() && info.Size() == length {
			return path
		}
	}
	return ""
}

// lock waits until no other process unpacks the same.
func (f Folder) lock(path, source string) (free func(), err error) {
	l, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(l.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		f.say("another process unpacks %s: waiting for it", source)
		err = ignoringSignals(func() error { return unix.Flock(int(l.Fd()), unix.LOCK_EX) })
	}
	if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENOLCK) { // where there are no locks, all write, each its own
		l.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { l.Close() }, nil
}

// ignoringSignals calls what a signal interrupts once more.
func ignoringSignals(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (f Folder) say(format string, args ...any) {
	if f.Progress != nil {
		f.Progress(fmt.Sprintf(format, args...))
	}
}

// make unpacks, and gives the file its name when it is whole.
func (f Folder) make(prefix, temporary string, in *os.File, m Maker) (path string, err error) {
	dir := filepath.Dir(prefix)
	out, err := os.CreateTemp(dir, temporary+"*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			out.Close()
			os.Remove(out.Name())
			if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
				err = fmt.Errorf("unpack %s to %s: %w: make room, or unpack it yourself where there is some", in.Name(), dir, err)
			}
		}
	}()
	count := &counter{w: out, said: func(n int64) { f.say("unpacking %s: %d MB", in.Name(), n>>20) }}
	buffer := bufio.NewWriterSize(count, 1<<20)
	if err = m.Make(buffer, in); err == nil {
		err = buffer.Flush()
	}
	if err != nil {
		return "", err
	}
	if err = errors.Join(out.Sync(), out.Close()); err != nil {
		return "", err
	}
	path = fmt.Sprintf("%s%d%s", prefix, count.n, ending)
	if err = os.Rename(out.Name(), path); err != nil {
		return "", err
	}
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync() // where a folder cannot be synced, the file is
		d.Close()
	}
	return path, nil
}

// counter counts what is written, and says so.
type counter struct {
	w    io.Writer
	n    int64
	said func(n int64)
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.said(c.n)
	return n, err
}
