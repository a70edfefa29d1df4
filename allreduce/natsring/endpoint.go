package natsring

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// purpose is what a connection is for.
type purpose int

const (
	forData    purpose = iota // publishes segments
	forControl                // publishes credits and acknowledgements
	forInbox                  // subscribes
	purposes
)

var purposeNames = [purposes]string{"data", "control", "inbox"}

// endpoint is a Node's connections to one server, made when first needed.
type endpoint struct {
	url    string
	server InProcess // in-process when not nil
	name   string
	shared bool // the hub: its loss says nothing about a peer
	pool   *pool
	tls    *tls.Config // nil: in the clear
	answer nats.Option // how its server is shown who this is; nil: it does not ask, or sees it in TLS
	peer   string      // whose server it is

	mu    sync.Mutex
	conns [purposes]*nats.Conn
	taps  [purposes]*tap // below them
	once  sync.Once
	dead  chan struct{} // closed when a connection was lost
	why   error         // set before
}

func newEndpoint(url string, s InProcess, name string, p *pool) *endpoint {
	return &endpoint{url: url, server: s, name: name, pool: p, dead: make(chan struct{})}
}

// retryEvery is the pause between attempts to connect.
const retryEvery = 50 * time.Millisecond

// conn is the connection for a purpose. It connects when there is none yet,
// again and again until ctx ends.
func (e *endpoint) conn(ctx context.Context, p purpose) (*nats.Conn, error) {
	for {
		nc, err := e.connect(ctx, p)
		if err == nil {
			return nc, nil
		}
		select {
		case <-time.After(retryEvery):
		case <-e.dead:
			return nil, e.why
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (e *endpoint) connect(ctx context.Context, p purpose) (*nats.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns[p] != nil {
		return e.conns[p], nil
	}
	if e.isDead() {
		return nil, e.why
	}
	wait := 2 * time.Second // one attempt's share
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, max(time.Until(deadline), time.Millisecond))
	}
	opts := []nats.Option{
		nats.Name(e.name + " " + purposeNames[p]),
		nats.Timeout(wait),
		nats.IgnoreDiscoveredServers(),
		nats.PingInterval(2 * time.Second), // finds a host that vanished without closing
		nats.MaxPingsOutstanding(2),
		// The loss of a connection ends the round. It is not closed at once,
		// because closing throws away what has arrived and waits to be
		// handled; so it "reconnects", in an hour, and is closed long before.
		nats.MaxReconnects(1),
		nats.ReconnectWait(time.Hour),
		nats.ReconnectJitter(0, 0),
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) { e.lost(nc, p, err) }),
		// Slow consumers are the errors reported here; what they drop, the
		// sequence numbers notice.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}
	made := func(t *tap) { e.taps[p] = t } // under e.mu, from Connect
	if e.server != nil {
		opts = append(opts, nats.InProcessServer(inProcess{e.server, made, e.pool}))
		if own, ok := e.server.(interface{ Own() (string, string) }); ok {
			opts = append(opts, nats.UserInfo(own.Own()))
		}
	} else {
		opts = append(opts, nats.SetCustomDialer(&dialer{net.Dialer{Timeout: wait}, e.tls, made, e.pool}))
	}
	if e.answer != nil {
		opts = append(opts, e.answer)
	}
	nc, err := nats.Connect(e.url, opts...)
	if err != nil {
		return nil, err
	}
	e.conns[p] = nc
	return nc, nil
}

// lostGrace is how long the loss of a publishing connection waits for the
// subscribing one's.
const lostGrace = 500 * time.Millisecond

// lost marks the endpoint dead, but not before everything that had arrived has
// been handled: it may say that the peer was about to leave. It runs in the
// connection's own callback goroutine.
func (e *endpoint) lost(nc *nats.Conn, p purpose, err error) {
	if err == nil {
		err = nats.ErrConnectionClosed
	}
	end := func() { e.end(fmt.Errorf("connection to its server lost: %w", err)) }
	if p == forInbox {
		if nc.Barrier(end) != nil { // closed by this side
			end()
		}
		return
	}
	grace := time.NewTimer(lostGrace)
	defer grace.Stop()
	select {
	case <-e.dead:
	case <-grace.C:
		end()
	}
}

func (e *endpoint) end(why error) {
	e.once.Do(func() {
		e.why = why
		close(e.dead)
	})
}

// tap is what lies below the connection for a purpose, which is there.
func (e *endpoint) tap(p purpose) *tap {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.taps[p]
}

func (e *endpoint) isDead() bool {
	select {
	case <-e.dead:
		return true
	default:
		return false
	}
}

// flushWithin bounds how long subscribing and closing wait for the server to
// take what was written.
const flushWithin = 3 * time.Second

// errClosedHere is the end of an endpoint that its Node closed.
var errClosedHere = errors.New("closed on this side")

// close closes the connections, flushed.
func (e *endpoint) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, nc := range e.conns {
		if nc != nil && nc.IsConnected() {
			// On error there is nobody left to read it: a lost server.
			_ = nc.FlushTimeout(flushWithin)
		}
	}
	e.end(errClosedHere) // before the connections say so in other words
	for _, nc := range e.conns {
		if nc != nil {
			nc.Close()
		}
	}
}
