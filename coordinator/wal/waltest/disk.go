// Package waltest is a folder of files in memory whose disk does what disks do:
// what was not synced is lost in a crash, or a part of it; writes end early; there
// is no room; a sync fails and what it should have kept is dropped; calls hang. It is
// for tests of package wal and of what stands on it.
package waltest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"mochi/coordinator/wal"
)

// ErrCrashed is the error of every call after Op.Crash.
var ErrCrashed = errors.New("the machine has crashed")

// Op is a call that a disk is about to carry out.
type Op struct {
	Call  string // list, open, create, rename, remove, syncdir, write, read, truncate, sync
	Name  string
	Bytes int // of a write
}

// Disk implements wal.Files. The zero value is not usable; see New.
type Disk struct {
	mu      sync.Mutex
	rng     *rand.Rand
	crashed bool
	ops     int

	// Before, if set, is called before every call and decides: nil goes on,
	// ErrCrashed stops the machine, any other error is that of the call (of a
	// write, after a part of it). It may block: then the disk hangs.
	Before func(Op) error
	// Room is how many bytes the files may have in all; 0: any number.
	Room int64

	names   map[string]*inode // as processes see them
	durable map[string]*inode // as they were at the last SyncDir
	changes []func(map[string]*inode)
}

// inode is a file.
type inode struct {
	data    []byte // as processes see it
	synced  []byte // as it is on the disk
	pending []change
}

// change is a write (or, without bytes, a new size) that was not synced.
type change struct {
	at   int64
	data []byte
	size int64 // of a truncation
}

// New makes an empty disk; what is left to chance follows the seed.
func New(seed uint64) *Disk {
	return &Disk{rng: rand.New(rand.NewPCG(seed, 0)), names: map[string]*inode{}, durable: map[string]*inode{}}
}

// Ops is how many calls there were.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Crash loses what was not synced, or a part of it, and starts the machine again:
// files that were open are of no more use.
func (d *Disk) Crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, change := range d.changes[:d.rng.IntN(len(d.changes)+1)] {
		change(d.durable)
	}
	d.changes = nil
	d.names = map[string]*inode{}
	for name, old := range d.durable {
		kept := d.survives(old)
		d.names[name] = &inode{data: slices.Clone(kept), synced: kept}
	}
	d.durable = map[string]*inode{}
	for name, f := range d.names {
		d.durable[name] = f
	}
	d.crashed = false
}

// survives is what a crash leaves of a file: some of the changes, in their order,
// and of the next one a part.
func (d *Disk) survives(f *inode) []byte {
	kept := slices.Clone(f.synced)
	if len(f.pending) == 0 {
		return kept
	}
	n := d.rng.IntN(len(f.pending) + 1)
	for _, c := range f.pending[:n] {
		kept = c.apply(kept)
	}
	if n == len(f.pending) || f.pending[n].data == nil {
		return kept
	}
	c := f.pending[n]
	if d.rng.IntN(2) == 0 { // the size grows last
		return change{at: c.at, data: c.data[:d.rng.IntN(len(c.data)+1)]}.apply(kept)
	}
	const sector = 512 // the size grows first: sectors that were not written are zeros
	part, old := slices.Clone(c.data), len(kept)
	for at := int64(0); at < int64(len(part)); {
		next := min((c.at+at)/sector*sector+sector-c.at, int64(len(part)))
		if d.rng.IntN(2) == 0 {
			for i := at; i < next; i++ {
				part[i] = 0
				if p := int(c.at + i); p < old {
					part[i] = kept[p]
				}
			}
		}
		at = next
	}
	return change{at: c.at, data: part}.apply(kept)
}

func (c change) apply(to []byte) []byte {
	if c.data == nil {
		if c.size <= int64(len(to)) {
			return to[:c.size]
		}
		return append(to, make([]byte, c.size-int64(len(to)))...)
	}
	if end := c.at + int64(len(c.data)); end > int64(len(to)) {
		to = append(to, make([]byte, end-int64(len(to)))...)
	}
	copy(to[c.at:], c.data)
	return to
}

// Content is a file as processes see it; nil when it is not there.
func (d *Disk) Content(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.names[name]; f != nil {
		return slices.Clone(f.data)
	}
	return nil
}

// Names are those of the files, as processes see them; unlike List it is no call.
func (d *Disk) Names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.names))
}

// Put makes a file of that content, on the disk at once; nil removes it.
func (d *Disk) Put(name string, content []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.names, name)
	delete(d.durable, name)
	if content != nil {
		f := &inode{data: slices.Clone(content), synced: slices.Clone(content)}
		d.names[name], d.durable[name] = f, f
	}
}

