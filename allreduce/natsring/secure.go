package natsring

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"mochi/allreduce/direct"
	"mochi/allreduce/natsserver"
)

// Neighbours is how the members of a ring know each other: by ids that their keys prove.
type Neighbours interface {
	// Server is how a member is connected to by those that may says yes to.
	Server(may func(*tls.ConnectionState) bool) *tls.Config
	// Client is how to connect to the member with an id.
	Client(id string) *tls.Config
	// Proves says whether a connection's certificate proves an id.
	Proves(state *tls.ConnectionState, id string) bool
}

// errNoNeighbour: who connects is not the successor.
var errNoNeighbour = errors.New("not the successor in this round")

// guard sets who may connect to this Node's server, and what it may do there: the
// successor takes segments and gives credits. It changes with the round.
func (n *Node) guard(o *natsserver.Options, plain bool) {
	if plain {
		o.Challenge, o.Admit = true, n.admitPlain
		return
	}
	if n.o.Neighbours == nil {
		return
	}
	o.TLS = n.o.Neighbours.Server(n.isSuccessor)
	o.Admit = func(c natsserver.Client) (natsserver.Rights, error) {
		if c.TLS == nil || !n.isSuccessor(c.TLS) {
			return natsserver.Rights{}, errNoNeighbour
		}
		return n.rights(), nil
	}
}

// rights are the successor's.
func (n *Node) rights() natsserver.Rights {
	ring := fmt.Sprintf("mochi.%s.ring.*.*.", n.o.Job)
	return natsserver.Rights{
		User:      "successor",
		Publish:   []string{ring + "control", ring + "direct"},
		Subscribe: []string{ring + "data", "_INBOX.>"},
	}
}

// isSuccessor says whether a connection is that of the successor in the latest round.
func (n *Node) isSuccessor(state *tls.ConnectionState) bool {
	id := n.successor.Load()
	return id != nil && n.o.Neighbours.Proves(state, *id)
}

// clientOf is how to connect to a peer's server; nil: in the clear.
func (n *Node) clientOf(p Peer) *tls.Config {
	if n.o.Neighbours == nil || p.URL == "" || p.URL == n.url || n.secret.Load() != nil {
		return nil
	}
	return n.o.Neighbours.Client(p.ID)
}

// recordsAtOnce is how much is read of a connection at once: several records of 16 KiB,
// each of which would be two reads.
const recordsAtOnce = 64 << 10

// buffered is a connection that is read in large pieces.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

// Read implements net.Conn.
func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// secured makes a connection that was just opened one in TLS; nil config: as it is.
func secured(conn net.Conn, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return conn, nil
	}
	c := tls.Client(buffered{conn, bufio.NewReaderSize(conn, recordsAtOnce)}, config)
	if err := c.Handshake(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// taken makes a connection of the lane direct that was accepted safe.
func (n *Node) taken() direct.Wrap {
	var config *tls.Config
	if n.o.Neighbours != nil {
		config = n.o.Neighbours.Server(n.isSuccessor)
	}
	return func(c net.Conn) (net.Conn, error) {
		switch s := n.secret.Load(); {
		case s != nil:
			return s.taken(c)
		case config != nil:
			return tls.Server(c, config), nil
		case n.o.Wrap != nil:
			return n.o.Wrap(c)
		}
		return c, nil
	}
}

// dialled makes one to a peer safe.
func (n *Node) dialled(p Peer) direct.Wrap {
	if s := n.secret.Load(); s != nil {
		return s.dialled(p.ID)
	}
	config := n.clientOf(p)
	if config == nil {
		return n.o.Wrap
	}
	return func(c net.Conn) (net.Conn, error) { return tls.Client(c, config), nil }
}
