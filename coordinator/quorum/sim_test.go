package quorum

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/wal"
	"mochi/coordinator/wal/waltest"
)

// world is a group on virtual time: connections in memory, disks that crash, stand still
// and are full. It must be made in a bubble of testing/synctest.
type world struct {
	*group
	ctx     context.Context
	rng     *rand.Rand
	disks   map[string]map[string]*disk // by node and folder
	faults  map[string]fault            // of disks, by node
	running map[string]context.CancelFunc
	owned   sync.WaitGroup

	led   []*Leadership    // all there were; guarded by group.mu
	head  int64            // the step of the last commit that was acknowledged; likewise
	doors map[string]*door // guarded by group.mu
}

// fault is what a node's disk does.
type fault struct {
	stands bool
	full   bool
	crash  bool
}

func newWorld(t testing.TB, size int, seed uint64) *world {
	w := &world{
		ctx: context.Background(), rng: rand.New(rand.NewPCG(seed, 5)), disks: map[string]map[string]*disk{},
		faults: map[string]fault{}, running: map[string]context.CancelFunc{}, doors: map[string]*door{},
	}
	w.group = &group{
		t: t, beat: time.Second, nodes: map[string]*Node{}, followers: map[string]*files{}, dir: t.TempDir(),
		cuts: map[[2]string]bool{}, conns: map[*cutConn]struct{}{},
	}
	w.log = w.logged.logger()
	for i := range size {
		name := string(rune('a' + i))
		w.members = append(w.members, Member{Name: name, Join: name + ":1", Peer: name + ":2"})
		w.followers[name] = newFiles()
		w.disks[name] = map[string]*disk{}
	}
	w.options = func(o *Options) {
		d := newDoor(o.Name)
		w.mu.Lock()
		w.doors[o.Name] = d
		w.mu.Unlock()
		o.Listener = d
		o.dial = func(ctx context.Context, peer Member) (net.Conn, error) { return w.connect(ctx, o.Name, peer.Name) }
		o.files = func(folder string) wal.Files { return w.disk(o.Name, folder) }
		o.snapshotEntries = 40
		o.Room = func() error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.faults[o.Name].full {
				return fmt.Errorf("no room: %w", coordinator.ErrDiskFull)
			}
			return nil
		}
	}
	return w
}

// disk is a folder of a node.
func (w *world) disk(name, folder string) *waltest.Disk {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.disks[name][folder] == nil {
		w.disks[name][folder] = w.newDisk(name)
	}
	return w.disks[name][folder].Disk
}

// disk is one machine's: after a crash another one has what it had.
type disk struct {
	*waltest.Disk
	gone atomic.Bool
}

func (w *world) newDisk(name string) *disk {
	d := &disk{Disk: waltest.New(w.rng.Uint64())}
	d.Before = func(op waltest.Op) error {
		if d.gone.Load() {
			return waltest.ErrCrashed
		}
		return w.before(name, op)
	}
	return d
}

func (w *world) before(name string, op waltest.Op) error {
	for {
		w.mu.Lock()
		f := w.faults[name]
		w.mu.Unlock()
		switch {
		case f.crash:
			return waltest.ErrCrashed
		case f.full && op.Call == "write":
			return syscall.ENOSPC
		case !f.stands:
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (w *world) fault(name string, f fault) {
	w.mu.Lock()
	w.faults[name] = f
	w.mu.Unlock()
}

// run starts a node, and leads whenever it is asked to.
func (w *world) run(name string) error {
	if err := w.start(name); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(w.ctx)
	w.running[name] = cancel
	n := w.node(name)
	w.owned.Go(func() {
		for {
			l, err := n.Lead(ctx)
			if err != nil {
				return
			}
			step := n.Settings().Step
			w.mu.Lock()
			w.led = append(w.led, l)
			if head := w.head; step < head {
				w.t.Errorf("%s leads from commit %d on, but commit %d was acknowledged", name, step, head)
			}
			w.mu.Unlock()
			select {
			case <-l.Done():
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

// crash ends a node as the loss of its machine's power does.
func (w *world) crash(name string) {
	w.fault(name, fault{crash: true})
	if stop := w.running[name]; stop != nil {
		stop()
		delete(w.running, name)
	}
	w.kill(name)
	w.mu.Lock()
	for folder, old := range w.disks[name] { // what still runs of it writes to a disk that is no more
		old.gone.Store(true)
		old.Crash()
		d := w.newDisk(name)
		for _, file := range old.Names() {
			d.Put(file, append([]byte{}, old.Content(file)...))
		}
		w.disks[name][folder] = d
	}
	w.mu.Unlock()
	w.fault(name, fault{})
}

// empty removes all files of a node that does not run, those of its follower too or not.
func (w *world) empty(name string, follower bool) {
	w.mu.Lock()
	w.disks[name] = map[string]*disk{}
	w.mu.Unlock()
	if err := os.RemoveAll(w.folder(name)); err != nil {
		w.t.Fatal(err)
	}
	if follower {
		w.followers[name].mu.Lock()
		w.followers[name].lines = map[string][]string{}
		w.followers[name].mu.Unlock()
	}
}

// leadership is the latest, or now and then an older one.
func (w *world) leadership() *Leadership {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.led) == 0 {
		return nil
	}
	newest := w.led[0]
	for _, l := range w.led {
		if l.under > newest.under {
			newest = l
		}
	}
	if w.rng.IntN(5) == 0 {
		return w.led[w.rng.IntN(len(w.led))]
	}
	return newest
}

// end stops all nodes.
func (w *world) end() {
	for _, m := range w.members {
		w.fault(m.Name, fault{})
		if stop := w.running[m.Name]; stop != nil {
			stop()
		}
		w.kill(m.Name)
	}
	w.owned.Wait()
	for name, f := range w.followers {
		for _, fault := range f.faults {
			w.t.Errorf("coordinator %s: %s", name, fault)
		}
	}
}

// door is a listener in memory.
type door struct {
	name   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newDoor(name string) *door {
	return &door{name: name, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *door) Close() error   { d.once.Do(func() { close(d.closed) }); return nil }
func (d *door) Addr() net.Addr { return address(d.name) }

// connect opens a connection, unless what one end sends does not reach the other.
func (w *world) connect(ctx context.Context, from, to string) (net.Conn, error) {
	w.mu.Lock()
	d := w.doors[to]
	cut := w.cuts[[2]string{from, to}] || w.cuts[[2]string{to, from}]
	w.mu.Unlock()
	if cut {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if d == nil {
		return nil, syscall.ECONNREFUSED
	}
	one, other := net.Pipe()
	select {
	case d.conns <- other:
		return one, nil
	case <-d.closed:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// snapshots are where a node's snapshots are, for those that count them.
func (w *world) snapshots(name string) (n int) {
	entries, err := os.ReadDir(filepath.Join(w.folder(name), "snapshots"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".tmp") {
			n++
		}
	}
	return n
}
