package natsring_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
	"mochi/allreduce/natsring"
	"mochi/allreduce/natsserver"
)

func newServer(t *testing.T) *natsserver.Server {
	t.Helper()
	s, err := natsring.StartServer("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func newNode(t *testing.T, o natsring.Options) *natsring.Node {
	t.Helper()
	o.Job = "test"
	n, err := natsring.NewNode(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// nodes makes one Node a rank: with servers of their own (pull), or clients
// of one hub.
func nodes(t *testing.T, world int, o func(rank int) natsring.Options) ([]*natsring.Node, []natsring.Peer) {
	t.Helper()
	all := make([]*natsring.Node, world)
	peers := make([]natsring.Peer, world)
	for rank := range all {
		opts := o(rank)
		opts.ID = fmt.Sprintf("replica-%d", rank)
		all[rank] = newNode(t, opts)
		peers[rank] = natsring.Peer{ID: opts.ID, URL: all[rank].URL()}
	}
	return all, peers
}

func pull(int) natsring.Options { return natsring.Options{Listen: "127.0.0.1:0"} }

func rings(t *testing.T, round int64, all []*natsring.Node, peers []natsring.Peer) []allreduce.Transport {
	t.Helper()
	return ringsOn(t, round, all, peers, natsring.Auto)
}

func ringsOn(t *testing.T, round int64, all []*natsring.Node, peers []natsring.Peer, lane natsring.Lane) []allreduce.Transport {
	t.Helper()
	ts := make([]allreduce.Transport, len(all))
	for rank, n := range all {
		tr, err := n.Ring(t.Context(), round, rank, peers, lane)
		if err != nil {
			t.Fatal(err)
		}
		ts[rank] = tr
	}
	return ts
}

// conformance runs the suite over the first members of one set of Nodes, each
// time in a new round.
func conformance(t *testing.T, o func(rank int) natsring.Options) {
	all, peers := nodes(t, 8, o)
	round := int64(0)
	allreducetest.Conformance(t, func(t *testing.T, world int) []allreduce.Transport {
		round++
		return rings(t, round, all[:world], peers[:world])
	})
}

func TestHubInProcess(t *testing.T) {
	hub := newServer(t)
	conformance(t, func(int) natsring.Options { return natsring.Options{HubServer: hub} })
}

// TestLentVectors: all Nodes are of one process, then some.
func TestLentVectors(t *testing.T) {
	hub := newServer(t)
	for name, stranger := range map[string]int{"all": -1, "all but one": 1} {
		t.Run(name, func(t *testing.T) {
			process := &natsring.Process{}
			conformance(t, func(rank int) natsring.Options {
				o := natsring.Options{HubServer: hub}
				if rank != stranger {
					o.Process = process
				}
				return o
			})
		})
	}
}

func TestPullOverTCP(t *testing.T) { conformance(t, pull) }

// TestMixedServers: a peer without a server is served by the hub, whoever its
// neighbours are; full-size segments.
func TestMixedServers(t *testing.T) {
	hub := newServer(t)
	all, peers := nodes(t, 3, func(rank int) natsring.Options {
		if rank == 1 {
			return natsring.Options{HubURL: hub.URL()}
		}
		return natsring.Options{HubURL: hub.URL(), Listen: "127.0.0.1:0"}
	})
	groups := allreducetest.Groups(t, rings(t, 1, all, peers), allreduce.DefaultConfig())
	for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error { return allreducetest.SumOfRanks(t.Context(), g, 1, 1_000_003) }) {
		if err != nil {
			t.Errorf("rank %d: %v", rank, err)
		}
	}
}

// TestRoundsReuseConnections runs three rounds with changing members over the
// same Nodes: the ring shrinks, then grows.
func TestRoundsReuseConnections(t *testing.T) {
	all, peers := nodes(t, 4, pull)
	for round, members := range [][]int{{0, 1, 2, 3}, {0, 2, 3}, {3, 0, 1, 2}, {2}} {
		var ns []*natsring.Node
		var ps []natsring.Peer
		for _, m := range members {
			ns, ps = append(ns, all[m]), append(ps, peers[m])
		}
		groups := allreducetest.Groups(t, rings(t, int64(round), ns, ps), allreducetest.Config())
		for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
			return errors.Join(allreducetest.SumOfRanks(t.Context(), g, 1, 3000), g.Leave(t.Context()))
		}) {
			if err != nil {
				t.Errorf("round %d, rank %d: %v", round, rank, err)
			}
		}
	}
}

