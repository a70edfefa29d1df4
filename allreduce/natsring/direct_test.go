package natsring_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
	"mochi/allreduce/natsring"
)

// output is a log that several write.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) count(what string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Count(o.text.String(), what)
}

func (o *output) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(o, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// TestDirectConformance: the suite over connections of their own.
func TestDirectConformance(t *testing.T) {
	var out output
	all, peers := nodes(t, 8, func(int) natsring.Options { return natsring.Options{Listen: "127.0.0.1:0", Log: out.log()} })
	round := int64(0)
	allreducetest.Conformance(t, func(t *testing.T, world int) []allreduce.Transport {
		round++
		return ringsOn(t, round, all[:world], peers[:world], natsring.Direct)
	})
	if made, not := out.count("ring lane direct"), out.count("instead of direct"); made == 0 || not > made/20 { // one that nobody had time for goes over the server
		t.Errorf("%d ends of links are direct, %d are not", made, not)
	}
}

// TestDirectOfSome: some neighbours are of one process, one has no server of its own.
func TestDirectOfSome(t *testing.T) {
	hub := newServer(t)
	process := &natsring.Process{}
	var out output
	all, peers := nodes(t, 5, func(rank int) natsring.Options {
		o := natsring.Options{HubURL: hub.URL(), Log: out.log()}
		if rank < 3 {
			o.Process = process
		}
		if rank != 3 {
			o.Listen = "127.0.0.1:0"
		}
		return o
	})
	groups := allreducetest.Groups(t, ringsOn(t, 1, all, peers, natsring.Direct), allreducetest.Config())
	for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
		return errors.Join(allreducetest.SumOfRanks(t.Context(), g, 1, 100_003), g.Leave(t.Context()))
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", rank, err)
		}
	}
	// 0 and 1, 1 and 2 lend; 3 to 4 goes by the hub; 2 to 3 and 4 to 0 are direct.
	if made := out.count("ring lane direct"); made != 4 {
		t.Errorf("%d ends of links are direct, want 4", made)
	}
}

// TestDirectFallsBack: where a connection cannot be made, both ends say so and the round
// goes on over NATS.
func TestDirectFallsBack(t *testing.T) {
	refuse := func(net.Conn) (net.Conn, error) { return nil, errors.New("not today") }
	for name, wrap := range map[string][2]func(net.Conn) (net.Conn, error){
		"the successor cannot":   {nil, refuse},
		"the predecessor cannot": {refuse, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var out output
			all, peers := nodes(t, 2, func(rank int) natsring.Options {
				return natsring.Options{Listen: "127.0.0.1:0", Log: out.log(), Wrap: wrap[rank]}
			})
			groups := allreducetest.Groups(t, ringsOn(t, 1, all, peers, natsring.Direct), allreducetest.Config())
			for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
				return errors.Join(allreducetest.SumOfRanks(t.Context(), g, 1, 10_000), g.Leave(t.Context()))
			}) {
				if err != nil {
					t.Errorf("rank %d: %v", rank, err)
				}
			}
			if n := out.count("level=WARN"); n != 4 {
				t.Errorf("%d lines say that there is no connection, want one of each end of two links:\n%s", n, out.text.String())
			}
		})
	}
}

// TestDirectNeighbourDies: its connections end, and all name it at once, whoever noticed.
func TestDirectNeighbourDies(t *testing.T) {
	const world, dead = 4, 2
	var mu sync.Mutex
	var theirs []net.Conn
	all, peers := nodes(t, world, func(rank int) natsring.Options {
		o := natsring.Options{Listen: "127.0.0.1:0"}
		if rank == dead {
			o.Wrap = func(c net.Conn) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				theirs = append(theirs, c)
				return c, nil
			}
		}
		return o
	})
	theDeadIsNamed(t, ringsOn(t, 1, all, peers, natsring.Direct), dead, func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range theirs {
			c.Close()
		}
	})
}

// stuck is a connection that stops moving, in both directions, without ending.
type stuck struct {
	net.Conn
	from <-chan struct{}
}

func (s *stuck) Write(b []byte) (int, error) {
	select {
	case <-s.from:
		return len(b), nil // into the void
	default:
		return s.Conn.Write(b)
	}
}

// TestDirectHalfOpen: a neighbour whose connection neither moves nor ends is noticed within
// the timeout, and named.
func TestDirectHalfOpen(t *testing.T) {
	const world, hung = 3, 1
	stop := make(chan struct{})
	all, peers := nodes(t, world, func(rank int) natsring.Options {
		o := natsring.Options{Listen: "127.0.0.1:0"}
		if rank == hung {
			o.Wrap = func(c net.Conn) (net.Conn, error) { return &stuck{c, stop}, nil }
		}
		return o
	})
	cfg := allreducetest.Config()
	cfg.Timeout = 2 * time.Second
	groups := allreducetest.Groups(t, ringsOn(t, 1, all, peers, natsring.Direct), cfg)
	var once sync.Once
	var since time.Time
	took := make([]time.Duration, world)
	errs := allreducetest.Together(groups, func(g *allreduce.Group) error {
		for step := uint64(0); ; step++ {
			if g.Rank() == hung && step == 2 {
				once.Do(func() { since = time.Now(); close(stop) })
			}
			if err := allreducetest.SumOfRanks(t.Context(), g, step, 3000); err != nil {
				took[g.Rank()] = time.Since(since)
				return err
			}
		}
	})
	for rank, err := range errs {
		var peer *allreduce.PeerError
		if !errors.As(err, &peer) || rank != hung && peer.Rank != hung {
			t.Errorf("rank %d should name rank %d, says: %v", rank, hung, err)
		}
		if took[rank] > 10*cfg.Timeout { // on a machine that is busy; it would be for ever
			t.Errorf("rank %d noticed after %v", rank, took[rank])
		}
	}
}

// TestDirectStrangersDuringARound: programs that connect to the port of a ring, at any
// time, disturb nobody.
func TestDirectStrangersDuringARound(t *testing.T) {
	var mu sync.Mutex
	var at []string
	all, peers := nodes(t, 2, func(int) natsring.Options {
		return natsring.Options{Listen: "127.0.0.1:0", Wrap: func(c net.Conn) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, c.RemoteAddr().String(), c.LocalAddr().String())
			return c, nil
		}}
	})
	groups := allreducetest.Groups(t, ringsOn(t, 1, all, peers, natsring.Direct), allreducetest.Config())
	for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
		for step := range uint64(30) {
			if g.Rank() == 0 && step%10 == 5 {
				mu.Lock()
				targets := append([]string(nil), at...)
				mu.Unlock()
				client := http.Client{Timeout: time.Second}
				for _, a := range targets {
					if r, err := client.Get("http://" + a); err == nil {
						r.Body.Close()
						return fmt.Errorf("%s answered %s", a, r.Status)
					}
				}
			}
			if err := allreducetest.SumOfRanks(t.Context(), g, step, 10_000); err != nil {
				return err
			}
		}
		return g.Leave(t.Context())
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", rank, err)
		}
	}
}
