package natsring_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
	"mochi/allreduce/natsring"
)

// keyOf is the key of a round, as a coordinator would draw it.
func keyOf(round int64) []byte {
	k := sha256.Sum256(fmt.Append(nil, "secret", round))
	return k[:]
}

// openAll opens a round's rings at once, rank by rank.
func openAll(t *testing.T, all []*natsring.Node, open func(rank int, n *natsring.Node) (allreduce.Transport, error)) []allreduce.Transport {
	t.Helper()
	ts, errs := make([]allreduce.Transport, len(all)), make(chan error, len(all))
	for rank, n := range all {
		go func() {
			var err error
			ts[rank], err = open(rank, n)
			errs <- err
		}()
	}
	for range all {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	return ts
}

// plainly opens a plain round.
func plainly(t *testing.T, round int64, all []*natsring.Node, peers []natsring.Peer, lane natsring.Lane) []allreduce.Transport {
	t.Helper()
	return openAll(t, all, func(rank int, n *natsring.Node) (allreduce.Transport, error) {
		return n.PlainRing(t.Context(), round, rank, peers, lane, keyOf(round))
	})
}

// TestPlain: the suite, in the clear with a key, each time in a new round with other
// neighbours.
func TestPlain(t *testing.T) {
	onBothLanes(t, plainly)
}

// TestPlainAndSecuredInTurns: the setting of a job may change between two rounds.
func TestPlainAndSecuredInTurns(t *testing.T) {
	all, peers := secureNodes(t, 3)
	for round := range int64(4) {
		var ts []allreduce.Transport
		if round%2 == 0 {
			ts = plainly(t, round+1, all, peers, natsring.Direct)
		} else {
			ts = together(t, round+1, all, peers, natsring.Direct)
		}
		groups := allreducetest.Groups(t, ts, allreducetest.Config())
		sumAndLeave(t, groups)
		for _, g := range groups {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func sumAndLeave(t *testing.T, groups []*allreduce.Group) {
	t.Helper()
	for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
		return errors.Join(allreducetest.SumOfRanks(t.Context(), g, 1, 5000), g.Leave(t.Context()))
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", rank, err)
		}
	}
}

// TestStrangersOnAPlainRing: who does not know the key of the round, or only that of
// another, cannot connect, in TLS or in the clear; nor can somebody who heard what the
// successor said. The ring goes on.
func TestStrangersOnAPlainRing(t *testing.T) {
	all, peers := secureNodes(t, 3)
	groups := allreducetest.Groups(t, plainly(t, 2, all, peers, natsring.NATS), allreducetest.Config())
	stranger := newMember(t)
	for name, o := range map[string][]nats.Option{
		"without an answer":      {},
		"with a password":        {nats.UserInfo("successor", "x")},
		"with an answer of none": {nats.Nkey("successor", func([]byte) ([]byte, error) { return nil, nil })},
		"with another's answer":  {nats.Nkey("successor", func([]byte) ([]byte, error) { return keyOf(2), nil })},
		"in TLS":                 {nats.Secure(stranger.ring.Client(peers[0].ID)), nats.TLSHandshakeFirst()},
	} {
		if nc, err := nats.Connect(peers[0].URL, append(o, nats.NoReconnect(), nats.Timeout(time.Second))...); err == nil {
			nc.Close()
			t.Errorf("%s: connected", name)
		}
	}
	late := newNode(t, natsring.Options{ID: stranger.id, Listen: "127.0.0.1:0", Neighbours: stranger.ring, DialTimeout: 300 * time.Millisecond})
	claimed := []natsring.Peer{peers[0], {ID: peers[1].ID, URL: late.URL()}}
	for name, key := range map[string][]byte{"of the round before": keyOf(1), "drawn": keyOf(77)} {
		late := newNode(t, natsring.Options{ID: stranger.id, Listen: "127.0.0.1:0", DialTimeout: 300 * time.Millisecond})
		claimed[1].URL = late.URL()
		_, err := late.PlainRing(t.Context(), 2, 1, claimed, natsring.NATS, key)
		var lost *allreduce.PeerError
		if !errors.As(err, &lost) || lost.Rank != 0 {
			t.Errorf("a key %s: %v", name, err)
		}
	}
	claimed[1] = natsring.Peer{ID: stranger.id, URL: late.URL()}
	if _, err := late.PlainRing(t.Context(), 2, 1, claimed, natsring.NATS, keyOf(2)); err == nil {
		t.Error("a member that is not next was let in")
	}
	sumAndLeave(t, groups)
}

// TestKeysAreForOneRing: neither a key that was used, nor none, nor half of one.
func TestKeysAreForOneRing(t *testing.T) {
	all, peers := secureNodes(t, 2)
	for _, tr := range plainly(t, 5, all, peers, natsring.NATS) {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, round := range []int64{5, 6} {
		if _, err := all[0].PlainRing(t.Context(), round, 0, peers, natsring.NATS, keyOf(5)); err == nil || !strings.Contains(err.Error(), "one ring") {
			t.Errorf("round 5's key in round %d: %v", round, err)
		}
	}
	for _, key := range [][]byte{nil, keyOf(6)[:16]} {
		if _, err := all[0].PlainRing(t.Context(), 6, 0, peers, natsring.NATS, key); err == nil || !strings.Contains(err.Error(), "coordinator") {
			t.Errorf("a key of %d bytes: %v", len(key), err)
		}
	}
}

// TestOtherKeyOnAPlainRing: members with two keys do not come together, on either lane.
func TestOtherKeyOnAPlainRing(t *testing.T) {
	var all []*natsring.Node
	var peers []natsring.Peer
	for range 2 {
		m := newMember(t)
		n := newNode(t, natsring.Options{ID: m.id, Listen: "127.0.0.1:0", DialTimeout: 300 * time.Millisecond})
		all, peers = append(all, n), append(peers, natsring.Peer{ID: m.id, URL: n.URL()})
	}
	errs := make(chan error, 2)
	for rank, n := range all {
		go func() {
			_, err := n.PlainRing(t.Context(), 1, rank, peers, natsring.Direct, keyOf(int64(rank)))
			errs <- err
		}()
	}
	for range all {
		if err := <-errs; !errors.Is(err, allreduce.ErrDown) {
			t.Errorf("two keys: %v", err)
		}
	}
}

// TestForgersOnAPlainWire: somebody between two neighbours, who hears all and says things
// of its own, gets no frame of its own taken and none taken twice: the sums are right, or
// the round ends with an error.
func TestForgersOnAPlainWire(t *testing.T) {
	for name, forge := range map[string]func(frame []byte) []byte{
		"one bit":   func(f []byte) []byte { f[len(f)/2] ^= 1; return f },
		"repeated":  func(f []byte) []byte { return append(f[:len(f):len(f)], f...) },
		"untouched": func(f []byte) []byte { return f },
	} {
		t.Run(name, func(t *testing.T) { forgedWire(t, forge, name == "one bit") })
	}
}

// forgedWire puts a forger between rank 0's server and its successor.
func forgedWire(t *testing.T, forge func([]byte) []byte, ends bool) {
	all, peers := secureNodes(t, 2)
	at, err := url.Parse(peers[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", at.Host)
			if err != nil {
				c.Close()
				continue
			}
			go func() { io.Copy(s, c); s.Close() }()
			go func() { forgeMessages(c, s, forge); c.Close() }()
		}
	}()
	seenBy1 := []natsring.Peer{{ID: peers[0].ID, URL: "nats://" + l.Addr().String()}, peers[1]}
	ts := openAll(t, all, func(rank int, n *natsring.Node) (allreduce.Transport, error) {
		return n.PlainRing(t.Context(), 1, rank, [][]natsring.Peer{peers, seenBy1}[rank], natsring.NATS, keyOf(1))
	})
	cfg := allreducetest.Config()
	cfg.Timeout, cfg.ConnectTimeout = 3*time.Second, 20*time.Second
	groups := allreducetest.Groups(t, ts, cfg)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	errs := allreducetest.Together(groups, func(g *allreduce.Group) error {
		return allreducetest.SumOfRanks(ctx, g, 1, 5000)
	})
	err = errors.Join(errs...)
	if failed := (*allreduce.PeerError)(nil); ends && !errors.As(err, &failed) || !ends && err != nil {
		t.Errorf("%v", errs)
	}
}
