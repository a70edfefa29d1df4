package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/protocol"
)

// files is a follower that keeps lines in memory, as a disk would: over starts of its
// node. It fails the test when a line comes twice, too early, or not at all.
type files struct {
	mu     sync.Mutex
	lines  map[string][]string
	stored []Checkpoint
	over   []Outcome
	config string
	step   int64                            // of its newest checkpoint
	fails  func(file string, n int64) error // before a line is written
	faults []string
}

func newFiles() *files { return &files{lines: map[string][]string{}} }

func (f *files) Held(file string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.lines[file])), nil
}

func (f *files) Line(file string, n int64, text []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails != nil {
		if err := f.fails(file, n); err != nil {
			return err
		}
	}
	if want := int64(len(f.lines[file])) + 1; n != want {
		f.faults = append(f.faults, fmt.Sprintf("line %d of %s came when %d was due", n, file, want))
	}
	f.lines[file] = append(f.lines[file], string(text))
	return nil
}

func (f *files) Sync() error { return nil }

func (f *files) Read(file string, n int64, bytes int) (lines [][]byte, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for all := f.lines[file]; n <= int64(len(all)) && (len(lines) == 0 || bytes > 0); n++ {
		lines = append(lines, []byte(all[n-1]))
		bytes -= len(all[n-1])
	}
	return lines, nil
}

func (f *files) Configured(text string) { f.mu.Lock(); f.config = text; f.mu.Unlock() }
func (f *files) Stored(c Checkpoint)    { f.mu.Lock(); f.stored = append(f.stored, c); f.mu.Unlock() }
func (f *files) Over(o Outcome)         { f.mu.Lock(); f.over = append(f.over, o); f.mu.Unlock() }

func (f *files) Checkpoint() (step, arrived int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.step, 0
}

// take makes a checkpoint the newest that is here.
func (f *files) take(step int64) { f.mu.Lock(); f.step = step; f.mu.Unlock() }

func (f *files) all(file string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.lines[file])
}

// beat is the heartbeat of tests: short, and long enough for a busy machine.
const beat = 300 * time.Millisecond

// group is a group of coordinators on this machine, whose connections can be cut.
type group struct {
	t       testing.TB
	members []Member
	beat    time.Duration
	options func(*Options) // changes those of a node before it starts

	mu        sync.Mutex
	nodes     map[string]*Node
	followers map[string]*files
	dir       string
	cuts      map[[2]string]bool
	conns     map[*cutConn]struct{}
	logged    record
	log       *slog.Logger
}

func newGroup(t testing.TB, size int) *group {
	g := &group{
		t: t, beat: beat, nodes: map[string]*Node{}, followers: map[string]*files{}, dir: t.TempDir(),
		cuts: map[[2]string]bool{}, conns: map[*cutConn]struct{}{},
	}
	g.log = g.logged.logger()
	t.Cleanup(func() { g.logged.dump(t) })
	for i := range size {
		name := string(rune('a' + i))
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		g.members = append(g.members, Member{Name: name, Join: "127.0.0.1:1", Peer: l.Addr().String()})
		l.Close()
		g.followers[name] = newFiles()
	}
	t.Cleanup(func() {
		for _, m := range g.members {
			g.kill(m.Name)
		}
		for name, f := range g.followers {
			f.mu.Lock()
			for _, fault := range f.faults {
				t.Errorf("coordinator %s: %s", name, fault)
			}
			f.mu.Unlock()
		}
	})
	return g
}

// record is the log of a group, for the folder that is named in QUORUM_TEST_LOG.
type record struct {
	mu   sync.Mutex
	text []byte
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, p...)
	return len(p), nil
}

// dump writes the log of a test that failed.
func (r *record) dump(t testing.TB) {
	dir := os.Getenv("QUORUM_TEST_LOG")
	if dir == "" || !t.Failed() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	path := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-"))
	if err := os.WriteFile(path, r.text, 0o644); err != nil {
		t.Error(err)
	}
}

