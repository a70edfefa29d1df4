package quorum

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// stream is raft's StreamLayer: connections that have said hello. Raft knows members by
// name only, so addresses may change from one start to the next.
type stream struct {
	node *Node
	in   chan net.Conn // those accepted

	mu     sync.Mutex
	open   map[net.Conn]struct{} // that raft uses: it does not close what it waits on
	closed chan struct{}
	once   sync.Once
}

func newStream(n *Node) *stream {
	return &stream{node: n, in: make(chan net.Conn), open: map[net.Conn]struct{}{}, closed: make(chan struct{})}
}

// keep makes a connection one that is closed with the stream.
func (s *stream) keep(c net.Conn) net.Conn {
	c = &handed{Conn: c, s: s}
	s.mu.Lock()
	s.open[c] = struct{}{}
	s.mu.Unlock()
	select {
	case <-s.closed:
		c.Close()
	default:
	}
	return c
}

// hand gives raft a connection that was accepted.
func (s *stream) hand(c net.Conn) {
	c = s.keep(c)
	select {
	case s.in <- c:
	case <-s.closed:
		c.Close()
	}
}

// handed is a connection that its stream closes with itself.
type handed struct {
	net.Conn
	s *stream
}

func (h *handed) Close() error {
	h.s.mu.Lock()
	delete(h.s.open, h)
	h.s.mu.Unlock()
	return h.Conn.Close()
}

// Accept implements net.Listener.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.in:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *stream) Close() error {
	s.once.Do(func() { close(s.closed) })
	s.mu.Lock()
	open := make([]net.Conn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		c.Close() // whoever uses it hears of it there
	}
	return nil
}

// Addr implements net.Listener: raft's address of a member is its name.
func (s *stream) Addr() net.Addr { return address(s.node.o.Name) }

type address string

func (address) Network() string  { return "mochi" }
func (a address) String() string { return string(a) }

// Dial implements raft.StreamLayer.
func (s *stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.node.ctx, timeout)
	defer cancel()
	c, _, err := s.node.dial(ctx, string(to), hello{Ask: askRaft})
	if err != nil {
		return nil, err
	}
	return s.keep(c), nil
}

// gate is raft's transport without the votes of a member that may not vote: it neither
// asks for votes nor gives any.
type gate struct {
	*raft.NetworkTransport
	votes atomic.Bool
	in    chan raft.RPC
	ended <-chan struct{}
}

var errNoVote = errors.New("this coordinator's folder was emptied: it has no vote until it has what the others have")

func newGate(t *raft.NetworkTransport, ended <-chan struct{}) *gate {
	return &gate{NetworkTransport: t, in: make(chan raft.RPC), ended: ended}
}

// run passes on what may be.
func (g *gate) run() {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-g.NetworkTransport.Consumer():
		case <-g.ended:
			return
		}
		if !g.votes.Load() {
			switch rpc.Command.(type) {
			case *raft.RequestVoteRequest:
				rpc.Respond(&raft.RequestVoteResponse{}, errNoVote)
				continue
			case *raft.RequestPreVoteRequest:
				rpc.Respond(&raft.RequestPreVoteResponse{}, errNoVote)
				continue
			case *raft.TimeoutNowRequest:
				rpc.Respond(&raft.TimeoutNowResponse{}, errNoVote)
				continue
			}
		}
		select {
		case g.in <- rpc:
		case <-g.ended:
			return
		}
	}
}

// Consumer implements raft.Transport.
func (g *gate) Consumer() <-chan raft.RPC { return g.in }

// RequestVote implements raft.Transport.
func (g *gate) RequestVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestVoteRequest, a *raft.RequestVoteResponse) error {
	if !g.votes.Load() {
		return errNoVote
	}
	return g.NetworkTransport.RequestVote(id, to, q, a)
}

// RequestPreVote implements raft.WithPreVote.
func (g *gate) RequestPreVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestPreVoteRequest, a *raft.RequestPreVoteResponse) error {
	if !g.votes.Load() {
		return errNoVote
	}
	return g.NetworkTransport.RequestPreVote(id, to, q, a)
}
