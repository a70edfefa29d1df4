package natsbus_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	core "mochi/coordinator"
	"mochi/coordinator/bustest"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	mochireplica "mochi/replica"
)

// relay passes connections on to a server, and can reset them: what lies between
// a replica and its coordinator.
type relay struct {
	listener net.Listener
	to       func() string // address; "" when there is no server
	accepted atomic.Int64  // and passed on

	mu     sync.Mutex
	conns  []net.Conn
	frozen chan struct{} // nil, or closed by thaw
}

// freeze makes what arrives wait.
func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = make(chan struct{})
}

// thaw lets it go on.
func (r *relay) thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frozen != nil {
		close(r.frozen)
	}
	r.frozen = nil
}

// Write implements io.Writer for what passes.
func (w passing) Write(p []byte) (int, error) {
	w.r.mu.Lock()
	frozen := w.r.frozen
	w.r.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
	return w.Conn.Write(p)
}

type passing struct {
	net.Conn
	r *relay
}

func newRelay(t *testing.T, to func() string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, to: to}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", r.to())
			if err != nil {
				in.Close()
				continue
			}
			r.accepted.Add(1)
			r.mu.Lock()
			r.conns = append(r.conns, in, out)
			r.mu.Unlock()
			for _, c := range [][2]net.Conn{{in, out}, {out, in}} {
				running.Go(func() {
					io.Copy(passing{c[0], r}, c[1])
					in.Close()
					out.Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.thaw()
		r.reset()
		running.Wait()
	})
	return r
}

// reset ends all connections at once.
func (r *relay) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		c.Close()
	}
	r.conns = nil
}

// bench is the bus over NATS as bustest wants it. Each coordinator that is started
// leads in place of the one before, at the next of so many places.
type bench struct {
	t        *testing.T
	mu       sync.Mutex
	address  []string // by place, "" where nobody leads
	place    int      // of the one that leads
	server   *natsbus.Server
	bus      *natsbus.Coordinator
	relays   map[string][]*relay // by place
	replicas map[string]*natsbus.Replica
}

func (b *bench) Start(s *bustest.Store) (core.Bus, error) {
	server, err := natsbus.StartServer(natsbus.ServerOptions{Listen: "127.0.0.1:0"})
	if err != nil {
		return nil, err
	}
	bus, err := natsbus.ConnectCoordinator(timeout(b.t), natsbus.Options{Job: job, Server: server})
	if err != nil {
		server.Shutdown()
		return nil, err
	}
	b.mu.Lock()
	b.place = (b.place + 1) % len(b.address)
	b.address[b.place] = server.URL()[len("nats://"):]
	b.mu.Unlock()
	b.server, b.bus = server, bus
	return bus, bus.Serve(func() protocol.Status { return protocol.Status{} }, s.Wants, s.Save, s.Open)
}

func (b *bench) Stop() {
	if b.server != nil {
		b.bus.Close()
		b.server.Shutdown()
	}
	b.server = nil
	b.mu.Lock()
	b.address[b.place] = ""
	b.mu.Unlock()
}

func (b *bench) Connect(id string) (mochireplica.Link, error) {
	var urls []string
	for place := range b.address {
		r := newRelay(b.t, func() string {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.address[place]
		})
		b.relays[id], urls = append(b.relays[id], r), append(urls, r.listener.Addr().String())
	}
	r, err := natsbus.ConnectReplica(timeout(b.t), natsbus.Options{Job: job, ID: id, URL: strings.Join(urls, ",")})
	b.replicas[id] = r
	return r, err
}

func (b *bench) Close(id string) { b.replicas[id].Close() }
func (b *bench) Break(id string) {
	for _, r := range b.relays[id] {
		r.reset()
	}
}

// The bus over NATS does what is asked of every bus, with one coordinator that is
// started again, and with two that lead in turn.
func TestConformance(t *testing.T) {
	for _, c := range bustest.Cases() {
		for places := 1; places <= 2; places++ {
			t.Run(fmt.Sprintf("%s/%d", c.Name, places), func(t *testing.T) {
				b := &bench{t: t, address: make([]string, places), relays: map[string][]*relay{}, replicas: map[string]*natsbus.Replica{}}
				t.Cleanup(func() {
					for _, r := range b.replicas {
						r.Close()
					}
					b.Stop()
				})
				if err := c.Run(b); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
