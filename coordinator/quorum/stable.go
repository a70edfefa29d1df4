package quorum

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"runtime"
	"strconv"
	"sync"
	"time"

	"mochi/coordinator/wal"
)

// readFile reads a small file; nil when it is not there.
func readFile(files wal.Files, name string) ([]byte, error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > 1<<20 {
		return nil, fmt.Errorf("%s has %d bytes: it is not what was written", name, size)
	}
	b := make([]byte, size)
	if size > 0 {
		if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
			return nil, err
		}
	}
	return b, nil
}

// A sealed file is one of JSON behind a sum, made anew as a whole.
func seal(content any) ([]byte, error) {
	text, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.ChecksumIEEE(text), text), nil
}

// unseal is the inverse of seal.
func unseal(b []byte, to any) error {
	if len(b) < 10 {
		return errors.New("it ends early")
	}
	text := b[9 : len(b)-1]
	if want, err := strconv.ParseUint(string(b[:8]), 16, 32); err != nil || uint32(want) != crc32.ChecksumIEEE(text) {
		return errors.New("its sum does not match")
	}
	return json.Unmarshal(text, to)
}

// votesFile has the term and the vote of raft.
const votesFile = "votes"

// votes is raft's StableStore: a small file that is written anew each time. Raft panics
// when its term cannot be saved, so a disk that cannot is waited for: a member that
// cannot remember what it voted must not take part.
type votes struct {
	files wal.Files
	ended <-chan struct{}
	note  func(error) // of a write that failed, and of the next one that did not

	writing chan struct{} // capacity 1: held over the disk's work
	mu      sync.Mutex    // held for moments only
	values  map[string][]byte
}

// openVotes reads the file; found says whether it was there.
func openVotes(files wal.Files) (v *votes, found bool, err error) {
	v = &votes{files: files, values: map[string][]byte{}, note: func(error) {}, writing: make(chan struct{}, 1)}
	b, err := readFile(files, votesFile)
	if err != nil || b == nil {
		return v, false, err
	}
	if err := unseal(b, &v.values); err != nil {
		return nil, true, &DamagedError{What: fmt.Errorf("the file %s: %w", votesFile, err)}
	}
	return v, true, nil
}

// Set implements raft.StableStore.
func (v *votes) Set(key, value []byte) error {
	v.writing <- struct{}{}
	defer func() { <-v.writing }()
	v.mu.Lock()
	next := maps.Clone(v.values)
	v.mu.Unlock()
	if bytes.Equal(next[string(key)], value) && value != nil {
		return nil // raft says its term again when it starts, and the disk may be full
	}
	next[string(key)] = append([]byte(nil), value...)
	b, err := seal(next)
	if err != nil {
		return err
	}
	failed := false
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := wal.Replace(v.files, votesFile, b)
		if err == nil {
			break
		}
		failed = true
		v.note(fmt.Errorf("its vote is not written: %w", err))
		select {
		case <-time.After(wait):
		case <-v.ended:
			runtime.Goexit() // raft is being shut down; an error of its term would be a panic
		}
	}
	if failed {
		v.note(nil)
	}
	v.mu.Lock()
	v.values = next
	v.mu.Unlock()
	return nil
}

// Get implements raft.StableStore.
func (v *votes) Get(key []byte) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.values[string(key)], nil
}

// SetUint64 implements raft.StableStore.
func (v *votes) SetUint64(key []byte, value uint64) error {
	return v.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (v *votes) GetUint64(key []byte) (uint64, error) {
	b, err := v.Get(key)
	if err != nil || len(b) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// reachFile says how far the log was.
const reachFile = "reach"

// reach is the index of the last entry that was written, in a file that is written in
// place and not synced, unless it becomes less: after a crash of the machine it may say
// less than is true, never more, since it is written behind the log. So it costs next to
// nothing, and tells of a log that lost its end by other means than a crash.
type reach struct {
	mu   sync.Mutex
	file wal.File
}

// openReach returns what the file says; 0 when it says nothing.
func openReach(files wal.Files) (*reach, uint64, error) {
	b, err := readFile(files, reachFile)
	if err != nil {
		return nil, 0, err
	}
	var f wal.File
	if b == nil {
		f, err = files.Create(reachFile)
	} else {
		f, err = files.Open(reachFile)
	}
	if err != nil {
		return nil, 0, err
	}
	last := uint64(0)
	if len(b) == 12 && binary.LittleEndian.Uint32(b[8:]) == crc32.ChecksumIEEE(b[:8]) {
		last = binary.LittleEndian.Uint64(b)
	}
	return &reach{file: f}, last, nil
}

func (r *reach) set(last uint64) error {
	b := binary.LittleEndian.AppendUint64(nil, last)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.file.WriteAt(b, 0)
	return err
}

// lower says that the log ends earlier from now on, before it does.
func (r *reach) lower(last uint64) error {
	if err := r.set(last); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.Sync()
}

func (r *reach) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.Close()
}
