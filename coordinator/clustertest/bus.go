package clustertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"mochi/coordinator/protocol"
)

// What NATS does, as far as it matters (package bustest compares the two):
//
//   - a connection delivers in order, or not at all when it breaks before;
//   - a client that is disconnected keeps what is published, up to clientBuffer,
//     and sends it when it is connected again;
//   - the server tells the coordinator of each client whose connection ends, by its
//     name, when it notices: at once when the other side closes it, late when the
//     network swallows everything. A connection that the client has replaced by
//     another one ends then, and no second time;
//   - a client that knows several coordinators looks for another one when its own has
//     been silent for a second, and leaves it only for one that answers;
//   - what is sent to a replica without a connection is gone;
//   - a message above maxPayload is refused.
const (
	clientBuffer = 1 << 20
	maxPayload   = 1 << 20

	reconnectLow, reconnectHigh = 100 * time.Millisecond, 150 * time.Millisecond
	clientNotices               = 6 * time.Second // three pings of 2 s without an answer; up to one more
	serverNotices               = 6 * time.Second // likewise
	endNotice                   = time.Millisecond
	silentLow, silentHigh       = time.Second, 1400 * time.Millisecond           // until the others of a group are called
	lookLow, lookHigh           = 100 * time.Millisecond, 300 * time.Millisecond // between two calls of them
)

// errTooLarge is what a client says of a message above maxPayload.
var errTooLarge = errors.New("maximum payload exceeded")

// server is the message server inside a running coordinator, and the
// coordinator's end of the bus (a coordinator.Bus).
type server struct {
	p        *Process
	conns    []*conn          // those that it holds open
	newest   map[string]*conn // by client
	messages *mailbox[protocol.Message]
	lost     *mailbox[string]
	serving  bool
	saving   *upload
	status   func() protocol.Status
	wants    func(from string, step int64) error
	save     func(ctx context.Context, from string, step int64, r io.Reader) error
	open     func(name string) (io.ReadSeekCloser, error)
}

// conn is one connection of a client to a server. Each side closes its own end.
type conn struct {
	server                 *server
	client                 *client
	up, down               *stream
	clientOpen, serverOpen bool
}

// client is a replica's end of the bus (a replica.Link).
type client struct {
	p        *Process
	id       string
	conn     *conn // nil while it is disconnected
	kept     [][]byte
	bytes    int // of kept
	messages *mailbox[protocol.Message]
	wake     chan struct{} // capacity 1: conn has become nil
}

// startServer makes a server. The lock is held.
func (w *World) startServer(p *Process) *server {
	s := &server{p: p, newest: map[string]*conn{}, messages: newMailbox[protocol.Message](p, 256), lost: newMailbox[string](p, 64)}
	w.servers = append(w.servers, s)
	return s
}

// shut ends a server; its clients are told. The lock is held.
func (s *server) shut() {
	w := s.p.w
	s.serving = false
	w.servers = slices.DeleteFunc(w.servers, func(o *server) bool { return o == s })
	for _, n := range slices.Clone(s.conns) {
		n.serverOpen = false
		if n.clientOpen {
			after(endNotice, func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				n.closeClient()
			})
		}
	}
	s.conns = nil
}

// speaking is the server of the coordinator that says how its job stands, the last one
// started; nil when none does. The lock is held.
func (w *World) speaking() *server {
	for _, s := range slices.Backward(w.servers) {
		if s.status != nil && w.leads(s.p) && s.p.journal == w.disk {
			return s
		}
	}
	return nil
}

func (s *server) Serve(
	status func() protocol.Status,
	wants func(from string, step int64) error,
	save func(ctx context.Context, from string, step int64, r io.Reader) error,
	open func(name string) (io.ReadSeekCloser, error),
) error {
	s.p.w.mu.Lock()
	defer s.p.w.mu.Unlock()
	s.status, s.wants, s.save, s.open, s.serving = status, wants, save, open, true
	return nil
}

// Messages is asked for whenever the coordinator looks for something to do, so
// here it stands still while it is suspended.
func (s *server) Messages() <-chan protocol.Message {
	_ = s.p.gate() // one that was killed hears of it by its context
	return s.messages.out
}

func (s *server) Lost() <-chan string         { return s.lost.out }
func (s *server) Flush(context.Context) error { return s.p.gate() }

