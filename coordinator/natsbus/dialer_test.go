package natsbus_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
)

// stranger accepts connections, does something with each, and closes it.
func stranger(t *testing.T, do func(net.Conn)) (address string, accepted *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = new(atomic.Int64)
	var running sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			running.Go(func() {
				do(c)
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().String(), accepted
}

func silent(c net.Conn) { io.Copy(io.Discard, c) }

func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		c.Write([]byte(text))
		io.Copy(io.Discard, c)
	}
}

func endless(text string) func(net.Conn) {
	return func(c net.Conn) {
		for {
			if _, err := c.Write([]byte(text)); err != nil {
				return
			}
		}
	}
}

// eventually waits for something that other goroutines bring about.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx := timeout(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("it does not happen that %s", what)
		case <-tick.C:
		}
	}
}

// exchange sends a message up until it arrives, and one down.
func exchange(t *testing.T, c *natsbus.Coordinator, r *natsbus.Replica, n int64) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for up := false; !up; {
		if err := r.Send(t.Context(), protocol.Message{Applied: &protocol.Applied{Step: n}}); err != nil {
			t.Fatal(err)
		}
		select {
		case m := <-c.Messages():
			up = m.Applied != nil && m.Applied.Step == n
		case <-tick.C:
		case <-deadline:
			t.Fatal("nothing arrives at the coordinator")
		}
	}
	if err := c.Send("a", protocol.Message{Commit: &protocol.Commit{Step: n}}); err != nil {
		t.Fatal(err)
	}
	for receive(t, r.Messages()).Commit.Step != n {
	}
}

// free is an address at which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Among strangers of all kinds the coordinator is found, wherever it stands, and
// nothing is left of the search.
func TestStrangersAreNoCoordinators(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("among them", func(t *testing.T) {
		var all []string
		for _, do := range []func(net.Conn){
			silent,
			func(net.Conn) {},
			says("HTTP/1.1 400 Bad Request\r\n\r\n"),
			says("INFO {}\r\n"),
			says("INFO {\"server_id\":7}\r\n"),
			says("INFO not JSON\r\n"),
			says("INF"),
			says("INFO {\"server_id\":\"half of"),
			endless("INFO {"),
			endless("x"),
		} {
			address, _ := stranger(t, do)
			all = append(all, address)
		}
		all = append(all, free(t))
		_, err := natsbus.RequestStatus(t.Context(), natsbus.Options{Job: job, URL: strings.Join(all, ",")})
		if err == nil || !strings.Contains(err.Error(), all[2]+": it is no NATS server") || !strings.Contains(err.Error(), all[10]+": dial tcp") {
			t.Errorf("nobody leads: %v", err)
		}
		server := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0"})
		all = append(all, server.URL())
		c := coordinator(t, natsbus.Options{Server: server}, &store{})
		r := replica(t, natsbus.Options{URL: strings.Join(all, ","), ID: "a"})
		exchange(t, c, r, 1)
		if !strings.HasSuffix(server.URL(), r.RemoteAddr()) {
			t.Errorf("connected to %s, want %s", r.RemoteAddr(), server.URL())
		}
	})
	eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

// A leader that ends is left for the next one, which is greeted at once; one that
// comes up at an address that only the Welcome told of, too.
func TestTheNextLeaderIsFound(t *testing.T) {
	first := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0"})
	c1 := coordinator(t, natsbus.Options{Server: first}, &store{})
	r := replica(t, natsbus.Options{URL: first.URL(), ID: "a"})
	exchange(t, c1, r, 1)
	other := free(t)
	if err := c1.Send("a", protocol.Message{Welcome: &protocol.Welcome{Coordinators: []string{strings.TrimPrefix(first.URL(), "nats://"), other}}}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, r.Messages()); m.Welcome == nil {
		t.Fatalf("%+v", m)
	}
	c1.Close()
	first.Shutdown()
	second := start(t, natsbus.ServerOptions{Listen: other})
	c2 := coordinator(t, natsbus.Options{Server: second}, &store{})
	receive(t, r.Moved())
	exchange(t, c2, r, 2)
}

// lines are what was logged. It is safe for concurrent use.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// A leader that stands still is left when another one greets, and not before.
func TestAStoppedLeaderIsLeft(t *testing.T) {
	first := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0"})
	c1 := coordinator(t, natsbus.Options{Server: first}, &store{})
	way := newRelay(t, func() string { return strings.TrimPrefix(first.URL(), "nats://") })
	var leads atomic.Pointer[string]
	called := make(chan bool, 1000)
	other := newRelay(t, func() string {
		called <- true
		if a := leads.Load(); a != nil {
			return *a
		}
		return ""
	})
	log := &lines{}
	r := replica(t, natsbus.Options{
		URL: way.listener.Addr().String() + "," + other.listener.Addr().String(), ID: "a",
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	exchange(t, c1, r, 1)
	for len(called) > 0 {
		<-called
	}

	// Nothing passes for so long that the other one is called again and again.
	way.freeze()
	for range 5 {
		receive(t, called)
	}
	way.thaw()
	exchange(t, c1, r, 2)
	if n := way.accepted.Load(); n != 1 {
		t.Errorf("%d connections were made, although nobody else leads", n)
	}
	for len(called) > 0 { // those that were under way
		<-called
	}

	way.freeze()
	receive(t, called)
	second := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0"})
	c2 := coordinator(t, natsbus.Options{Server: second}, &store{})
	address := strings.TrimPrefix(second.URL(), "nats://")
	leads.Store(&address)
	receive(t, r.Moved())
	if !log.has("the coordinator is silent, and another one answers") {
		t.Error("it was left for another reason than that it is silent")
	}
	exchange(t, c2, r, 3)
}

// A checkpoint that was on its way to a leader that stands still arrives at the
// next one.
func TestAnUploadMovesToTheNextLeader(t *testing.T) {
	first := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0"})
	began := make(chan bool)
	c1, err := natsbus.ConnectCoordinator(timeout(t), natsbus.Options{Job: job, Server: first})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c1.Close)
	stored := &store{saved: make(chan []byte, 1)}
	save := func(ctx context.Context, _ string, _ int64, r io.Reader) error {
		if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
			return err
		}
		close(began)
		<-ctx.Done() // it stands still
		return ctx.Err()
	}
	if err := c1.Serve(func() protocol.Status { return protocol.Status{} }, wanted, save, stored.open); err != nil {
		t.Fatal(err)
	}
	way := newRelay(t, func() string { return strings.TrimPrefix(first.URL(), "nats://") })
	second := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0"})
	var leads atomic.Bool
	other := newRelay(t, func() string {
		if leads.Load() {
			return strings.TrimPrefix(second.URL(), "nats://")
		}
		return ""
	})
	r := replica(t, natsbus.Options{URL: way.listener.Addr().String() + "," + other.listener.Addr().String(), ID: "a"})
	state := bytes.Repeat([]byte("moch"), 1<<20)
	ctx := timeout(t)
	done := make(chan error, 1)
	go func() { done <- r.Upload(ctx, 3, state) }()
	<-began
	way.freeze()
	coordinator(t, natsbus.Options{Server: second}, stored)
	leads.Store(true)
	if got := receive(t, stored.saved); !bytes.Equal(got, state) {
		t.Errorf("%d bytes arrived", len(got))
	}
	if err := receive(t, done); err != nil {
		t.Error(err)
	}
}
