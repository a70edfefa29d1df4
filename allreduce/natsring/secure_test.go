package natsring_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
	"mochi/allreduce/natsring"
	"mochi/coordinator/identity"
)

// member is a key and what follows from it.
type member struct {
	key  *identity.Key
	ring *identity.Neighbours
	id   string
}

func newMember(t *testing.T) member {
	t.Helper()
	k := identity.NewKey()
	n, err := k.Neighbours()
	if err != nil {
		t.Fatal(err)
	}
	return member{k, n, k.ID("r")}
}

// secureNodes makes one Node a rank, whose servers only their successors can connect to.
func secureNodes(t *testing.T, world int) (all []*natsring.Node, peers []natsring.Peer) {
	t.Helper()
	for range world {
		m := newMember(t)
		n := newNode(t, natsring.Options{ID: m.id, Listen: "127.0.0.1:0", Neighbours: m.ring, DialTimeout: 6 * time.Second})
		all, peers = append(all, n), append(peers, natsring.Peer{ID: m.id, URL: n.URL()})
	}
	return all, peers
}

// together opens a round's rings at once: a successor is let in when its predecessor has
// heard of the round.
func together(t *testing.T, round int64, all []*natsring.Node, peers []natsring.Peer, lane natsring.Lane) []allreduce.Transport {
	t.Helper()
	return openAll(t, all, func(rank int, n *natsring.Node) (allreduce.Transport, error) {
		return n.Ring(t.Context(), round, rank, peers, lane)
	})
}

// TestSecured: the suite, over TLS, each time in a new round with other neighbours.
func TestSecured(t *testing.T) {
	onBothLanes(t, together)
}

// onBothLanes runs the suite on rings of nodes that know each other, each time in a new
// round.
func onBothLanes(t *testing.T, open func(t *testing.T, round int64, all []*natsring.Node, peers []natsring.Peer, lane natsring.Lane) []allreduce.Transport) {
	for _, lane := range []natsring.Lane{natsring.NATS, natsring.Direct} {
		t.Run(string(lane), func(t *testing.T) {
			all, peers := secureNodes(t, 8)
			round := int64(0)
			allreducetest.Conformance(t, func(t *testing.T, world int) []allreduce.Transport {
				round++
				return open(t, round, all[:world], peers[:world], lane)
			})
		})
	}
}

// TestStrangersOnARing: who is not the successor cannot connect, whether it speaks in the
// clear, has a key of its own, or is a member that is not next; and the ring goes on. A
// predecessor that is not who the coordinator said is not believed.
func TestStrangersOnARing(t *testing.T) {
	all, peers := secureNodes(t, 3)
	groups := allreducetest.Groups(t, together(t, 1, all, peers, natsring.NATS), allreducetest.Config())
	stranger := newMember(t)
	for name, o := range map[string][]nats.Option{
		"in the clear":      {nats.Timeout(time.Second)},
		"with another key":  {nats.Secure(stranger.ring.Client(peers[0].ID)), nats.TLSHandshakeFirst()},
		"it minds the name": {nats.Secure(stranger.ring.Client(stranger.id)), nats.TLSHandshakeFirst()},
	} {
		if nc, err := nats.Connect(peers[0].URL, append(o, nats.NoReconnect())...); err == nil {
			nc.Close()
			t.Errorf("%s: connected", name)
		}
	}
	late := newNode(t, natsring.Options{ID: stranger.id, Listen: "127.0.0.1:0", Neighbours: stranger.ring, DialTimeout: 300 * time.Millisecond})
	claimed := []natsring.Peer{peers[0], {ID: stranger.id, URL: late.URL()}}
	_, err := late.Ring(t.Context(), 1, 1, claimed, natsring.NATS)
	var lost *allreduce.PeerError
	if !errors.As(err, &lost) || lost.Rank != 0 {
		t.Errorf("a member that is not the successor: %v", err)
	}
	claimed[0].ID = stranger.key.ID("x") + "aaaa" // not of the key that is there
	patient := newNode(t, natsring.Options{ID: stranger.id, Listen: "127.0.0.1:0", Neighbours: stranger.ring, DialTimeout: 6 * time.Second})
	claimed[1].URL = patient.URL()
	if _, err := patient.Ring(t.Context(), 2, 1, claimed, natsring.NATS); err == nil || !strings.Contains(err.Error(), "is not") {
		t.Errorf("a predecessor that is another: %v", err)
	}
	for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
		return errors.Join(allreducetest.SumOfRanks(t.Context(), g, 1, 5000), g.Leave(t.Context()))
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", rank, err)
		}
	}
}
