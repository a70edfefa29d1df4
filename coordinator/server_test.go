package coordinator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/event"
	"mochi/coordinator/jetstream"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/figures"
)

const job = "test"

// watcher is an observer that a test can wait on.
type watcher struct {
	mu      sync.Mutex
	records []coordinator.CommitRecord
	events  []string
	changed chan struct{}
}

func newWatcher() *watcher { return &watcher{changed: make(chan struct{}, 1)} }

func (w *watcher) Committed(r coordinator.CommitRecord) {
	w.mu.Lock()
	w.records = append(w.records, r)
	w.mu.Unlock()
	w.signal()
}

func (w *watcher) Event(e event.Event) {
	w.mu.Lock()
	w.events = append(w.events, fmt.Sprint(e.EventName(), " ", event.Attrs(e)))
	w.mu.Unlock()
	w.signal()
}

func (w *watcher) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *watcher) snapshot() []coordinator.CommitRecord {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]coordinator.CommitRecord(nil), w.records...)
}

// until waits for a condition on what was recorded.
func (w *watcher) until(t *testing.T, what string, ok func(r []coordinator.CommitRecord) bool) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for !ok(w.snapshot()) {
		select {
		case <-w.changed:
		case <-limit:
			t.Fatalf("never: %s; events: %s", what, strings.Join(w.events, "\n"))
		}
	}
}

// more waits for n further commits by a world of this size.
func (w *watcher) more(t *testing.T, n, world int) {
	t.Helper()
	from := len(w.snapshot())
	w.until(t, fmt.Sprintf("%d commits by %d members", n, world), func(r []coordinator.CommitRecord) bool {
		count := 0
		for _, c := range r[from:] {
			if c.World == world {
				count++
			}
		}
		return count >= n
	})
}

// shelf keeps checkpoints in memory, across coordinators.
type shelf struct {
	mu    sync.Mutex
	files map[string][]byte
	last  coordinator.Checkpoint
}

func (s *shelf) Latest() (coordinator.Checkpoint, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.last.Name != "", nil
}

func (s *shelf) Save(_ context.Context, step int64, r io.Reader, _ func(context.Context) (coordinator.Voted, error)) (string, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = coordinator.Checkpoint{Name: fmt.Sprintf("step-%08d", step), Step: step, Cursor: 8 * step}
	if s.files == nil {
		s.files = map[string][]byte{}
	}
	s.files[s.last.Name] = data
	return s.last.Name, nil
}

type file struct{ *bytes.Reader }

func (file) Close() error { return nil }

func (s *shelf) Open(name string) (io.ReadSeekCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.files[name]
	if !ok {
		return nil, fmt.Errorf("no checkpoint %s", name)
	}
	return file{bytes.NewReader(data)}, nil
}

// host is one coordinator process: server, bus, log, lease, decisions.
type host struct {
	t      *testing.T
	server *natsbus.Server
	bus    *natsbus.Coordinator
	coord  *coordinator.Server
	kill   context.CancelFunc
	done   chan error
}

