package clustertest

import (
	"context"
	"slices"
	"time"

	"mochi/coordinator/protocol"
)

// connect makes a client, which connects and reconnects until its process ends.
// The lock is held.
func (w *World) connect(p *Process) *client {
	c := &client{p: p, id: p.id, messages: newMailbox[protocol.Message](p, 64), wake: make(chan struct{}, 1)}
	p.client = c
	w.links.watches = append(w.links.watches, c.look)
	go c.reconnect()
	return c
}

func (c *client) reconnect() {
	w := c.p.w
	for c.p.gate() == nil {
		w.mu.Lock()
		switch {
		case c.p.dead:
			w.mu.Unlock()
			return
		case c.conn == nil:
			if s := c.finds(); s != nil {
				c.connected(s)
			}
		}
		connected := c.conn != nil
		pause := w.draw(c.p.name+" reconnect", reconnectLow, reconnectHigh)
		w.mu.Unlock()
		if connected {
			select {
			case <-c.wake:
			case <-c.p.ctx.Done():
				return
			}
		}
		if c.p.wait(context.Background(), pause) != nil {
			return
		}
	}
}

// answers says whether a server would answer. The lock is held.
func (c *client) answers(s *server) bool {
	return !s.p.dead && s.p.paused == nil && s.serving && c.p.w.links.both(c.p.name, s.p.name)
}

// known are the servers that a client has the addresses of, the last started first. The
// lock is held.
func (c *client) known() (list []*server) {
	for _, s := range slices.Backward(c.p.w.servers) {
		if host := c.p.w.addresses[c.p.name]; host == "" || host == s.p.name {
			list = append(list, s)
		}
	}
	return list
}

// finds is a server that answers, the quickest of all, nil when none does. The lock is
// held.
func (c *client) finds() *server {
	list := slices.DeleteFunc(c.known(), func(s *server) bool { return !c.answers(s) })
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return list[c.p.w.draw(c.p.name+" dials", 0, time.Duration(len(list)))]
}

// coordinator is the server that a client asks for something: that of its connection, or
// one that it knows. nil: none. The lock is held.
func (c *client) coordinator() *server {
	if c.conn != nil {
		return c.conn.server
	}
	if list := c.known(); len(list) > 0 {
		return list[0]
	}
	return nil
}

// host is that of the coordinator that a client talks to, or would.
func (c *client) host() string {
	c.p.w.mu.Lock()
	defer c.p.w.mu.Unlock()
	if s := c.coordinator(); s != nil {
		return s.p.name
	}
	return Coordinator
}

// connected opens a connection and sends what was kept. The lock is held.
func (c *client) connected(s *server) {
	w := c.p.w
	n := &conn{server: s, client: c, clientOpen: true, serverOpen: true}
	n.up = w.stream(c.p.name+" up", c.p.name, s.p, s.p.name)
	n.down = w.stream(c.p.name+" down", s.p.name, c.p, c.p.name)
	s.conns = append(s.conns, n)
	if s.newest[c.id] != nil { // what was on its way is lost
		w.note(s.p, "told of another connection of "+c.p.name, 0)
		s.lost.put(c.id)
	}
	s.newest[c.id] = n
	c.conn = n
	w.note(c.p, "connected", int64(len(c.kept)))
	for _, data := range c.kept {
		n.send(data)
	}
	c.kept, c.bytes = nil, 0
	after(0, c.look)
}

// look notices, some time after, that the server no longer answers, and so does
// the server.
func (c *client) look() {
	w := c.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	n := c.conn
	if n == nil || c.p.dead || c.answers(n.server) {
		return
	}
	if w.group != nil {
		c.looksAround(n, silentLow, silentHigh)
	}
	// Whether it was so all the while does not matter: a network that flickers
	// loses pings too.
	after(w.draw(c.p.name+" notices", clientNotices, clientNotices+2*time.Second), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if c.conn == n && !c.answers(n.server) && c.p.paused == nil {
			w.note(c.p, "finds its connection dead", 0)
			n.closeClient()
		}
	})
	after(w.draw(c.p.name+" is noticed", serverNotices, serverNotices+2*time.Second), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if n.serverOpen && !w.links.both(c.p.name, n.server.p.name) {
			n.closeServer()
		}
	})
}

// looksAround calls the other coordinators of a group after a moment of silence, until
// one answers, which it goes to, or until its own is heard again. The lock is held.
func (c *client) looksAround(n *conn, low, high time.Duration) {
	w := c.p.w
	after(w.draw(c.p.name+" looks around", low, high), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch {
		case c.conn != n || c.p.dead || c.answers(n.server):
		case c.p.paused == nil && c.finds() != nil:
			w.note(c.p, "finds another coordinator", 0)
			n.closeClient()
		default:
			c.looksAround(n, lookLow, lookHigh)
		}
	})
}