// begin asks whether a call may go on. The lock is held when it returns nil.
func (d *Disk) begin(op Op) error {
	d.mu.Lock()
	d.ops++
	before, crashed := d.Before, d.crashed
	if before != nil && !crashed {
		d.mu.Unlock()
		err := before(op)
		d.mu.Lock()
		d.crashed = d.crashed || errors.Is(err, ErrCrashed)
		if err != nil {
			d.mu.Unlock()
			return err
		}
	}
	if d.crashed {
		d.mu.Unlock()
		return ErrCrashed
	}
	return nil
}

// List implements wal.Files.
func (d *Disk) List() ([]string, error) {
	if err := d.begin(Op{Call: "list"}); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	var names []string
	for name := range d.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Open implements wal.Files.
func (d *Disk) Open(name string) (wal.File, error) {
	if err := d.begin(Op{Call: "open", Name: name}); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	f := d.names[name]
	if f == nil {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return &file{disk: d, name: name, inode: f}, nil
}

// Create implements wal.Files.
func (d *Disk) Create(name string) (wal.File, error) {
	if err := d.begin(Op{Call: "create", Name: name}); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	f := &inode{}
	d.entry(func(names map[string]*inode) { names[name] = f })
	return &file{disk: d, name: name, inode: f}, nil
}

// entry changes the folder.
func (d *Disk) entry(change func(map[string]*inode)) {
	change(d.names)
	d.changes = append(d.changes, change)
}

// Rename implements wal.Files.
func (d *Disk) Rename(from, to string) error {
	if err := d.begin(Op{Call: "rename", Name: to}); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if d.names[from] == nil {
		return fmt.Errorf("rename %s: %w", from, fs.ErrNotExist)
	}
	d.entry(func(names map[string]*inode) {
		names[to] = names[from]
		delete(names, from)
	})
	return nil
}

// Remove implements wal.Files.
func (d *Disk) Remove(name string) error {
	if err := d.begin(Op{Call: "remove", Name: name}); err != nil {
		return err
	}
	defer d.mu.Unlock()
	d.entry(func(names map[string]*inode) { delete(names, name) })
	return nil
}

// SyncDir implements wal.Files.
func (d *Disk) SyncDir() error {
	if err := d.begin(Op{Call: "syncdir"}); err != nil {
		return err
	}
	defer d.mu.Unlock()
	for _, change := range d.changes {
		change(d.durable)
	}
	d.changes = nil
	return nil
}

// file is an open file.
type file struct {
	disk  *Disk
	name  string
	inode *inode
}

func (f *file) begin(call string, bytes int) error {
	return f.disk.begin(Op{Call: call, Name: f.name, Bytes: bytes})
}

func (f *file) ReadAt(p []byte, at int64) (int, error) {
	if err := f.begin("read", len(p)); err != nil {
		return 0, err
	}
	defer f.disk.mu.Unlock()
	if at >= int64(len(f.inode.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.inode.data[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, at int64) (int, error) {
	err := f.begin("write", len(p))
	d := f.disk
	if err != nil {
		d.mu.Lock()
		if d.crashed { // on its way when the machine stopped
			f.put(change{at: at, data: slices.Clone(p)})
			d.mu.Unlock()
			return 0, err
		}
		p = p[:d.rng.IntN(len(p)+1)]
	}
	defer d.mu.Unlock()
	if d.Room > 0 {
		used := int64(0)
		for _, other := range d.names {
			used += int64(len(other.data))
		}
		if more := at + int64(len(p)) - int64(len(f.inode.data)); more > 0 && used+more > d.Room {
			p, err = p[:max(0, int64(len(p))-(used+more-d.Room))], syscall.ENOSPC
		}
	}
	f.put(change{at: at, data: slices.Clone(p)})
	return len(p), err
}

func (f *file) put(c change) {
	if c.data != nil && len(c.data) == 0 {
		return
	}
	f.inode.data = c.apply(f.inode.data)
	f.inode.pending = append(f.inode.pending, c)
}

func (f *file) Truncate(size int64) error {
	if err := f.begin("truncate", 0); err != nil {
		return err
	}
	defer f.disk.mu.Unlock()
	f.put(change{size: size})
	return nil
}

func (f *file) Sync() error {
	err := f.begin("sync", 0)
	d := f.disk
	if errors.Is(err, ErrCrashed) {
		return err
	}
	if err != nil { // some of it is on the disk, and the rest will never be; but sizes are in the journal
		d.mu.Lock()
		sizes := f.inode.pending
		f.inode.synced = d.survives(f.inode)
		for _, c := range sizes {
			if c.data == nil {
				f.inode.synced = c.apply(f.inode.synced)
			}
		}
		f.inode.pending = nil
		d.mu.Unlock()
		return err
	}
	defer d.mu.Unlock()
	for _, c := range f.inode.pending {
		f.inode.synced = c.apply(f.inode.synced)
	}
	f.inode.pending = nil
	return nil
}

func (f *file) Size() (int64, error) {
	if err := f.begin("size", 0); err != nil {
		return 0, err
	}
	defer f.disk.mu.Unlock()
	return int64(len(f.inode.data)), nil
}

func (f *file) Close() error { return nil }
