package natsring_test

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mochi/allreduce/natsring"
)

// tunnel forwards TCP connections to a server until it hangs: then nothing
// moves and nothing closes, as with a stopped process.
type tunnel struct {
	net.Listener
	hung  atomic.Bool
	conns chan net.Conn
}

func newTunnel(t *testing.T, server string) *tunnel {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tun := &tunnel{Listener: l, conns: make(chan net.Conn, 16)}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			host, err := net.Dial("tcp", strings.TrimPrefix(server, "nats://"))
			if err != nil {
				client.Close()
				continue
			}
			tun.conns <- client
			tun.conns <- host
			go tun.copy(host, client)
			go tun.copy(client, host)
		}
	}()
	return tun
}

func (tun *tunnel) copy(to io.Writer, from io.Reader) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if !tun.hung.Load() {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}

// end closes everything.
func (tun *tunnel) end() {
	tun.Close()
	for len(tun.conns) > 0 {
		(<-tun.conns).Close()
	}
}

// TestHungPredecessorDoesNotDelayTheNextRound: the connections to it are
// dropped without waiting until it takes what was written.
func TestHungPredecessorDoesNotDelayTheNextRound(t *testing.T) {
	all, peers := nodes(t, 3, pull)
	tun := newTunnel(t, all[2].URL())
	defer tun.end()
	behind := append([]natsring.Peer(nil), peers...)
	behind[2].URL = "nats://" + tun.Addr().String()
	old, err := all[0].Ring(t.Context(), 1, 0, behind, natsring.Auto)
	if err != nil {
		t.Fatal(err)
	}
	tun.hung.Store(true)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	next, err := all[0].Ring(t.Context(), 2, 0, peers[:2], natsring.Auto)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the next round's ring took %v to open", took)
	}
}
