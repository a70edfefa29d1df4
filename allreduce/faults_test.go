package allreduce_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
	"mochi/allreduce/codec"
)

// The tests below run in synctest bubbles: deadlines cost no time, a hang is
// reported as a deadlock, and so is a goroutine that is left behind.

// seeds: a third of them each with segments in frames, lent, and some of both.
var seeds = flag.Uint64("allreduce.seeds", 36, "runs of each plan of a faulty network")

func faultConfig() allreduce.Config {
	cfg := allreducetest.Config()
	cfg.Timeout = 4 * time.Second
	return cfg
}

// TestFaultsNeverGiveWrongSums: whatever the network does, a collective ends,
// with the right sum or with an error that names a peer. Faults that lose
// nothing do not even give an error.
func TestFaultsNeverGiveWrongSums(t *testing.T) {
	for _, c := range []struct {
		name     string
		plan     allreducetest.Plan
		harmless bool
	}{
		{"perfect", allreducetest.Plan{}, true},
		{"duplicates", allreducetest.Plan{Duplicate: 0.3}, true},
		{"delays", allreducetest.Plan{Delay: 50 * time.Millisecond}, true},
		{"drops", allreducetest.Plan{Drop: 0.01}, false},
		{"heavy drops", allreducetest.Plan{Drop: 0.4}, false},
		{"corruption", allreducetest.Plan{Corrupt: 0.01}, false},
		{"everything", allreducetest.Plan{Drop: 0.003, Duplicate: 0.1, Corrupt: 0.003, Delay: 20 * time.Millisecond}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			failed := 0
			for seed := range *seeds {
				world := []int{2, 3, 4, 8}[seed%4]
				plan := c.plan
				plan.Seed = seed
				plan.Lend = []uint64{0, allreducetest.Everywhere, 0b01101001}[seed/4%3]
				synctest.Test(t, func(t *testing.T) {
					groups := allreducetest.Groups(t, allreducetest.NewNetwork("faults", 1, world, plan).Transports(), faultConfig())
					for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
						for step := range uint64(3) {
							if err := allreducetest.SumOfRanks(t.Context(), g, step, 2000); err != nil {
								return err
							}
						}
						return g.Leave(t.Context())
					}) {
						var peer *allreduce.PeerError
						switch {
						case err == nil:
						case c.harmless || !errors.As(err, &peer):
							t.Errorf("seed %d, rank %d: %v", seed, rank, err)
						default:
							failed++
						}
					}
				})
			}
			if !c.harmless && failed == 0 {
				t.Error("no run failed: the plan did nothing")
			}
		})
	}
}

// TestDeadRankIsNamedByAll: survivors agree on who died, however far around
// the ring they are and whenever it happens, after the timeout when the death
// is silent and at once when the transport notices.
func TestDeadRankIsNamedByAll(t *testing.T) {
	for _, world := range []int{2, 3, 5, 8} {
		for _, after := range []int{30, 35, 41, 60} {
			for _, reported := range []bool{false, true} {
				// What dies with its process lends nothing to those that survive it: its
				// links carry frames. Other links may lend.
				for _, lend := range []uint64{0, allreducetest.Everywhere &^ 0b11} {
					cut := allreducetest.Cut{Rank: 1, After: after, Reported: reported}
					name := fmt.Sprintf("world=%d/after=%d/reported=%t/lent=%t", world, after, reported, lend != 0)
					t.Run(name, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							deadRank(t, world, allreducetest.Plan{Cuts: []allreducetest.Cut{cut}, Lend: lend})
						})
					})
				}
			}
		}
	}
}

func deadRank(t *testing.T, world int, plan allreducetest.Plan) {
	dead, reported := plan.Cuts[0].Rank, plan.Cuts[0].Reported
	cfg := faultConfig()
	groups := allreducetest.Groups(t, allreducetest.NewNetwork("dead", 1, world, plan).Transports(), cfg)
	start := time.Now()
	took := make([]time.Duration, world)
	errs := allreducetest.Together(groups, func(g *allreduce.Group) error {
		for step := uint64(0); ; step++ {
			if err := allreducetest.SumOfRanks(t.Context(), g, step, 3000); err != nil {
				took[g.Rank()] = time.Since(start)
				return err
			}
		}
	})
	cause, limit := allreduce.ErrTimeout, 3*cfg.Timeout/2
	if reported {
		cause, limit = allreduce.ErrDown, cfg.Timeout/4
	}
	for rank, err := range errs {
		var peer *allreduce.PeerError
		if !errors.As(err, &peer) {
			t.Errorf("rank %d: %v", rank, err)
			continue
		}
		if rank != dead && took[rank] > limit {
			t.Errorf("rank %d noticed after %v", rank, took[rank])
		}
		if rank != dead && (peer.Rank != dead || !errors.Is(err, cause)) {
			t.Errorf("rank %d should name rank %d (%v), says: %v", rank, dead, cause, err)
		}
	}
}