// Send encodes a message and sends it to whoever is connected by that name.
func (s *server) Send(to string, m protocol.Message) error {
	w := s.p.w
	if err := s.p.pass("send "+what(m), w.hostOf(to)); err != nil {
		return err
	}
	m.Version = protocol.Version
	data, err := protocol.Encode(m)
	if err != nil {
		return err
	}
	if len(data) > maxPayload {
		return errTooLarge
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checkSent(s.p, to, m)
	for _, c := range s.conns {
		if c.client.id == to {
			c.down.put(func() { c.deliverDown(data) })
		}
	}
	return nil
}

func (c *conn) deliverDown(data []byte) {
	w := c.client.p.w
	var m protocol.Message
	if err := protocol.Decode(data, &m); err != nil {
		panic(err)
	}
	w.mu.Lock()
	err := c.client.p.touch("get "+what(m), c.server.p.name)
	open := c.clientOpen && err == nil
	w.mu.Unlock()
	if open {
		c.client.messages.put(m)
	}
}

func (c *conn) deliverUp(data []byte) {
	w := c.server.p.w
	var m protocol.Message
	if err := protocol.Decode(data, &m); err != nil {
		panic(err)
	}
	w.mu.Lock()
	err := error(nil)
	if m.Heartbeat == nil {
		err = c.server.p.touch("get "+what(m), c.client.p.name)
	}
	open := c.serverOpen && c.server.serving && err == nil
	if open && m.Hello != nil {
		w.check.here[m.From] = c.server.p
		if m.Hello.Data.Kind != "" && !w.check.evil[c.client.p.name] {
			w.greeting = *m.Hello
		}
	}
	w.mu.Unlock()
	if open {
		c.server.messages.put(m)
	}
}

// Send sends a message of a replica, or keeps it while there is no connection.
func (c *client) Send(ctx context.Context, m protocol.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.Heartbeat == nil {
		if err := c.p.pass("send "+what(m), c.host()); err != nil {
			return err
		}
	} else if err := c.p.gate(); err != nil {
		return err
	}
	m.Version, m.From = protocol.Version, c.id
	data, err := protocol.Encode(m)
	if err != nil {
		return err
	}
	if len(data) > maxPayload {
		return errTooLarge
	}
	w := c.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checkSaid(c.p, m)
	if c.conn != nil {
		c.conn.send(data)
		return nil
	}
	if c.bytes+len(data) > clientBuffer {
		return errors.New("outbound buffer limit exceeded")
	}
	c.kept, c.bytes = append(c.kept, data), c.bytes+len(data)
	return nil
}

func (c *conn) send(data []byte) { c.up.put(func() { c.deliverUp(data) }) }

func (c *client) Messages() <-chan protocol.Message { return c.messages.out }

// Connected says whether there is a connection. It is asked for now and then, so
// that a replica that is suspended stands still here.
func (c *client) Connected() bool {
	if c.p.gate() != nil {
		return false
	}
	c.p.w.mu.Lock()
	defer c.p.w.mu.Unlock()
	return c.conn != nil
}

// closeClient ends the client's side; the server hears of it when the network
// lets it. The lock is held.
func (c *conn) closeClient() {
	if !c.clientOpen {
		return
	}
	c.clientOpen = false
	c.down.close()
	if c.client.conn == c {
		c.client.conn = nil
		select {
		case c.client.wake <- struct{}{}:
		default:
		}
	}
	c.up.close() // what was on its way is lost with it
	w := c.client.p.w
	end := w.stream(c.client.p.name+" end", c.client.p.name, c.server.p, c.server.p.name)
	w.links.slow[end.way] += w.lateEnds
	defer func() { w.links.slow[end.way] -= w.lateEnds }()
	end.put(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		c.closeServer()
		end.close()
	})
}

// LateEnds makes the server notice so much later from now on that a client has
// given up a connection, as when the packet that says so is lost.
func (w *World) LateEnds(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lateEnds = by
}

// closeServer ends the server's side, and tells the coordinator. The lock is
// held.
func (c *conn) closeServer() {
	if !c.serverOpen {
		return
	}
	c.serverOpen = false
	c.up.close()
	c.server.conns = slices.DeleteFunc(c.server.conns, func(o *conn) bool { return o == c })
	if c.server.newest[c.client.id] != c {
		return
	}
	delete(c.server.newest, c.client.id)
	if !c.server.p.dead {
		c.client.p.w.note(c.server.p, "told of the end of "+c.client.p.name, 0)
		c.server.lost.put(c.client.id)
	}
	if c.clientOpen { // it hears of that when the network lets it
		w := c.client.p.w
		end := w.stream(c.client.p.name+" is told", c.server.p.name, c.client.p, c.client.p.name)
		end.put(func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			c.closeClient()
			end.close()
		})
	}
}

// BreakConnection resets the connection of a replica to the coordinator: both
// sides notice at once, and what was on its way is lost.
func (w *World) BreakConnection(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.running(name) {
		if p.client != nil {
			p.client.broken()
		}
	}
}

// broken is a reset. The lock is held.
func (c *client) broken() {
	if n := c.conn; n != nil {
		c.p.w.note(c.p, "connection reset", 0)
		n.down.close()
		n.closeClient()
		after(endNotice, func() {
			c.p.w.mu.Lock()
			defer c.p.w.mu.Unlock()
			n.closeServer()
		})
	}
}

// leave ends the client's side in order: what was sent arrives first. The lock
// is held.
func (c *conn) leave() {
	w := c.client.p.w
	c.clientOpen, c.client.conn = false, nil
	c.down.close()
	c.up.put(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		c.closeServer()
	})
	c.up.finish()
}

// connectionsOf ends the connections of a process that has ended, by itself
// (orderly) or not: the other side's system is told. The lock is held.
func (w *World) connectionsOf(p *Process, orderly bool) {
	if p.client != nil && p.client.conn != nil {
		if orderly {
			p.client.conn.leave()
		} else {
			p.client.conn.closeClient()
		}
	}
	for _, s := range slices.Clone(w.servers) {
		if s.p == p {
			s.shut()
		}
	}
	for _, e := range w.ends {
		if e.p == p {
			e.gone()
		}
	}
}

// what a message says, for points and traces.
func what(m protocol.Message) string {
	switch {
	case m.Hello != nil:
		return "hello"
	case m.Ready != nil:
		return "ready"
	case m.Applied != nil:
		return "applied"
	case m.Failed != nil:
		return "failed"
	case m.Leaving != nil:
		return "leaving"
	case m.Heartbeat != nil:
		return "heartbeat"
	case m.Welcome != nil:
		return "welcome"
	case m.Refused != nil:
		return "refused"
	case m.Round != nil:
		return "round"
	case m.Commit != nil:
		return "commit"
	case m.Snapshot != nil:
		return "snapshot"
	case m.Stop != nil:
		return "stop"
	case m.Again != nil:
		return "again"
	case m.Recall != nil:
		return "recall"
	case m.Recalled != nil:
		return "recalled"
	}
	return fmt.Sprintf("a message that says nothing known: %+v", m)
}
