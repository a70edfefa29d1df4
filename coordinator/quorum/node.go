package quorum

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"mochi/coordinator/wal"
)

// MaxLine is how many bytes a line may have.
const MaxLine = 4 << 20

// Node is one coordinator's part of a group.
type Node struct {
	o       Options
	log     *slog.Logger
	members map[string]Member
	names   []string // of all members, sorted

	ctx    context.Context // until Close, or until it failed
	cancel context.CancelFunc
	owned  sync.WaitGroup
	once   sync.Once
	down   raft.Future // of raft's end, after once
	listen net.Listener
	stream *stream

	files    wal.Files
	store    *store
	votes    *votes
	snaps    *raft.FileSnapshotStore
	machine  *machine
	deliver  *deliverer
	asked    *asked
	failedCh chan struct{}

	mu         sync.Mutex
	membership membership
	raft       *raft.Raft // nil while the member is blank
	startedAt  uint64     // the last index that it had when it was started
	gate       *gate
	failed     error
	why        string // a blank member waits for
	votesHeld  error  // why the vote is not written
	term       *reign // the leadership in hand, nil: none
	closing    bool
	underWay   int           // entries that raft was given and has not answered
	changed    chan struct{} // closed and made anew when term changes
	leader     string
	since      time.Time
}

// reign is one time that raft made this node the leader.
type reign struct {
	done chan struct{} // closed when it is over
}

// Start takes part in the group. It returns at once; a *DamagedError says that the files
// of this member cannot be used and must be emptied.
func Start(o Options) (*Node, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	n := newNode(o)
	if err := n.open(); err != nil {
		n.cancel()
		return nil, n.named(err)
	}
	if n.listen = n.o.Listener; n.listen == nil {
		_, port, err := net.SplitHostPort(n.members[o.Name].Peer)
		if err == nil {
			n.listen, err = net.Listen("tcp", net.JoinHostPort("", port))
		}
		if err != nil {
			n.cancel()
			return nil, errors.Join(fmt.Errorf("listen for the other coordinators: %w", err), n.store.close())
		}
	}
	n.owned.Go(n.accept)
	n.owned.Go(func() { n.deliver.run(n.ctx) })
	if n.membership.Standing != blank {
		if err := n.take(n.membership); err != nil {
			return nil, errors.Join(n.named(err), n.Close())
		}
	} else {
		n.owned.Go(n.found)
	}
	n.owned.Go(n.askAll)
	return n, nil
}

