package natsbus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
)

const job = "test"

func start(t *testing.T, o natsbus.ServerOptions) *natsbus.Server {
	t.Helper()
	s, err := natsbus.StartServer(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// store is where a test coordinator puts checkpoints.
type store struct {
	saved chan []byte
	fail  error
	files map[string][]byte
}

func (s *store) save(_ context.Context, _ string, _ int64, r io.Reader) error {
	if s.fail != nil {
		return s.fail
	}
	data, err := io.ReadAll(r)
	if err == nil {
		s.saved <- data
	}
	return err
}

// wanted: all checkpoints are.
func wanted(string, int64) error { return nil }

type file struct{ *bytes.Reader }

func (file) Close() error { return nil }

func (s *store) open(name string) (io.ReadSeekCloser, error) {
	data, ok := s.files[name]
	if !ok {
		return nil, fmt.Errorf("no checkpoint %s", name)
	}
	return file{bytes.NewReader(data)}, nil
}

func coordinator(t *testing.T, o natsbus.Options, s *store) *natsbus.Coordinator {
	t.Helper()
	o.Job = job
	c, err := natsbus.ConnectCoordinator(timeout(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	status := func() protocol.Status { return protocol.Status{Job: job, Phase: "running", Step: 7} }
	if err := c.Serve(status, wanted, s.save, s.open); err != nil {
		t.Fatal(err)
	}
	return c
}

func replica(t *testing.T, o natsbus.Options) *natsbus.Replica {
	t.Helper()
	o.Job = job
	r, err := natsbus.ConnectReplica(timeout(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v, ok := <-ch:
		if !ok {
			t.Fatal("channel closed")
		}
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing received")
	}
	panic("unreachable")
}

// Both kinds of connection carry the same traffic.
func TestMessagesAndDisconnect(t *testing.T) {
	server := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0"})
	for name, o := range map[string]natsbus.Options{
		"in-process": {Server: server},
		"tcp":        {URL: server.URL()},
	} {
		t.Run(name, func(t *testing.T) {
			c := coordinator(t, natsbus.Options{Server: server}, &store{})
			defer c.Close()
			o.ID = "a"
			r := replica(t, o)
			for i := range 200 {
				if err := r.Send(t.Context(), protocol.Message{Applied: &protocol.Applied{Step: int64(i)}}); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 200 {
				m := receive(t, c.Messages())
				if m.From != "a" || m.Version != protocol.Version || m.Applied == nil || m.Applied.Step != int64(i) {
					t.Fatalf("message %d: %+v", i, m)
				}
				if err := c.Send("a", protocol.Message{Commit: &protocol.Commit{Step: int64(i)}}); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 200 {
				if m := receive(t, r.Messages()); m.Commit == nil || m.Commit.Step != int64(i) {
					t.Fatalf("commit %d: %+v", i, m)
				}
			}
			status, err := r.Status(timeout(t))
			if err != nil || status.Step != 7 {
				t.Fatalf("status %+v, %v", status, err)
			}
			r.Close()
			for receive(t, c.Lost()) != "a" { // others end too: the coordinator of the test before
			}
			if _, open := <-r.Messages(); open {
				t.Error("Messages is still open after Close")
			}
		})
	}
}

func TestRequestStatus(t *testing.T) {
	server := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0"})
	_, err := natsbus.RequestStatus(timeout(t), natsbus.Options{Job: job, URL: server.URL()})
	if err == nil || !strings.Contains(err.Error(), "no coordinator") {
		t.Errorf("without a coordinator: %v", err)
	}
	coordinator(t, natsbus.Options{Server: server}, &store{})
	s, err := natsbus.RequestStatus(timeout(t), natsbus.Options{Job: job, URL: server.URL()})
	if err != nil || s.Phase != "running" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestRefusals(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	dir := t.TempDir()
	start(t, natsbus.ServerOptions{StoreDir: dir})

	startErr := func(o natsbus.ServerOptions) error {
		s, err := natsbus.StartServer(o)
		if err == nil {
			s.Shutdown()
		}
		return err
	}
	connectErr := func(o natsbus.Options) error {
		r, err := natsbus.ConnectReplica(t.Context(), o)
		if err == nil {
			r.Close()
		}
		return err
	}
	for want, err := range map[string]error{
		"address already in use":      startErr(natsbus.ServerOptions{Listen: busy.Addr().String()}),
		"HOST:PORT":                   startErr(natsbus.ServerOptions{Listen: "4222"}),
		"not a number":                startErr(natsbus.ServerOptions{Listen: "127.0.0.1:x"}),
		"in use by another":           startErr(natsbus.ServerOptions{StoreDir: dir}),
		"is the coordinator running":  connectErr(natsbus.Options{Job: job, ID: "a", URL: "nats://127.0.0.1:1"}),
		"job name \"a b\"":            connectErr(natsbus.Options{Job: "a b", ID: "a", URL: "nats://127.0.0.1:1"}),
		"replica id \"a.b\"":          connectErr(natsbus.Options{Job: job, ID: "a.b", URL: "nats://127.0.0.1:1"}),
		"neither an embedded server":  connectErr(natsbus.Options{Job: job, ID: "a"}),
		"create the state directory:": startErr(natsbus.ServerOptions{StoreDir: "/dev/null/x"}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

func TestCheckpoints(t *testing.T) {
	state := make([]byte, 3<<20+17)
	for i := range state {
		state[i] = byte(i * i >> 3)
	}
	server := start(t, natsbus.ServerOptions{})
	s := &store{saved: make(chan []byte, 1), files: map[string][]byte{"step-9": state}}
	coordinator(t, natsbus.Options{Server: server}, s)
	r := replica(t, natsbus.Options{Server: server, ID: "a"})

	for _, part := range [][]byte{state, state[:1], state[:512<<10], state[:1<<20]} {
		if err := r.Upload(timeout(t), 9, part); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, s.saved); !bytes.Equal(got, part) {
			t.Fatalf("%d bytes arrived, not the %d sent", len(got), len(part))
		}
	}
	got, err := r.Download(timeout(t), "step-9")
	if err != nil || !bytes.Equal(got, state) {
		t.Fatalf("download: %d bytes, %v", len(got), err)
	}
	if _, err := r.Download(timeout(t), "step-8"); err == nil || !strings.Contains(err.Error(), "no checkpoint step-8") {
		t.Errorf("a missing checkpoint: %v", err)
	}
	if err := r.Upload(timeout(t), 9, nil); err == nil {
		t.Error("an empty checkpoint was accepted")
	}
	s.fail = errors.New("no space left on device")
	if err := r.Upload(timeout(t), 10, state); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("a full disk: %v", err)
	}
}

// A replica that is back on a new connection has lost the old one then, and not
// when the server notices its end; it is lost again when the new one ends.
func TestTheEndOfAnOldConnection(t *testing.T) {
	server := start(t, natsbus.ServerOptions{})
	c := coordinator(t, natsbus.Options{Server: server}, &store{})
	old := replica(t, natsbus.Options{Server: server, ID: "a"})
	now := replica(t, natsbus.Options{Server: server, ID: "a"})
	if gone := receive(t, c.Lost()); gone != "a" {
		t.Errorf("%s is lost, want a, whose connection was replaced", gone)
	}
	other := replica(t, natsbus.Options{Server: server, ID: "b"})
	old.Close()
	other.Close()
	if gone := receive(t, c.Lost()); gone != "b" {
		t.Errorf("%s is lost, want only b", gone)
	}
	now.Close()
	if gone := receive(t, c.Lost()); gone != "a" {
		t.Errorf("%s is lost, want a", gone)
	}
}

// An upload that gets on is not given up for another one: that waits, and both
// arrive whole.
func TestUploadsWaitForEachOther(t *testing.T) {
	server := start(t, natsbus.ServerOptions{})
	bus, err := natsbus.ConnectCoordinator(timeout(t), natsbus.Options{Job: job, Server: server})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	began, goOn := make(chan string, 2), make(chan bool)
	type arrived struct {
		from string
		data []byte
		err  error
	}
	all := make(chan arrived, 2)
	err = bus.Serve(func() protocol.Status { return protocol.Status{} }, wanted,
		func(_ context.Context, from string, _ int64, r io.Reader) error {
			var head [1]byte
			if _, err := io.ReadFull(r, head[:]); err != nil {
				return err
			}
			began <- from
			<-goOn
			rest, err := io.ReadAll(r)
			all <- arrived{from, append(head[:], rest...), err}
			return err
		}, nil)
	if err != nil {
		t.Fatal(err)
	}
	states := map[string][]byte{"a": bytes.Repeat([]byte("a"), 3<<20), "b": bytes.Repeat([]byte("b"), 1<<20)}
	done := make(chan error, 2)
	send := func(id string) {
		r := replica(t, natsbus.Options{Server: server, ID: id})
		ctx := timeout(t)
		go func() { done <- r.Upload(ctx, 3, states[id]) }()
	}
	send("a")
	if got := receive(t, began); got != "a" {
		t.Fatalf("%s began", got)
	}
	asked, err := bus.Conn().SubscribeSync(protocol.CheckpointSubject(job, "*"))
	if err != nil {
		t.Fatal(err)
	}
	send("b")
	for n := 0; n < 2; { // it comes again: the first time it had an answer
		m, err := asked.NextMsgWithContext(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		if protocol.Sender(m.Subject) == "b" {
			n++
		}
	}
	goOn <- true
	goOn <- true
	for range 2 {
		if got := receive(t, all); got.err != nil || !bytes.Equal(got.data, states[got.from]) {
			t.Errorf("%s: %d bytes arrived, %v", got.from, len(got.data), got.err)
		}
		if err := receive(t, done); err != nil {
			t.Error(err)
		}
	}
}

// Many replicas may read a checkpoint at once.
func TestDownloadsBesideEachOther(t *testing.T) {
	state := bytes.Repeat([]byte("moch"), 1<<18+5)
	server := start(t, natsbus.ServerOptions{})
	coordinator(t, natsbus.Options{Server: server}, &store{files: map[string][]byte{"step-9": state}})
	const n = 24
	done := make(chan error, n)
	for i := range n {
		r := replica(t, natsbus.Options{Server: server, ID: fmt.Sprintf("r%d", i)})
		ctx := timeout(t)
		go func() {
			got, err := r.Download(ctx, "step-9")
			if err == nil && !bytes.Equal(got, state) {
				err = fmt.Errorf("%d bytes are other ones", len(got))
			}
			done <- err
		}()
	}
	for range n {
		if err := receive(t, done); err != nil {
			t.Error(err)
		}
	}
}

// A coordinator that restarts in the middle asks for the file again; an
// upload that stands alone is aborted with its coordinator.
func TestUploadSurvivesRestart(t *testing.T) {
	server := start(t, natsbus.ServerOptions{})
	began, aborted := make(chan bool, 1), make(chan error, 1)
	first, err := natsbus.ConnectCoordinator(timeout(t), natsbus.Options{Job: job, Server: server})
	if err != nil {
		t.Fatal(err)
	}
	err = first.Serve(func() protocol.Status { return protocol.Status{} }, wanted,
		func(ctx context.Context, _ string, _ int64, r io.Reader) error {
			_, err := io.ReadFull(r, make([]byte, 600<<10)) // into the second piece
			began <- true
			<-ctx.Done()
			aborted <- err
			return ctx.Err()
		}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := replica(t, natsbus.Options{Server: server, ID: "a"})
	state := bytes.Repeat([]byte("moch"), 1<<19)
	uploaded := make(chan error, 1)
	ctx := timeout(t)
	go func() { uploaded <- r.Upload(ctx, 3, state) }()
	receive(t, began)
	s := &store{saved: make(chan []byte, 1)}
	go func() {
		first.Close()
		coordinatorAgain, err := natsbus.ConnectCoordinator(ctx, natsbus.Options{Job: job, Server: server})
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(coordinatorAgain.Close)
		if err := coordinatorAgain.Serve(func() protocol.Status { return protocol.Status{} }, wanted, s.save, s.open); err != nil {
			t.Error(err)
		}
	}()
	if err := receive(t, aborted); err != nil {
		t.Errorf("first attempt: %v", err)
	}
	if got := receive(t, s.saved); !bytes.Equal(got, state) {
		t.Errorf("%d bytes arrived", len(got))
	}
	if err := receive(t, uploaded); err != nil {
		t.Error(err)
	}
}

// A server that comes back at the same port finds its replicas again.
func TestReconnect(t *testing.T) {
	server := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0"})
	url := server.URL()
	r := replica(t, natsbus.Options{URL: url, ID: "a"})
	server.Shutdown()
	server = start(t, natsbus.ServerOptions{Listen: strings.TrimPrefix(url, "nats://")})
	c := coordinator(t, natsbus.Options{Server: server}, &store{})
	ctx := timeout(t)
	go func() {
		for ctx.Err() == nil { // until one arrives: those before the reconnection may be lost
			_ = r.Send(ctx, protocol.Message{Heartbeat: &protocol.Heartbeat{Step: 1}})
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	if m := receive(t, c.Messages()); m.Heartbeat == nil {
		t.Errorf("%+v", m)
	}
	if err := c.Send("a", protocol.Message{Again: &protocol.Again{Instance: "x"}}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, r.Messages()); m.Again == nil {
		t.Errorf("%+v", m)
	}
}
