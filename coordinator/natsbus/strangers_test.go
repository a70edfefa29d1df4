package natsbus_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/allreduce/natsserver"
	"mochi/coordinator/identity"
	"mochi/coordinator/protocol"
)

// mute are connections to a server that say nothing.
func mute(t *testing.T, url string, n int) (conns []net.Conn) {
	t.Helper()
	for range n {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn)
	}
	return conns
}

// open is how many connections the server has not closed by a time.
func open(conns []net.Conn, by time.Time) (n int) {
	for _, conn := range conns {
		_ = conn.SetReadDeadline(by)
		var timeout net.Error
		if _, err := conn.Read(make([]byte, 1)); errors.As(err, &timeout) && timeout.Timeout() {
			n++
		}
	}
	return n
}

// Whoever connects and says nothing is closed when others of that address do the same, long
// before its time is over, and keeps out nobody who has a token.
func TestSilentStrangersKeepNobodyOut(t *testing.T) {
	g := secured(t)
	conns := mute(t, g.server.URL(), 400)
	began := time.Now()
	r := replica(t, g.options(identity.NewKey(), identity.Join))
	if err := r.Send(timeout(t), protocol.Message{Leaving: &protocol.Leaving{}}); err != nil {
		t.Fatal(err)
	}
	receive(t, g.Messages())
	if n := open(conns, began.Add(4*time.Second)); n > 100 { // 64, and those since it was looked at
		t.Errorf("%d of %d silent connections of one address are open after 4 s", n, len(conns))
	}
}

// The places of clients are for those that are let in; they are no more than that.
func TestPlacesAreForClients(t *testing.T) {
	const places = 4
	s, err := natsserver.Start(natsserver.Options{Listen: "127.0.0.1:0", Clients: places, Admit: func(natsserver.Client) (natsserver.Rights, error) {
		return natsserver.Rights{Publish: []string{"x"}, Subscribe: []string{"x"}}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	mute(t, s.URL(), 4*places)
	closed := make(chan string, 2*places)
	for i := range 2 * places {
		name := fmt.Sprint("client", i)
		nc, err := nats.Connect(s.URL(), nats.Name(name), nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { closed <- name }))
		if err != nil {
			t.Fatalf("%s, beside connections that say nothing: %v", name, err)
		}
		t.Cleanup(nc.Close)
		if i < places {
			continue
		}
		if got := receive(t, closed); got != name {
			t.Errorf("%s is closed for %s", got, name)
		}
	}
}
