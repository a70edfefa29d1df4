package quorum

import (
	"context"
	"errors"
	"fmt"
	"io"
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
// asks for votes nor gives any. And it takes from a leader only what raft's paper allows:
// raft (v1.8.0) sends entries of a later term in the name of an earlier one, when a leader
// was deposed and elected again while a request was held up; it applies what is behind the
// entries of a request, which may be what another leader left; and it takes any snapshot,
// also one that is older than what it has.
type gate struct {
	*raft.NetworkTransport
	votes   atomic.Bool
	store   *store
	applied func() uint64 // the last entry that is applied
	term    func() uint64 // raft's
	in      chan raft.RPC
	ended   <-chan struct{}
}

var errNoVote = errors.New("this coordinator's folder was emptied: it has no vote until it has what the others have")

var errLater = errors.New("the entries are of a later term than the request")

func newGate(t *raft.NetworkTransport, n *Node) *gate {
	return &gate{
		NetworkTransport: t, store: n.store, in: make(chan raft.RPC), ended: n.ctx.Done(),
		applied: func() uint64 { _, _, index := n.machine.grown(); return index },
		term: func() uint64 {
			term, _ := n.votes.GetUint64(currentTerm) // in memory
			return term
		},
	}
}

// mayLead says whether this member may become the leader.
func (g *gate) mayLead() bool { return g.votes.Load() && !g.store.broken() }

// refuse answers what raft is not to see.
func (g *gate) refuse(rpc raft.RPC) bool {
	switch c := rpc.Command.(type) {
	case *raft.RequestVoteRequest:
		if !g.votes.Load() {
			rpc.Respond(&raft.RequestVoteResponse{}, errNoVote)
			return true
		}
	case *raft.RequestPreVoteRequest:
		if !g.votes.Load() {
			rpc.Respond(&raft.RequestPreVoteResponse{}, errNoVote)
			return true
		}
	case *raft.TimeoutNowRequest:
		if !g.mayLead() {
			rpc.Respond(&raft.TimeoutNowResponse{}, errNoVote)
			return true
		}
	case *raft.AppendEntriesRequest:
		last := c.PrevLogEntry
		for _, e := range c.Entries {
			if last = e.Index; e.Term > c.Term {
				rpc.Respond(&raft.AppendEntriesResponse{}, errLater)
				return true
			}
		}
		c.LeaderCommitIndex = min(c.LeaderCommitIndex, last)
		g.forward(c)
	case *raft.InstallSnapshotRequest:
		return g.has(rpc, c)
	}
	return false
}

// forward takes what this member has applied out of a request whose beginning is no
// longer in its log. What is applied is committed, so that it is what the leader has too;
// raft would look for the entry before, not find it, and send the leader back without end.
func (g *gate) forward(c *raft.AppendEntriesRequest) {
	begin := c.PrevLogEntry
	if begin == 0 && len(c.Entries) > 0 {
		begin = c.Entries[0].Index
	}
	applied := g.applied()
	if begin == 0 || begin > applied || g.store.holds(begin) || c.Term < g.term() {
		return
	}
	for len(c.Entries) > 0 && c.Entries[0].Index <= applied {
		c.Entries = c.Entries[1:]
	}
	c.PrevLogEntry, c.PrevLogTerm = 0, 0 // there is nothing to look for
}

// has answers a snapshot of what this member has already: raft would go back to it, and
// forget what it has acknowledged since.
func (g *gate) has(rpc raft.RPC, c *raft.InstallSnapshotRequest) bool {
	term, found := g.store.termOf(c.LastLogIndex)
	switch {
	case c.Term < g.term():
		return false // raft says so
	case c.LastLogIndex <= g.applied() || found && term == c.LastLogTerm:
	case found:
		g.store.fail(&DamagedError{What: fmt.Errorf("entry %d is of term %d here and of %d at the leader", c.LastLogIndex, term, c.LastLogTerm)})
		rpc.Respond(nil, errLater)
		return true
	default:
		return false
	}
	_, err := io.Copy(io.Discard, rpc.Reader)
	rpc.Respond(&raft.InstallSnapshotResponse{Term: c.Term, Success: err == nil}, err)
	return true
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
		if !g.refuse(rpc) && !g.pass(rpc) {
			return
		}
	}
}

// pass gives raft one request and waits until it is done with it, so that the next one is
// looked at beside what came of this one; false: raft takes none any more.
func (g *gate) pass(rpc raft.RPC) bool {
	answer := make(chan raft.RPCResponse, 1)
	passed := rpc
	passed.RespChan = answer
	select {
	case g.in <- passed:
	case <-g.ended:
		return false
	}
	select {
	case a := <-answer:
		rpc.Respond(a.Response, a.Error)
		return true
	case <-g.ended:
		return false
	}
}

// Consumer implements raft.Transport.
func (g *gate) Consumer() <-chan raft.RPC { return g.in }

// RequestVote implements raft.Transport.
func (g *gate) RequestVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestVoteRequest, a *raft.RequestVoteResponse) error {
	if !g.mayLead() {
		return errNoVote
	}
	return g.NetworkTransport.RequestVote(id, to, q, a)
}

// RequestPreVote implements raft.WithPreVote.
func (g *gate) RequestPreVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestPreVoteRequest, a *raft.RequestPreVoteResponse) error {
	if !g.mayLead() {
		return errNoVote
	}
	return g.NetworkTransport.RequestPreVote(id, to, q, a)
}