func startHost(t *testing.T, listen, dir string, shelf *shelf, w *watcher, steps int64) *host {
	t.Helper()
	ctx, kill := context.WithCancel(context.Background())
	h := &host{t: t, kill: kill, done: make(chan error, 1)}
	var err error
	if h.server, err = natsbus.StartServer(natsbus.ServerOptions{Listen: listen, StoreDir: dir}); err != nil {
		t.Fatal(err)
	}
	if h.bus, err = natsbus.ConnectCoordinator(ctx, natsbus.Options{Job: job, Server: h.server}); err != nil {
		t.Fatal(err)
	}
	log, err := jetstream.Open(ctx, h.bus.Conn(), job)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := jetstream.NewLease(ctx, h.bus.Conn(), job, "test", 3*time.Second, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h.coord = coordinator.New(coordinator.Config{
		Job: job, Binary: "build", ConfigDigest: "cfg",
		Training: config.Job{
			Batch: 8, BNGroup: 1, Queue: 64, Steps: steps, Epochs: 1, CheckpointEvery: 10, MinReplicas: 1,
		},
		LR:  func(float64) float64 { return 0.1 },
		Bus: h.bus, Log: log, Lease: lease, Checkpoints: shelf, Observer: w,
		Recorded: int64(len(w.snapshot())),
	})
	go func() { h.done <- h.coord.Run(ctx) }()
	t.Cleanup(h.end)
	return h
}

// end stops everything without ceremony, as kill -9 would.
func (h *host) end() {
	h.kill()
	h.bus.Close()
	h.server.Shutdown()
}

func (h *host) wait() error {
	select {
	case err := <-h.done:
		h.done <- err
		return err
	case <-time.After(30 * time.Second):
		h.t.Fatal("the coordinator does not end")
		return nil
	}
}

// fake is a replica that speaks the protocol and computes nothing: the state
// after step n is the text "state n".
type fake struct {
	id, digest string // digest: of its votes, "" for the right ones
	bus        *natsbus.Replica
	done       chan struct{}
	leave      chan struct{}
	err        error

	known   bool
	holds   bool
	step    int64
	round   *protocol.Round
	rank    int
	pending *protocol.Pending
	phase   string
}

func startFake(t *testing.T, id string, o natsbus.Options) *fake {
	t.Helper()
	o.Job, o.ID = job, id
	bus, err := natsbus.ConnectReplica(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{id: id, bus: bus, done: make(chan struct{}), leave: make(chan struct{}), rank: -1}
	go f.run()
	t.Cleanup(f.kill)
	return f
}

// kill drops the connection without a word.
func (f *fake) kill() {
	f.bus.Close()
	<-f.done
}

func (f *fake) run() {
	defer close(f.done)
	beat := time.NewTicker(protocol.HeartbeatEvery)
	defer beat.Stop()
	f.hello()
	leave := f.leave
	for {
		select {
		case m, open := <-f.bus.Messages():
			if !open || f.take(m) {
				return
			}
		case <-beat.C:
			h := &protocol.Heartbeat{Phase: f.phase}
			if f.round != nil {
				h.Round, h.Step = f.round.Round, f.step+1
			}
			f.send(protocol.Message{Heartbeat: h})
		case <-leave:
			leave = nil
			f.send(protocol.Message{Leaving: &protocol.Leaving{Reason: "test"}})
		}
	}
}

func (f *fake) send(m protocol.Message) {
	if err := f.bus.Send(context.Background(), m); err != nil && f.err == nil {
		f.err = err
	}
}

func (f *fake) hello() {
	h := &protocol.Hello{
		ID: f.id, Name: f.id, Binary: "build", Config: "cfg", Data: protocol.Data{Kind: "idx", Train: 1 << 20, Digest: "d"}, Pending: f.pending,
	}
	if f.holds {
		h.State = &protocol.Position{Step: f.step, Digest: f.state()}
	}
	f.send(protocol.Message{Hello: h})
}

func (f *fake) state() string { return fmt.Sprintf("state %d", f.step) }

func (f *fake) take(m protocol.Message) (done bool) {
	switch {
	case m.Welcome != nil:
		f.known = true
	case m.Again != nil:
		f.hello()
	case m.Refused != nil:
		f.err = errors.New(m.Refused.Field)
		return true
	case m.Round != nil:
		f.enter(m.Round)
	case m.Commit != nil && f.pending != nil && f.pending.Step == m.Commit.Step:
		f.apply(m.Commit)
	case m.Snapshot != nil && f.step == m.Snapshot.Step:
		f.upload()
	case m.Stop != nil:
		if m.Stop.Failed {
			f.err = errors.New(m.Stop.Reason)
		}
		f.bus.Close()
		return true
	}
	return false
}

func (f *fake) enter(r *protocol.Round) {
	f.round, f.pending, f.rank = r, nil, -1
	for rank, m := range r.Members {
		if m.ID != f.id {
			continue
		}
		f.rank = rank
		switch m.State {
		case protocol.FromSeed:
			f.step = 0
		case protocol.FromPeer:
			f.step = r.Step - 1
		case protocol.FromCheckpoint:
			data, err := f.bus.Download(context.Background(), r.Checkpoint)
			if err == nil {
				_, err = fmt.Sscanf(string(data), "state %d", &f.step)
			}
			if err != nil {
				f.err = err
			}
		}
		f.holds = true
		f.vote()
	}
}

func (f *fake) vote() {
	step := f.step + 1
	v := &protocol.Ready{Round: f.round.Round, Step: step, Digest: fmt.Sprintf("g%d", step) + f.digest, BusyMS: 1}
	for _, g := range f.round.Members[f.rank].Groups {
		v.Groups = append(v.Groups, protocol.GroupReport{Group: g, Figures: figures.Figures{Loss: 1}})
	}
	f.pending = &protocol.Pending{Round: v.Round, Step: v.Step, Digest: v.Digest}
	f.phase = protocol.PhaseReady
	f.send(protocol.Message{Ready: v})
}

func (f *fake) apply(c *protocol.Commit) {
	f.step, f.pending = c.Step, nil
	f.send(protocol.Message{Applied: &protocol.Applied{Round: c.Round, Step: c.Step, Digest: "q", StateDigest: f.state()}})
	if c.Checkpoint && f.rank == 0 {
		f.upload()
	}
	if f.round != nil && f.round.Round == c.Round && !c.EndRound {
		f.vote()
	}
}

func (f *fake) upload() {
	if err := f.bus.Upload(context.Background(), f.step, []byte(f.state())); err != nil && f.err == nil {
		f.err = err
	}
}

// check verifies that every step was recorded once and in order.
func check(t *testing.T, records []coordinator.CommitRecord) {
	t.Helper()
	for i, r := range records {
		if r.Commit.Step != int64(i)+1 || r.Commit.Cursor != 8*int64(i) {
			t.Fatalf("record %d is step %d at cursor %d", i, r.Commit.Step, r.Commit.Cursor)
		}
		if want := fmt.Sprintf("state %d", i+1); r.StateDigest != want && r.StateDigest != "" {
			t.Fatalf("after step %d the state is %q", i+1, r.StateDigest)
		}
	}
}

// Join, kill, leave, a restart of the coordinator on the same store, and an
// orderly stop, over real connections.
func TestElasticJob(t *testing.T) {
	dir, shelf, w := t.TempDir(), &shelf{}, newWatcher()
	h := startHost(t, "127.0.0.1:0", dir, shelf, w, 1<<40)
	url := h.server.URL()
	tcp := natsbus.Options{URL: url}
	a, b := startFake(t, "a", tcp), startFake(t, "b", tcp)
	c := startFake(t, "c", natsbus.Options{Server: h.server})
	w.more(t, 5, 3)

	c.kill()
	w.more(t, 5, 2)

	d := startFake(t, "d", tcp)
	w.more(t, 5, 3)

	close(b.leave)
	w.more(t, 5, 2)
	<-b.done

	status, err := natsbus.RequestStatus(t.Context(), natsbus.Options{Job: job, URL: url})
	if err != nil || status.Phase != "running" || status.World != 2 || len(status.Replicas) != 2 {
		t.Errorf("status %+v, %v", status, err)
	}

	h.end()
	if err := h.wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("a killed coordinator: %v", err)
	}
	h = startHost(t, strings.TrimPrefix(url, "nats://"), dir, shelf, w, 1<<40)
	w.more(t, 5, 2)

	h.coord.Stop("test")
	if err := h.wait(); err != nil {
		t.Errorf("an orderly stop: %v", err)
	}
	for _, f := range []*fake{a, b, d} {
		<-f.done
		if f.err != nil {
			t.Errorf("replica %s: %v", f.id, f.err)
		}
	}
	records := w.snapshot()
	check(t, records)
	if last := records[len(records)-1].Commit; !last.Final || shelf.last.Step != last.Step {
		t.Errorf("the last commit is %+v, the last checkpoint %+v", last, shelf.last)
	}
}

// A job runs to its end, is found done, and goes on when asked for more: from
// the checkpoint, as nobody else has the state.
func TestResume(t *testing.T) {
	dir, shelf, w := t.TempDir(), &shelf{}, newWatcher()
	for _, steps := range []int64{25, 25, 40} {
		h := startHost(t, "", dir, shelf, w, steps)
		f := startFake(t, fmt.Sprintf("r%d", steps), natsbus.Options{Server: h.server})
		if err := h.wait(); err != nil {
			t.Fatal(err)
		}
		f.kill()
		h.end()
		check(t, w.snapshot())
		if n := len(w.snapshot()); int64(n) != steps || shelf.last.Step != steps {
			t.Fatalf("%d steps recorded, checkpoint %+v, want %d", n, shelf.last, steps)
		}
	}
}

// Replicas whose gradients differ every time fail the job, which names them.
func TestDisagreementFailsTheJob(t *testing.T) {
	w := newWatcher()
	h := startHost(t, "", t.TempDir(), &shelf{}, w, 1<<40)
	a := startFake(t, "a", natsbus.Options{Server: h.server})
	w.more(t, 1, 1)
	o := natsbus.Options{Server: h.server, Job: job, ID: "b"}
	bus, err := natsbus.ConnectReplica(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	b := &fake{id: "b", digest: "?", bus: bus, done: make(chan struct{}), leave: make(chan struct{}), rank: -1}
	go b.run()
	t.Cleanup(b.kill)
	if err := h.wait(); !errors.Is(err, coordinator.ErrJobFailed) || !strings.Contains(err.Error(), "b (b)") {
		t.Errorf("%v", err)
	}
	for _, f := range []*fake{a, b} {
		<-f.done
		if f.err == nil || !strings.Contains(f.err.Error(), "gradients of a (a), b (b) differ") {
			t.Errorf("replica %s heard %v", f.id, f.err)
		}
	}
}

// A second coordinator waits for the lease and takes over when it is given up.
func TestStandbyCoordinator(t *testing.T) {
	w := newWatcher()
	h := startHost(t, "", t.TempDir(), &shelf{}, w, 1<<40)
	f := startFake(t, "a", natsbus.Options{Server: h.server})
	w.more(t, 3, 1)
	lease, err := jetstream.NewLease(t.Context(), h.bus.Conn(), job, "second", 3*time.Second, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() { second <- lease.Acquire(context.Background()) }()
	h.coord.Stop("hand over")
	if err := h.wait(); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	<-f.done
}

// A coordinator whose log somebody else has written to stops deciding and
// leaves the replicas to the other.
func TestFencedCoordinatorSteps(t *testing.T) {
	w := newWatcher()
	h := startHost(t, "", t.TempDir(), &shelf{}, w, 1<<40)
	f := startFake(t, "a", natsbus.Options{Server: h.server})
	w.more(t, 2, 1)
	other, err := jetstream.Open(t.Context(), h.bus.Conn(), job)
	if err != nil {
		t.Fatal(err)
	}
	for appended := false; !appended; {
		last, _, err := other.Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		last.Step, last.Digest = last.Step+1, "of the other coordinator"
		err = other.Append(t.Context(), last)
		appended = err == nil
		if err != nil && !errors.Is(err, coordinator.ErrFenced) {
			t.Fatal(err)
		}
	}
	if err := h.wait(); !errors.Is(err, coordinator.ErrFenced) {
		t.Errorf("%v", err)
	}
	select {
	case <-f.done:
		t.Error("the replica was sent away")
	default:
	}
}

// A replica that comes while the coordinator is about to go hears that the job
// is over; nobody would tell it later.
func TestLatecomerIsSentHome(t *testing.T) {
	h := startHost(t, "127.0.0.1:0", t.TempDir(), &shelf{}, newWatcher(), 3)
	connect := func(id string) (receive func() protocol.Message, send func(protocol.Message)) {
		bus, err := natsbus.ConnectReplica(t.Context(), natsbus.Options{Job: job, ID: id, Server: h.server})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(bus.Close)
		receive = func() protocol.Message {
			t.Helper()
			select {
			case m := <-bus.Messages():
				return m
			case <-time.After(20 * time.Second):
				t.Fatalf("nobody says anything to %s", id)
				return protocol.Message{}
			}
		}
		return receive, func(m protocol.Message) {
			if err := bus.Send(t.Context(), m); err != nil {
				t.Error(err)
			}
		}
	}
	hello := func(id string) protocol.Message {
		return protocol.Message{Hello: &protocol.Hello{ID: id, Binary: "build", Config: "cfg", Data: protocol.Data{Kind: "fake", Train: 80}}}
	}
	fromLate, late := connect("late")
	fromFirst, first := connect("first")           // ends the job, and stays connected: the coordinator lingers
	again := time.NewTicker(20 * time.Millisecond) // the coordinator may not listen yet
	defer again.Stop()
	heard := make(chan bool)
	go func() {
		for {
			first(hello("first"))
			select {
			case <-heard:
				return
			case <-again.C:
			}
		}
	}()
	welcome := fromFirst()
	heard <- true
	for m := welcome; m.Stop == nil; m = fromFirst() {
		if m.Round != nil {
			first(protocol.Message{Failed: &protocol.Failed{Round: m.Round.Round, Step: 1, Fatal: true, Error: "test"}})
		}
	}
	late(hello("late"))
	if m := fromLate(); m.Stop == nil || !m.Stop.Failed || !strings.Contains(m.Stop.Reason, "test") {
		t.Errorf("got %+v, want to be sent home", m)
	}
	if err := h.wait(); !errors.Is(err, coordinator.ErrJobFailed) {
		t.Errorf("the job ended with %v", err)
	}
}
