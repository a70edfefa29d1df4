package natsring_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
	"mochi/allreduce/natsring"
)

var directSeeds = flag.Uint64("natsring.seeds", 8, "runs of the lane direct over faulty connections")

// bad is a connection that misbehaves from some byte on that it has been given.
type bad struct {
	net.Conn
	mu     sync.Mutex
	rng    *rand.Rand
	left   int // bytes until it begins
	how    int
	failed bool
}

// What a bad connection does.
const (
	cuts     = iota // it ends in the middle of a write
	swallows        // nothing arrives any more, and nobody is told
	flips           // one bit is another
	dribbles        // what is written comes in small pieces
	faults
)

func (b *bad) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.how == dribbles {
		for n := 0; n < len(p); {
			k := min(len(p)-n, 1+b.rng.IntN(200))
			if _, err := b.Conn.Write(p[n : n+k]); err != nil {
				return n, err
			}
			n += k
		}
		return len(p), nil
	}
	if b.failed && b.how == swallows {
		return len(p), nil
	}
	if b.left -= len(p); b.left >= 0 || b.failed {
		return b.Conn.Write(p)
	}
	b.failed = true
	at := b.rng.IntN(len(p))
	switch b.how {
	case cuts:
		n, _ := b.Conn.Write(p[:at])
		b.Conn.Close()
		return n, net.ErrClosed
	case swallows:
		_, err := b.Conn.Write(p[:at])
		return len(p), err
	default:
		q := append([]byte(nil), p...)
		q[at] ^= 1 << b.rng.IntN(8)
		return b.Conn.Write(q)
	}
}

// TestDirectFaultsNeverGiveWrongSums: whatever happens to a connection, from its first byte
// on, a round ends, with the right sums or with an error that names a peer.
func TestDirectFaultsNeverGiveWrongSums(t *testing.T) {
	var failed, passed int
	for seed := range *directSeeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			how := int(seed % faults)
			for rank, err := range overBadConnections(t, seed, how) {
				var peer *allreduce.PeerError
				switch {
				case err == nil:
					passed++
				case how != dribbles && errors.As(err, &peer):
					failed++
				default:
					t.Errorf("rank %d: %v", rank, err)
				}
			}
		})
	}
	if *directSeeds >= 2*faults && (failed == 0 || passed == 0) {
		t.Errorf("%d ranks failed, %d did not: the faults do too little or too much", failed, passed)
	}
}

// overBadConnections sums three times in a world in which rank 0's connections are bad.
func overBadConnections(t *testing.T, seed uint64, how int) []error {
	rng := rand.New(rand.NewPCG(19, seed))
	world, from := 2+rng.IntN(3), rng.IntN(1<<(4+rng.IntN(14)))
	all, peers := nodes(t, world, func(rank int) natsring.Options {
		o := natsring.Options{Listen: "127.0.0.1:0"}
		if rank == 0 {
			o.Wrap = func(c net.Conn) (net.Conn, error) {
				return &bad{Conn: c, rng: rand.New(rand.NewPCG(seed, 0)), left: from, how: how}, nil
			}
		}
		return o
	})
	cfg := allreducetest.Config()
	if how != dribbles { // which loses nothing, however long it takes
		cfg.Timeout = time.Second
	}
	groups := allreducetest.Groups(t, ringsOn(t, 1, all, peers, natsring.Direct), cfg)
	return allreducetest.Together(groups, func(g *allreduce.Group) error {
		for step := range uint64(3) {
			if err := allreducetest.SumOfRanks(t.Context(), g, step, 4000); err != nil {
				return err
			}
		}
		return g.Leave(t.Context())
	})
}
