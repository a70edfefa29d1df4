package allreducetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mochi/allreduce"
	"mochi/allreduce/codec"
)

// Segment is the payload of a frame in the suite: small, so that many segments
// are cheap to reach.
const Segment = 256

// Config is what the suite runs Groups with: small segments, a window that is
// filled often, and time enough for a busy machine.
func Config() allreduce.Config {
	c := allreduce.DefaultConfig()
	c.Segment = Segment
	c.Lent = 2 * Segment
	c.Window = 5
	c.Timeout = 20 * time.Second
	c.ConnectTimeout = 20 * time.Second
	return c
}

// worlds are the sizes every transport is tested with.
var worlds = []int{1, 2, 3, 4, 5, 8}

// lengths are the vectors a world is tested with: none, one element, odd, one
// segment ± 1 element for each rank and wire, large.
func lengths(world int) []int {
	const full = Segment / 4
	return []int{0, 1, 7, full - 1, full, full + 1, 2*full + 1, world*full - 1, world * full, world*full + 1, world*2*full + 1, 20*full + 13}
}

// Opener makes the transports of one round, by rank, on a fresh network.
// Resources beyond the transports are freed by t.Cleanup.
type Opener func(t *testing.T, world int) []allreduce.Transport

// Conformance checks a Transport with everything a Group does over it. Any
// implementation must pass.
func Conformance(t *testing.T, open Opener) {
	for _, world := range worlds {
		t.Run(fmt.Sprintf("world=%d", world), func(t *testing.T) {
			t.Run("collectives", func(t *testing.T) { collectives(t, open(t, world)) })
			t.Run("leave", func(t *testing.T) { leave(t, open(t, world)) })
			if world > 1 {
				t.Run("cancel", func(t *testing.T) { cancel(t, open(t, world)) })
				t.Run("mismatch", func(t *testing.T) { mismatch(t, open(t, world)) })
			}
		})
	}
}

// Groups makes a Group on each transport; they are closed with the test.
func Groups(t *testing.T, transports []allreduce.Transport, cfg allreduce.Config) []*allreduce.Group {
	t.Helper()
	groups := make([]*allreduce.Group, len(transports))
	for i, tr := range transports {
		g, err := allreduce.NewGroup(tr, cfg)
		if err != nil {
			t.Fatalf("rank %d: %v", i, err)
		}
		t.Cleanup(func() {
			if err := g.Close(); err != nil {
				t.Errorf("rank %d: close: %v", i, err)
			}
		})
		groups[i] = g
	}
	return groups
}

// Together runs f on all ranks at once and returns their errors.
func Together(groups []*allreduce.Group, f func(g *allreduce.Group) error) []error {
	errs := make([]error, len(groups))
	var all sync.WaitGroup
	for i, g := range groups {
		all.Go(func() { errs[i] = f(g) })
	}
	all.Wait()
	return errs
}

// collectives runs all of them one after another on one set of Groups, with
// closed-form results.
func collectives(t *testing.T, transports []allreduce.Transport) {
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	groups := Groups(t, transports, Config())
	world := len(groups)
	step := uint64(0)
	each := func(name string, f func(g *allreduce.Group, tag allreduce.Tag) error) {
		t.Helper()
		step++
		tag := allreduce.Tag{Step: step, Bucket: uint32(step % 3)}
		for rank, err := range Together(groups, func(g *allreduce.Group) error { return f(g, tag) }) {
			if err != nil {
				t.Fatalf("%s, rank %d: %v", name, rank, err)
			}
		}
	}
	each("connect", func(g *allreduce.Group, _ allreduce.Tag) error { return g.Connect(ctx) })
	for _, n := range lengths(world) {
		for _, wire := range []codec.Wire{codec.FP32, codec.BF16} {
			name := fmt.Sprintf("sum %s n=%d", wire, n)
			each(name, func(g *allreduce.Group, tag allreduce.Tag) error { return checkSum(ctx, g, tag, wire, n) })
			if wire == codec.FP32 || !slices.ContainsFunc(transports, lends) { // else some hops round and others do not
				each(name+" random", func(g *allreduce.Group, tag allreduce.Tag) error { return checkRingOrder(ctx, g, tag, wire, n) })
			}
		}
		each(fmt.Sprintf("max n=%d", n), func(g *allreduce.Group, tag allreduce.Tag) error { return checkMax(ctx, g, tag, n) })
		each(fmt.Sprintf("gather n=%d", n), func(g *allreduce.Group, tag allreduce.Tag) error { return checkGather(ctx, g, tag, n) })
		root := n % world
		each(fmt.Sprintf("broadcast n=%d", n), func(g *allreduce.Group, tag allreduce.Tag) error { return checkBroadcast(ctx, g, tag, root, n) })
	}
	var entered atomic.Int64
	each("barrier", func(g *allreduce.Group, tag allreduce.Tag) error {
		entered.Add(1)
		if err := g.Barrier(ctx, tag); err != nil {
			return err
		}
		if n := entered.Load(); n != int64(world) {
			return fmt.Errorf("the barrier opened when %d of %d had entered", n, world)
		}
		return nil
	})
}

