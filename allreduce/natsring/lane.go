package natsring

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"mochi/allreduce"
	"mochi/allreduce/direct"
)

// Lane is how segments go between neighbours.
type Lane string

// The lanes. Whatever the lane, the word of who is there goes over NATS.
const (
	Auto   Lane = "auto"   // in place between neighbours of one process, else over NATS
	NATS   Lane = "nats"   // over NATS, always
	Direct Lane = "direct" // as Auto, but over a TCP connection of their own instead of NATS, where there can be one
)

// Validate says whether l is a known lane.
func (l Lane) Validate() error {
	switch l {
	case Auto, NATS, Direct:
		return nil
	}
	return fmt.Errorf("lane %q is unknown (%s, %s or %s)", string(l), Auto, NATS, Direct)
}

// choose decides how this rank's links go, as far as it can be known from here. Both ends
// of a link come to the same.
func (t *transport) choose(n *Node, lane Lane, peers []Peer) {
	t.node, t.peers = n, peers
	if lane != NATS {
		t.meet(n.o.Process, peers)
	}
	t.paths[allreduce.Forward].state.Store(int32(pathOf(lane, t.lends, peers[t.id.Rank])))
	t.paths[allreduce.Backward].state.Store(int32(pathOf(lane, t.borrows, peers[t.id.Predecessor()])))
}

// pathOf is the state in which a link begins; from is who sends segments on it.
func pathOf(lane Lane, loans *allreduce.Loans, from Peer) pathState {
	if lane == Direct && loans == nil && from.URL != "" {
		return undecided
	}
	return overNATS
}

// listener is the Node's for the lane direct, and its address; an error says why there is
// none.
func (n *Node) listener() (*direct.Listener, string, error) {
	n.listening.Do(func() {
		host, _, err := net.SplitHostPort(n.o.Listen)
		if err == nil {
			n.direct, err = direct.Listen(net.JoinHostPort(host, "0"), n.taken())
		}
		n.noDirect = err
	})
	if n.noDirect != nil {
		return nil, "", n.noDirect
	}
	u, err := url.Parse(n.url)
	if err != nil {
		return nil, "", errors.Join(errors.New("ring: this replica's own address"), err)
	}
	return n.direct, net.JoinHostPort(u.Hostname(), strconv.Itoa(n.direct.Port())), nil
}