// logger makes the logger of a group.
func (r *record) logger() *slog.Logger {
	if os.Getenv("QUORUM_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (g *group) folder(name string) string { return filepath.Join(g.dir, name) }

// start starts a node; whatever it finds wrong is returned.
func (g *group) start(name string) error {
	o := Options{
		Job: "job", Name: name, Members: g.members, Dir: g.folder(name), Heartbeat: g.beat,
		Follow: g.followers[name], Files: []string{"log"}, Log: g.log,
		wrap: func(c net.Conn, peer string) net.Conn { return g.wrap(c, name, peer) },
	}
	if g.options != nil {
		g.options(&o)
	}
	if o.Listener == nil { // the port may have been taken by a connection meanwhile
		i := slices.IndexFunc(g.members, func(m Member) bool { return m.Name == name })
		var err error
		for range 200 {
			if o.Listener, err = net.Listen("tcp", g.members[i].Peer); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			g.t.Fatal(err)
		}
	}
	n, err := Start(o)
	if err != nil {
		o.Listener.Close()
		return err
	}
	g.mu.Lock()
	g.nodes[name] = n
	g.mu.Unlock()
	return nil
}

func (g *group) startAll() {
	g.t.Helper()
	for _, m := range g.members {
		if err := g.start(m.Name); err != nil {
			g.t.Fatal(err)
		}
	}
}

func (g *group) node(name string) *Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nodes[name]
}

// kill ends a node as a crash of its process does: nobody is told.
func (g *group) kill(name string) {
	g.mu.Lock()
	n := g.nodes[name]
	delete(g.nodes, name)
	g.mu.Unlock()
	if n != nil {
		if err := n.Err(); err != nil {
			g.t.Errorf("%s could not go on: %v", name, err)
			for who, f := range g.followers {
				all := f.all("log")
				g.t.Logf("%s holds %d lines: %q", who, len(all), all[max(0, len(all)-12):])
			}
		}
		if err := n.Close(); err != nil {
			stacks := make([]byte, 1<<20)
			g.t.Errorf("close %s: %v\n%s", name, err, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// lead waits until one of the nodes that run leads.
func (g *group) lead() (*Node, *Leadership) {
	g.t.Helper()
	n, l, err := g.leadWithin(60 * time.Second)
	if err != nil {
		g.t.Fatal(err)
	}
	return n, l
}

func (g *group) leadWithin(limit time.Duration) (*Node, *Leadership, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	type led struct {
		n   *Node
		l   *Leadership
		err error
	}
	g.mu.Lock()
	out := make(chan led, len(g.nodes))
	running := len(g.nodes)
	for _, n := range g.nodes {
		go func() {
			l, err := n.Lead(ctx)
			out <- led{n, l, err}
		}()
	}
	g.mu.Unlock()
	var first led
	var faults []error
	for range running {
		got := <-out
		if got.err == nil && (first.l == nil || first.l.under < got.l.under) {
			first = got
			cancel()
		} else if got.err != nil {
			faults = append(faults, got.err)
		}
	}
	if first.l == nil {
		return nil, nil, fmt.Errorf("nobody leads: %w", errors.Join(faults...))
	}
	return first.n, first.l, nil
}

// do does something as the leader, whoever that is, until it succeeds.
func (g *group) do(what func(ctx context.Context, l *Leadership) error) *Node {
	g.t.Helper()
	for start := time.Now(); time.Since(start) < 60*time.Second; {
		n, l := g.lead()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := what(ctx, l)
		cancel()
		if err == nil {
			return n
		}
		if !errors.Is(err, coordinator.ErrFenced) {
			g.t.Logf("again: %v", err)
		}
	}
	g.t.Fatal("no leader could do it within a minute")
	return nil
}

// eventually waits until a condition holds.
func (g *group) eventually(what string, ok func() bool) {
	g.t.Helper()
	for start := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 60*time.Second {
			for _, m := range g.members {
				if n := g.node(m.Name); n != nil {
					g.t.Logf("%s: %+v", m.Name, n.Status())
				}
			}
			g.t.Fatalf("never: %s", what)
		}
	}
}

// cut stops what one node sends to another; it never knows.
func (g *group) cut(from, to string) {
	g.mu.Lock()
	g.cuts[[2]string{from, to}] = true
	g.mu.Unlock()
}

// heal ends all cuts. Connections that lost something do not come back.
func (g *group) heal() {
	g.mu.Lock()
	clear(g.cuts)
	var lost []*cutConn
	for c := range g.conns {
		if c.lost {
			lost = append(lost, c)
		}
	}
	g.mu.Unlock()
	for _, c := range lost {
		c.Close()
	}
}

func (g *group) wrap(c net.Conn, self, peer string) net.Conn {
	cc := &cutConn{Conn: c, g: g, self: self, peer: peer}
	g.mu.Lock()
	g.conns[cc] = struct{}{}
	g.mu.Unlock()
	return cc
}

// cutConn is one end of a connection.
type cutConn struct {
	net.Conn
	g          *group
	self, peer string
	lost       bool // something; guarded by g.mu
}

func (c *cutConn) Write(p []byte) (int, error) {
	c.g.mu.Lock()
	c.lost = c.lost || c.g.cuts[[2]string{c.self, c.peer}]
	lost := c.lost
	c.g.mu.Unlock()
	if lost {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *cutConn) Close() error {
	c.g.mu.Lock()
	delete(c.g.conns, c)
	c.g.mu.Unlock()
	return c.Conn.Close()
}

// next is a commit behind another.
func next(before protocol.Commit, salt string) protocol.Commit {
	c := protocol.Commit{
		Step: before.Step + 1, Cursor: before.Cursor + int64(before.Batch), Batch: 8, Term: 1, LR: 0.03,
		Digest: fmt.Sprint(salt, before.Step+1),
	}
	c.Chain = c.Link(before.Chain)
	return c
}

// commit appends one more commit to what is there.
func (g *group) commit(salt string) (c protocol.Commit) {
	g.t.Helper()
	g.do(func(ctx context.Context, l *Leadership) error {
		last, _, err := l.Last(ctx)
		if err != nil {
			return err
		}
		c = next(last, salt)
		return l.Append(ctx, c)
	})
	return c
}