// TestStragglerIsNoFailure: a rank may take any time to reach a collective.
func TestStragglerIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		groups := allreducetest.Groups(t, allreducetest.NewNetwork("slow", 1, 4, allreducetest.Plan{}).Transports(), faultConfig())
		for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
			if err := g.Connect(t.Context()); err != nil {
				return err
			}
			if g.Rank() == 2 {
				<-time.After(20 * time.Minute) // it computes
			}
			return allreducetest.SumOfRanks(t.Context(), g, 1, 3000)
		}) {
			if err != nil {
				t.Errorf("rank %d: %v", rank, err)
			}
		}
	})
}

// TestPeersMayRunAhead: a rank whose part fits in the window need not wait for
// the others; they find its segments later, in order.
func TestPeersMayRunAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		groups := allreducetest.Groups(t, allreducetest.NewNetwork("ahead", 1, 3, allreducetest.Plan{}).Transports(), faultConfig())
		ahead := make(chan struct{})
		for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
			if err := g.Connect(t.Context()); err != nil {
				return err
			}
			if g.Rank() != 0 {
				<-ahead
			}
			for step := range byte(5) { // five segments, the window
				data := []byte{0}
				if g.Rank() == 0 {
					data[0] = step + 1
				}
				if err := g.Broadcast(t.Context(), allreduce.Tag{Step: uint64(step)}, 0, data); err != nil {
					return err
				}
				if data[0] != step+1 {
					return fmt.Errorf("step %d brought %d", step, data[0])
				}
			}
			if g.Rank() == 0 {
				close(ahead)
			}
			return nil
		}) {
			if err != nil {
				t.Errorf("rank %d: %v", rank, err)
			}
		}
	})
}

// TestMissingRankFailsConnect: whoever never comes is named after the deadline.
func TestMissingRankFailsConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transports := allreducetest.NewNetwork("missing", 4, 3, allreducetest.Plan{}).Transports()
		groups := allreducetest.Groups(t, transports[:2], faultConfig()) // rank 2 is not there
		for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error { return g.Connect(t.Context()) }) {
			var peer *allreduce.PeerError
			if !errors.As(err, &peer) || peer.Rank != 2 || peer.Round != 4 || !errors.Is(err, allreduce.ErrTimeout) {
				t.Errorf("rank %d: %v", rank, err)
			}
		}
	})
}

// TestEarlyLeaverIsNamed: a rank that closes its group while others still need
// it is reported at once, as alive.
func TestEarlyLeaverIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		groups := allreducetest.Groups(t, allreducetest.NewNetwork("early", 1, 3, allreducetest.Plan{}).Transports(), faultConfig())
		start := time.Now()
		for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
			if err := allreducetest.SumOfRanks(t.Context(), g, 1, 100); err != nil {
				return err
			}
			if g.Rank() == 0 {
				return g.Leave(t.Context())
			}
			return allreducetest.SumOfRanks(t.Context(), g, 2, 5000)
		}) {
			var peer *allreduce.PeerError
			if rank > 0 && (!errors.As(err, &peer) || peer.Rank != 0 || !errors.Is(err, allreduce.ErrAborted)) || rank == 0 && err != nil {
				t.Errorf("rank %d: %v", rank, err)
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v to notice", took)
		}
	})
}

// echo repeats every frame of its own under an older identity's transport: it
// delivers recorded frames of another round before each frame of this one.
type echo struct {
	allreduce.Transport
	stale [][2][]byte
}

func (e *echo) Start(h allreduce.Handlers) error {
	deliver := h.FromPredecessor
	h.FromPredecessor = func(header, payload []byte) {
		for _, f := range e.stale {
			deliver(f[0], f[1])
		}
		deliver(header, payload)
	}
	return e.Transport.Start(h)
}

// recorder keeps what its rank receives from the predecessor.
type recorder struct {
	allreduce.Transport
	frames [][2][]byte
}

func (r *recorder) Start(h allreduce.Handlers) error {
	deliver := h.FromPredecessor
	h.FromPredecessor = func(header, payload []byte) {
		r.frames = append(r.frames, [2][]byte{append([]byte(nil), header...), append([]byte(nil), payload...)})
		deliver(header, payload)
	}
	return r.Transport.Start(h)
}

func TestFramesOfAnotherRoundAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := allreducetest.NewNetwork("job", 1, 2, allreducetest.Plan{}).Transports()
		recorded := &recorder{Transport: old[0]}
		old[0] = recorded
		groups := allreducetest.Groups(t, old, faultConfig())
		run := func(groups []*allreduce.Group) {
			t.Helper()
			for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
				return errors.Join(allreducetest.SumOfRanks(t.Context(), g, 1, 500), g.Leave(t.Context()))
			}) {
				if err != nil {
					t.Errorf("rank %d: %v", rank, err)
				}
			}
		}
		run(groups)
		next := allreducetest.NewNetwork("job", 2, 2, allreducetest.Plan{}).Transports()
		next[0] = &echo{Transport: next[0], stale: recorded.frames}
		groups = allreducetest.Groups(t, next, faultConfig())
		run(groups)
		if s := groups[0].Stats(); s.Foreign == 0 || s.Foreign < uint64(len(recorded.frames)) {
			t.Errorf("%d frames of round 1 were played back, %d dropped", len(recorded.frames), s.Foreign)
		}
	})
}

func TestSoloWorldIsFree(t *testing.T) {
	g, err := allreduce.NewGroup(allreduce.Solo("job", 3), allreduce.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	data := []float32{1, 2.00001, 3}
	if err := errors.Join(
		g.Connect(ctx),
		g.AllReduceSumAs(ctx, allreduce.Tag{}, codec.BF16, data),
		g.AllReduceMax(ctx, allreduce.Tag{}, data),
		g.AllGather(ctx, allreduce.Tag{}, data, []int{3}),
		g.Broadcast(ctx, allreduce.Tag{}, 0, []byte{1}),
		g.Barrier(ctx, allreduce.Tag{}),
	); err != nil {
		t.Error(err)
	}
	if data[1] != 2.00001 {
		t.Errorf("a sum over one rank changed the vector: %v", data)
	}
	if n := testing.AllocsPerRun(100, func() {
		if err := g.AllReduceSum(ctx, allreduce.Tag{}, data); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
	if err := errors.Join(g.Leave(ctx), g.Close()); err != nil {
		t.Error(err)
	}
	if err := g.AllReduceSum(ctx, allreduce.Tag{}, data); !errors.Is(err, allreduce.ErrClosed) {
		t.Errorf("a closed group says %v", err)
	}
}

func TestConfigReportsAllFaults(t *testing.T) {
	err := allreduce.Config{Segment: 7, Wire: "fp8"}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, field := range []string{"Segment", "Lent", "Window", "Wire", "Timeout", "ConnectTimeout"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not mentioned in: %v", field, err)
		}
	}
	if err := allreduce.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	if _, err := allreduce.NewGroup(allreduce.Solo("job", 1), allreduce.Config{}); err == nil {
		t.Error("NewGroup accepted an empty configuration")
	}
}

func TestBadArguments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := allreducetest.Groups(t, allreducetest.NewNetwork("args", 1, 2, allreducetest.Plan{}).Transports(), faultConfig())[0]
		ctx, data := t.Context(), make([]float32, 4)
		for name, err := range map[string]error{
			"wire":           g.AllReduceSumAs(ctx, allreduce.Tag{}, "fp8", data),
			"too few counts": g.AllGather(ctx, allreduce.Tag{}, data, []int{4}),
			"wrong sum":      g.AllGather(ctx, allreduce.Tag{}, data, []int{1, 2}),
			"negative count": g.AllGather(ctx, allreduce.Tag{}, data, []int{5, -1}),
			"root":           g.Broadcast(ctx, allreduce.Tag{}, 2, nil),
		} {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	})
}

func ExampleGroup() {
	// Two ranks in one process over an in-memory network; real ones use
	// package allreduce/natsring.
	transports := allreducetest.NewNetwork("example", 1, 2, allreducetest.Plan{}).Transports()
	sums := make(chan []float32, len(transports))
	for rank, t := range transports {
		go func() {
			g, err := allreduce.NewGroup(t, allreduce.DefaultConfig())
			if err != nil {
				panic(err)
			}
			gradient := []float32{1, float32(rank)}
			if err := g.AllReduceSum(context.Background(), allreduce.Tag{Step: 1}, gradient); err != nil {
				panic(err)
			}
			if err := g.Leave(context.Background()); err != nil {
				panic(err)
			}
			sums <- gradient
		}()
	}
	fmt.Println(<-sums, <-sums)
	// Output: [2 1] [2 1]
}
