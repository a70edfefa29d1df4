package allreduce_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
)

// TestALentVectorIsTheCallersAfterwards: when a collective returns, whether it went well
// or not, nobody reads its vector any more; the race detector would see it. Whoever still
// needs it gets an error and no sum of it.
func TestALentVectorIsTheCallersAfterwards(t *testing.T) {
	for seed := range uint64(60) {
		world := []int{2, 3, 5}[seed%3]
		network := allreducetest.NewNetwork("lent", 1, world, allreducetest.Plan{Lend: allreducetest.Everywhere})
		groups := allreducetest.Groups(t, network.Transports(), faultConfig())
		rng := rand.New(rand.NewPCG(seed, 0))
		gives, at := rng.IntN(world), rng.IntN(40)
		ctx, stop := context.WithCancel(t.Context())
		for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
			data := make([]float32, 4000)
			for step := range 40 {
				if g.Rank() == gives && step == at {
					go stop() // somewhere in the middle of it
				}
				for i := range data {
					data[i] = float32(step + g.Rank())
				}
				stepCtx := t.Context()
				if g.Rank() == gives {
					stepCtx = ctx
				}
				err := g.AllReduceSum(stepCtx, allreduce.Tag{Step: uint64(step)}, data)
				want := float32(world*step + world*(world-1)/2)
				for i, v := range data {
					if err == nil && v != want {
						t.Errorf("seed %d, rank %d, step %d: element %d is %g, want %g", seed, g.Rank(), step, i, v, want)
						return nil
					}
					data[i] = -1 // ours again
				}
				if err != nil {
					return err
				}
			}
			return g.Leave(t.Context())
		}) {
			var peer *allreduce.PeerError
			if err != nil && !errors.Is(err, context.Canceled) && !errors.As(err, &peer) {
				t.Errorf("seed %d, rank %d: %v", seed, rank, err)
			}
		}
		stop()
	}
}