// TestProcessesMayEndAfterLeave: each Node goes away as soon as its own Group
// has left; the others still finish.
func TestProcessesMayEndAfterLeave(t *testing.T) {
	for range 5 {
		all, peers := nodes(t, 3, pull)
		groups := allreducetest.Groups(t, rings(t, 1, all, peers), allreducetest.Config())
		for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
			defer all[g.Rank()].Close()
			return errors.Join(allreducetest.SumOfRanks(t.Context(), g, 1, 5000), g.Leave(t.Context()))
		}) {
			if err != nil {
				t.Errorf("rank %d: %v", rank, err)
			}
		}
	}
}

// mute is a transport that can lose its voice, as a killed process does.
type mute struct {
	allreduce.Transport
	dead atomic.Bool
}

func (m *mute) Send(d allreduce.Direction, header, payload []byte) error {
	if m.dead.Load() {
		return nil
	}
	return m.Transport.Send(d, header, payload)
}

// TestDeadPredecessorIsNamedAtOnce: the connection's end, not a deadline,
// tells the survivors, and all name the dead rank.
func TestDeadPredecessorIsNamedAtOnce(t *testing.T) {
	const world, dead = 4, 2
	all, peers := nodes(t, world, pull)
	theDeadIsNamed(t, rings(t, 1, all, peers), dead, func() { all[dead].Close() })
}

// theDeadIsNamed runs sums until a rank dies, by die, and wants the others to say at once
// that it was that one.
func theDeadIsNamed(t *testing.T, transports []allreduce.Transport, dead int, die func()) {
	t.Helper()
	cfg := allreducetest.Config()
	cfg.Timeout = 30 * time.Second
	victim := &mute{Transport: transports[dead]}
	transports[dead] = victim
	groups := allreducetest.Groups(t, transports, cfg)
	start := time.Now()
	took := make([]time.Duration, len(transports))
	errs := allreducetest.Together(groups, func(g *allreduce.Group) error {
		for step := uint64(0); ; step++ {
			if g.Rank() == dead && step == 3 {
				victim.dead.Store(true)
				die()
				return nil
			}
			if err := allreducetest.SumOfRanks(t.Context(), g, step, 3000); err != nil {
				took[g.Rank()] = time.Since(start)
				return err
			}
		}
	})
	for rank, err := range errs {
		var peer *allreduce.PeerError
		if rank != dead && (!errors.As(err, &peer) || peer.Rank != dead || !errors.Is(err, allreduce.ErrDown)) {
			t.Errorf("rank %d should name rank %d, says: %v", rank, dead, err)
		}
		if rank != dead && took[rank] > cfg.Timeout/2 {
			t.Errorf("rank %d noticed after %v", rank, took[rank])
		}
	}
}

// TestNothingIsLeftBehind: after a cancelled step and Close, no goroutine of
// a Group, a transport or a Node remains.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Run("round", func(t *testing.T) {
		all, peers := nodes(t, 3, pull)
		groups := allreducetest.Groups(t, rings(t, 1, all, peers), allreducetest.Config())
		ctx, stop := context.WithCancel(t.Context())
		for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
			if err := allreducetest.SumOfRanks(ctx, g, 1, 100_000); err != nil {
				return err
			}
			if g.Rank() == 0 {
				stop() // in the middle of the others' step
				return context.Canceled
			}
			return allreducetest.SumOfRanks(ctx, g, 2, 100_000)
		}) {
			if err == nil {
				t.Errorf("rank %d finished a step that rank 0 never entered", rank)
			}
		}
	})
	deadline := time.After(20 * time.Second)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		left := ""
		for _, s := range strings.Split(string(stacks), "\n\n") {
			if strings.Contains(s, "allreduce.(*Group)") || strings.Contains(s, "nats.(*transport)") || strings.Contains(s, "nats.(*endpoint)") || strings.Contains(s, "(*Conn)") {
				left = s
			}
		}
		if left == "" {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("still there:\n%s", left)
		case <-again.C:
		}
	}
}