// checkSum: rank r holds (r+1)·(i mod 5 + 1), so the sum is
// P(P+1)/2·(i mod 5 + 1), small enough to be exact in bf16.
func checkSum(ctx context.Context, g *allreduce.Group, tag allreduce.Tag, wire codec.Wire, n int) error {
	data := make([]float32, n)
	for i := range data {
		data[i] = float32((g.Rank() + 1) * (i%5 + 1))
	}
	if err := g.AllReduceSumAs(ctx, tag, wire, data); err != nil {
		return err
	}
	for i, v := range data {
		if want := float32(g.World() * (g.World() + 1) / 2 * (i%5 + 1)); v != want {
			return fmt.Errorf("element %d is %g, want %g", i, v, want)
		}
	}
	return nil
}

// lends says whether segments of a transport may stay where they are.
func lends(t allreduce.Transport) bool {
	l, ok := t.(allreduce.Lender)
	return ok && (l.Lends() != nil || l.Borrows() != nil)
}

func randomVector(step uint64, rank, n int) []float32 {
	rng := rand.New(rand.NewPCG(step, uint64(rank)))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

// checkRingOrder compares random sums with a plain loop that adds in the order
// the algorithm promises: chunk c starts at rank c. All ranks having these
// bits, they are identical.
func checkRingOrder(ctx context.Context, g *allreduce.Group, tag allreduce.Tag, wire codec.Wire, n int) error {
	world := g.World()
	terms := make([][]float32, world)
	for r := range terms {
		terms[r] = randomVector(tag.Step, r, n)
	}
	data := slices.Clone(terms[g.Rank()])
	if err := g.AllReduceSumAs(ctx, tag, wire, data); err != nil {
		return err
	}
	for c := range world {
		for i := c * n / world; i < (c+1)*n/world; i++ {
			sum := []float32{terms[c][i]}
			for k := 1; k < world; k++ {
				wire.Round(sum)
				sum[0] += terms[(c+k)%world][i]
			}
			if world > 1 {
				wire.Round(sum)
			}
			if math.Float32bits(sum[0]) != math.Float32bits(data[i]) {
				return fmt.Errorf("element %d is %g, in ring order %g", i, data[i], sum[0])
			}
		}
	}
	return nil
}

func checkMax(ctx context.Context, g *allreduce.Group, tag allreduce.Tag, n int) error {
	world := g.World()
	data := make([]float32, n)
	for i := range data {
		data[i] = float32((i + g.Rank()) % world)
	}
	if n > 2 && g.Rank() == world-1 {
		data[2] = float32(math.NaN())
	}
	if err := g.AllReduceMax(ctx, tag, data); err != nil {
		return err
	}
	for i, v := range data {
		if n > 2 && i == 2 {
			if v == v {
				return fmt.Errorf("one rank's NaN became %g", v)
			}
		} else if v != float32(world-1) {
			return fmt.Errorf("element %d is %g, want %d", i, v, world-1)
		}
	}
	return nil
}

// checkGather: the parts are uneven, some empty, and sum to n.
func checkGather(ctx context.Context, g *allreduce.Group, tag allreduce.Tag, n int) error {
	counts := make([]int, g.World())
	left := n
	for r := range counts {
		counts[r] = min(left, r%3*n/g.World())
		left -= counts[r]
	}
	counts[g.World()/2] += left
	data := make([]float32, n)
	start := 0
	for _, c := range counts[:g.Rank()] {
		start += c
	}
	for i := range counts[g.Rank()] {
		data[start+i] = float32(g.Rank()*100_000 + i)
	}
	if err := g.AllGather(ctx, tag, data, counts); err != nil {
		return err
	}
	at := 0
	for r, c := range counts {
		for i := range c {
			if want := float32(r*100_000 + i); data[at] != want {
				return fmt.Errorf("element %d of rank %d's part is %g, want %g", i, r, data[at], want)
			}
			at++
		}
	}
	return nil
}

func checkBroadcast(ctx context.Context, g *allreduce.Group, tag allreduce.Tag, root, n int) error {
	data := make([]byte, n)
	want := make([]byte, n)
	for i := range want {
		want[i] = byte(7*i + root)
	}
	if g.Rank() == root {
		copy(data, want)
	}
	if err := g.Broadcast(ctx, tag, root, data); err != nil {
		return err
	}
	if !slices.Equal(data, want) {
		return errors.New("the bytes differ from the root's")
	}
	return nil
}

// leave: whoever is done may go at once; nothing it sent is lost.
func leave(t *testing.T, transports []allreduce.Transport) {
	groups := Groups(t, transports, Config())
	for rank, err := range Together(groups, func(g *allreduce.Group) error {
		if err := checkSum(t.Context(), g, allreduce.Tag{Step: 1}, codec.FP32, 1000); err != nil {
			return err
		}
		return g.Leave(t.Context())
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", rank, err)
		}
	}
}

// cancel: one rank never enters the collective; cancelling unblocks the
// others, and a cancelled rank takes its peers with it.
func cancel(t *testing.T, transports []allreduce.Transport) {
	groups := Groups(t, transports, Config())
	for rank, err := range Together(groups, func(g *allreduce.Group) error { return g.Connect(t.Context()) }) {
		if err != nil {
			t.Fatalf("rank %d: %v", rank, err)
		}
	}
	reason := errors.New("a new round begins")
	ctx, stop := context.WithCancelCause(t.Context())
	errs := Together(groups, func(g *allreduce.Group) error {
		if g.Rank() == 0 {
			stop(reason)
			return nil
		}
		groupCtx := t.Context() // the others only hear of it
		if g.Rank() == 1 {
			groupCtx = ctx
		}
		return g.AllReduceSum(groupCtx, allreduce.Tag{Step: 1}, make([]float32, 5000))
	})
	if !errors.Is(errs[1], reason) {
		t.Errorf("rank 1 was cancelled and says %v", errs[1])
	}
	for rank, err := range errs[2:] {
		var peer *allreduce.PeerError
		if !errors.As(err, &peer) || peer.Rank != 1 || !errors.Is(err, allreduce.ErrAborted) {
			t.Errorf("rank %d should say that rank 1 gave up, says: %v", rank+2, err)
		}
	}
	if err := groups[1].AllReduceSum(t.Context(), allreduce.Tag{}, nil); !errors.Is(err, reason) {
		t.Errorf("after the error the group says %v", err)
	}
}

// mismatch: ranks that disagree get errors, never sums.
func mismatch(t *testing.T, transports []allreduce.Transport) {
	groups := Groups(t, transports, Config())
	errs := Together(groups, func(g *allreduce.Group) error {
		n := 1000
		if g.Rank() == 1 {
			n = 1001
		}
		return g.AllReduceSum(t.Context(), allreduce.Tag{Step: 9}, make([]float32, n))
	})
	for rank, err := range errs {
		var peer *allreduce.PeerError
		if !errors.As(err, &peer) || !errors.Is(err, allreduce.ErrMismatch) {
			t.Errorf("rank %d should report a mismatch, says: %v", rank, err)
		}
	}
}