func newNode(o Options) *Node {
	if o.Heartbeat == 0 {
		o.Heartbeat = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.wrap == nil {
		o.wrap = func(c net.Conn, _ string) net.Conn { return c }
	}
	if o.dial == nil {
		o.dial = o.connect
	}
	if o.snapshotEntries == 0 {
		o.snapshotEntries = snapshotEntries
	}
	if o.files == nil {
		o.files = func(folder string) wal.Files { return wal.Dir(filepath.Join(o.Dir, folder)) }
	}
	n := &Node{
		o: o, log: o.Log.With("coordinator", o.Name), members: map[string]Member{},
		failedCh: make(chan struct{}), changed: make(chan struct{}), since: time.Now(),
	}
	for _, m := range o.Members {
		n.members[m.Name] = m
		n.names = append(n.names, m.Name)
	}
	slices.Sort(n.names)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.stream, n.deliver = newStream(n), newDeliverer(n)
	n.asked = newAsked(n)
	n.machine = &machine{deliver: n.deliver, fail: n.fail, applied: n.applied, state: newState()}
	return n
}

// open opens the files, and compares them with each other.
func (n *Node) open() (err error) {
	n.files = n.o.files("")
	if n.membership, err = openMembership(n.files, n.o.Job, n.o.Name); err != nil {
		return err
	}
	var found bool
	if n.votes, found, err = openVotes(n.files); err != nil {
		return err
	}
	if !found && n.membership.Standing != blank {
		return &DamagedError{What: fmt.Errorf("the file %s is missing", votesFile)}
	}
	n.votes.ended, n.votes.note = n.ctx.Done(), n.noteVotes
	reach, last, err := openReach(n.files)
	if err != nil {
		return err
	}
	log, err := wal.Open(n.o.files("log"), wal.Options{})
	var damaged *wal.DamageError
	if errors.As(err, &damaged) {
		err = &DamagedError{What: err}
	}
	if err != nil {
		return errors.Join(err, reach.close())
	}
	n.store = newStore(log, reach)
	n.store.room, n.store.fail, n.store.ended, n.store.covered = n.o.Room, n.fail, n.ctx.Done(), n.covered
	if n.snaps, err = raft.NewFileSnapshotStoreWithLogger(n.o.Dir, 2, n.raftLog()); err == nil {
		err = n.whole(last)
	}
	if err != nil {
		return errors.Join(err, n.store.close())
	}
	return nil
}

// whole says whether log and snapshots are what this member once had.
func (n *Node) whole(reach uint64) error {
	damaged := func(format string, args ...any) error { return &DamagedError{What: fmt.Errorf(format, args...)} }
	list, err := n.snaps.List()
	if err != nil {
		return err
	}
	covered := uint64(0)
	if len(list) > 0 {
		_, r, err := n.snaps.Open(list[0].ID)
		if err != nil {
			return damaged("the snapshot %s: %w", list[0].ID, err)
		}
		s, err := readState(r)
		r.Close()
		if err == nil {
			err = n.describes(list[0], s)
		}
		if err != nil {
			return damaged("the snapshot %s: %w", list[0].ID, err)
		}
		covered = list[0].Index
	}
	first, last := n.store.wal.First(), n.store.wal.Last()
	switch {
	case n.membership.Standing == blank:
		return nil
	case n.membership.Standing == voting && last < first && covered == 0:
		return damaged("its log is empty")
	case first > covered+1 && first <= last:
		return damaged("entries %d to %d are in no snapshot and no longer in the log", covered+1, first-1)
	case reach > max(last, covered):
		return damaged("its log ends with entry %d, but once had entry %d", max(last, covered), reach)
	}
	return nil
}

// covered is the last entry that a snapshot has.
func (n *Node) covered() uint64 {
	list, err := n.snaps.List()
	if err != nil || len(list) == 0 {
		return 0
	}
	return list[0].Index
}

// describes says whether a snapshot's description, which has no sum of its own, is that
// of its content.
func (n *Node) describes(m *raft.SnapshotMeta, s *state) error {
	if m.Index == s.index && m.Term == s.under && reflect.DeepEqual(m.Configuration, n.servers()) && m.ConfigurationIndex == 1 {
		return nil
	}
	return fmt.Errorf("its description says entry %d of term %d, its content entry %d of term %d of coordinators %q", m.Index, m.Term, s.index, s.under, n.names)
}

// named adds the folder to an error that asks for it.
func (n *Node) named(err error) error {
	var d *DamagedError
	if errors.As(err, &d) && d.Dir == "" {
		d.Dir = n.o.Dir
	}
	return err
}

// accept takes connections.
func (n *Node) accept() {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	stop := context.AfterFunc(n.ctx, func() { n.listen.Close() })
	defer stop()
	slots := make(chan struct{}, 64) // of those that have not said who they are
	for n.ctx.Err() == nil {
		c, err := n.listen.Accept()
		if err != nil {
			select {
			case <-time.After(100 * time.Millisecond): // no files, or closed
			case <-n.ctx.Done():
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-n.ctx.Done():
			c.Close()
			continue
		}
		handlers.Go(func() {
			defer func() { <-slots }()
			n.welcome(c)
		})
	}
}

// found waits until it is clear whether the group is new or this member's folder was
// emptied.
func (n *Node) found() {
	said := ""
	for n.ctx.Err() == nil {
		heard := n.asked.all(n.ctx)
		m := n.membershipNow()
		next, term, changed, why := m.decide(n.names, heard)
		if why != said {
			said = why
			n.log.Info("coordinators", "state", why)
			n.mu.Lock()
			n.why = why
			n.mu.Unlock()
		}
		if changed {
			err := n.prepare(next, term)
			if err == nil {
				if err := n.take(next); err != nil {
					n.fail(err)
				}
				return
			}
			n.log.Warn("waiting to join the group", "err", err)
		}
		select {
		case <-time.After(n.o.Heartbeat / 4):
		case <-n.ctx.Done():
		}
	}
}

// latestTerm is the highest term of what is here.
func (n *Node) latestTerm() (uint64, error) {
	term, err := n.votes.GetUint64(currentTerm)
	if err != nil {
		return 0, err
	}
	// An entry can be of a later term: raft's leader may send it in the name of an
	// earlier term of its own.
	var last raft.Log
	if index, _ := n.store.LastIndex(); index > 0 {
		r, err := n.store.wal.Read(index)
		if err == nil {
			err = decodeRecord(r, &last)
		}
		if err != nil {
			return 0, err
		}
	}
	list, err := n.snaps.List()
	if err == nil && len(list) > 0 {
		term = max(term, list[0].Term)
	}
	return max(term, last.Term), err
}

// prepare gives raft what a new member begins with. What comes last makes it one.
func (n *Node) prepare(next membership, term uint64) error {
	if next.Standing == voting {
		err := raft.BootstrapCluster(n.config(), n.store, n.votes, n.snaps, nil, n.servers())
		if err != nil && !errors.Is(err, raft.ErrCantBootstrap) { // a crash before may have done it
			return fmt.Errorf("begin the replicated log: %w", err)
		}
	} else if err := n.votes.SetUint64(currentTerm, term); err != nil {
		return err
	}
	return next.save(n.files)
}

// currentTerm is raft's name of what it keeps.
var currentTerm = []byte("CurrentTerm")

// take starts raft, as the member that next says.
func (n *Node) take(next membership) error {
	g := newGate(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: n.stream, MaxPool: 3, Timeout: 5 * n.o.Heartbeat, Logger: n.raftLog(),
		// One request at a time: a pipeline (v1.8.0) can wait for itself for ever when
		// its connection is lost, and the entries of a step come one after another anyway.
		MaxRPCsInFlight: 1,
	}), n)
	g.votes.Store(next.Standing == voting)
	var err error
	if n.deliver.judge, err = n.latestTerm(); err != nil {
		return err
	}
	notify := make(chan bool, 16)
	conf := n.config()
	conf.NotifyCh = notify
	r, err := raft.NewRaft(conf, n.machine, n.store, n.votes, n.snaps, g)
	if err != nil {
		return errors.Join(fmt.Errorf("start the replicated log: %w", err), g.Close())
	}
	n.store.running.Store(true)
	n.mu.Lock()
	n.membership, n.raft, n.gate, n.why, n.startedAt = next, r, g, "", r.LastIndex()
	n.mu.Unlock()
	n.owned.Go(g.run)
	n.owned.Go(func() { n.watch(notify) })
	n.owned.Go(n.tidy)
	if next.Standing == returning {
		n.owned.Go(n.comeBack)
	}
	return nil
}