func TestUnreachablePredecessor(t *testing.T) {
	n := newNode(t, natsring.Options{ID: "a", Listen: "127.0.0.1:0", DialTimeout: 100 * time.Millisecond})
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a port that is refused once it is closed
	if err != nil {
		t.Fatal(err)
	}
	gone := "nats://" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = n.Ring(t.Context(), 7, 0, []natsring.Peer{{ID: "a", URL: n.URL()}, {ID: "b", URL: gone}}, natsring.Auto)
	var peer *allreduce.PeerError
	if !errors.As(err, &peer) || peer.Rank != 1 || peer.Round != 7 || !errors.Is(err, allreduce.ErrDown) || !strings.Contains(err.Error(), gone) {
		t.Errorf("got %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	taken := newServer(t)
	port := taken.URL()[strings.LastIndex(taken.URL(), ":")+1:]
	for name, c := range map[string]struct {
		o    natsring.Options
		want string
	}{
		"job":         {natsring.Options{Job: "a.b", Listen: "127.0.0.1:0"}, "a.b"},
		"nothing":     {natsring.Options{Job: "j"}, "hub"},
		"no port":     {natsring.Options{Job: "j", Listen: "127.0.0.1"}, "HOST:PORT"},
		"bad port":    {natsring.Options{Job: "j", Listen: "127.0.0.1:http"}, "http"},
		"advertise":   {natsring.Options{Job: "j", Listen: "0.0.0.0:0"}, "advertise"},
		"port in use": {natsring.Options{Job: "j", Listen: "127.0.0.1:" + port}, "in use"},
	} {
		n, err := natsring.NewNode(c.o)
		if err == nil {
			n.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one about %q", name, err, c.want)
		}
	}
	n := newNode(t, natsring.Options{ID: "a", Listen: "127.0.0.1:0"})
	self := natsring.Peer{ID: "a", URL: n.URL()}
	for name, peers := range map[string][]natsring.Peer{
		"not me":      {{ID: "b", URL: "nats://127.0.0.1:1"}},
		"hub missing": {self, {ID: "b"}},
	} {
		if _, err := n.Ring(t.Context(), 1, 0, peers, natsring.Auto); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := n.Ring(t.Context(), 1, 3, []natsring.Peer{self}, natsring.Auto); err == nil {
		t.Error("rank 3 of a world of 1 was accepted")
	}
}

func TestAdvertiseHost(t *testing.T) {
	host, err := natsring.AdvertiseHost("127.0.0.1:4222")
	if err != nil || host != "127.0.0.1" {
		t.Errorf("toward loopback: %q, %v", host, err)
	}
}

func ExampleNode() {
	ctx := context.Background()
	node, err := natsring.NewNode(natsring.Options{Job: "demo", ID: "a", Listen: "127.0.0.1:0"})
	if err != nil {
		panic(err)
	}
	defer node.Close()
	// The coordinator collects every member's URL and hands the list out.
	members := []natsring.Peer{{ID: "a", URL: node.URL()}}
	transport, err := node.Ring(ctx, 1, 0, members, natsring.Auto)
	if err != nil {
		panic(err)
	}
	group, err := allreduce.NewGroup(transport, allreduce.DefaultConfig())
	if err != nil {
		panic(err)
	}
	gradient := []float32{1, 2, 3}
	if err := group.AllReduceSum(ctx, allreduce.Tag{Step: 1}, gradient); err != nil {
		panic(err)
	}
	if err := group.Leave(ctx); err != nil {
		panic(err)
	}
	fmt.Println(gradient)
	// Output: [1 2 3]
}