// servers are the members as raft knows them: by name only.
func (n *Node) servers() (c raft.Configuration) {
	for _, name := range n.names {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(name)})
	}
	return c
}

// config are raft's settings. It makes no snapshots of its own accord; tidy does.
func (n *Node) config() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.o.Name)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = n.o.Heartbeat, n.o.Heartbeat, n.o.Heartbeat/2
	c.CommitTimeout = n.o.Heartbeat / 20
	c.MaxAppendEntries = 32
	c.ShutdownOnRemove = false
	c.SnapshotInterval, c.SnapshotThreshold = 24*time.Hour, 1<<62
	c.TrailingLogs = mostTrailing
	c.Logger = n.raftLog()
	return c
}

// raftLog passes raft's lines on as details: what people should know this package says.
func (n *Node) raftLog() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, DisableTime: true, Output: writer{n.log}})
}

type writer struct{ log *slog.Logger }

func (w writer) Write(line []byte) (int, error) {
	w.log.Debug("raft: " + string(line[:max(len(line)-1, 0)]))
	return len(line), nil
}

var _ io.Writer = writer{}

// fail ends this node's part: it cannot go on.
func (n *Node) fail(err error) {
	n.mu.Lock()
	if n.failed != nil {
		n.mu.Unlock()
		return
	}
	err = n.named(err)
	n.failed = err
	close(n.failedCh)
	r := n.raft
	n.mu.Unlock()
	n.log.Error("this coordinator leaves the group", "err", err)
	n.cancel()
	n.shutdown(r)
}

// shutdown ends raft; it can be asked for once, and so it is remembered.
func (n *Node) shutdown(r *raft.Raft) raft.Future {
	if r == nil {
		return nil
	}
	n.once.Do(func() { n.down = r.Shutdown() })
	return n.down
}

// Failed is closed when this node cannot go on: Err says why.
func (n *Node) Failed() <-chan struct{} { return n.failedCh }

// Err is why this node cannot go on, nil while it can.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failed
}

// closeLimit is how long Close waits for a disk that stands still.
const closeLimit = 5 * time.Second

// Close leaves the group; it can be started again. It says nothing to the others: a
// leader resigns before.
func (n *Node) Close() error {
	n.mu.Lock()
	r := n.raft
	n.closing = true
	n.mu.Unlock()
	for start := time.Now(); n.busy() && time.Since(start) < 2*n.o.Heartbeat && n.Err() == nil; {
		time.Sleep(n.o.Heartbeat / 100) // raft does not answer what its end leaves in its queues
	}
	n.cancel()
	done := make(chan error, 1)
	go func() {
		n.stream.Close() // or raft waits for its answers
		var err error
		if down := n.shutdown(r); down != nil {
			err = down.Error()
		}
		n.owned.Wait()
		done <- err
	}()
	select {
	case err := <-done:
		return errors.Join(err, n.store.close())
	case <-time.After(closeLimit):
		return fmt.Errorf("leave the group of coordinators: %w within %v", errSlow, closeLimit)
	}
}

// busy says whether raft has something to answer.
func (n *Node) busy() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.underWay > 0
}

func (n *Node) membershipNow() membership {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.membership
}

func (n *Node) noteVotes(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.votesHeld = err
}
