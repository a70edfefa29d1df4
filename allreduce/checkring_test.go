package allreduce_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
	"mochi/allreduce/codec"
)

// Around a ring of any size, with any wire, a check changes no bit of a sum, finds
// nothing where all add rightly, and the elements in which a rank's own part is not
// what it should be, at that rank alone; what one sends the next one gets.
func TestCheckedSums(t *testing.T) {
	for _, wire := range []codec.Wire{codec.FP32, codec.BF16} {
		for _, world := range []int{1, 2, 3, 5} {
			for _, n := range []int{0, 1, 5, 64, 1000, 3333} {
				cfg := allreducetest.Config()
				cfg.Wire = wire
				network := allreducetest.NewNetwork("job", 1, world, allreducetest.Plan{})
				groups := allreducetest.Groups(t, network.Transports(), cfg)
				terms := make([][]float32, world)
				rng := rand.New(rand.NewPCG(uint64(n), uint64(world)))
				for r := range terms {
					terms[r] = make([]float32, n)
					for i := range terms[r] {
						terms[r][i] = float32(rng.NormFloat64())
					}
				}
				evil := rng.IntN(world)
				for step := range uint64(4) {
					stride := 1 + int(step)
					found := make([]allreduce.Found, world)
					var mu sync.Mutex
					inParallel(t, groups, func(ctx context.Context, g *allreduce.Group) error {
						r := g.Rank()
						plain, data := slices.Clone(terms[r]), slices.Clone(terms[r])
						if err := g.AllReduceSum(ctx, allreduce.Tag{Step: step}, plain); err != nil {
							return err
						}
						check := &allreduce.Check{Step: step, Stride: stride, Offset: 17, Own: func(dst []float32, lo int) { copy(dst, terms[r][lo:]) }}
						if err := g.AllReduceSumChecked(ctx, allreduce.Tag{Step: step, Bucket: 1}, data, check); err != nil {
							return err
						}
						for i := range data {
							if math.Float32bits(data[i]) != math.Float32bits(plain[i]) {
								return fmt.Errorf("with a check element %d is %g, not %g", i, data[i], plain[i])
							}
						}
						if f := check.Found(); f.Wrong > 0 {
							return fmt.Errorf("it found %+v where nothing was wrong", f)
						}
						if r == evil {
							for i := range data {
								data[i] = terms[r][i] + 1
							}
						} else {
							copy(data, terms[r])
						}
						if err := g.AllReduceSumChecked(ctx, allreduce.Tag{Step: step, Bucket: 2}, data, check); err != nil {
							return err
						}
						mu.Lock()
						found[r] = check.Found()
						mu.Unlock()
						return nil
					})
					for r, f := range found {
						covered := n >= 64*(stride+1) // some block of it is looked at
						if f.Wrong > 0 && r != evil || f.Wrong == 0 && r == evil && covered {
							t.Errorf("%s, world %d, %d elements, step %d: rank %d found %+v, rank %d is wrong", wire, world, n, step, r, f, evil)
						}
						if next := found[(r+1)%world]; f.Sent != next.Got && world > 1 {
							t.Errorf("%s, world %d, %d elements: rank %d sent %x, the next got %x", wire, world, n, r, f.Sent, next.Got)
						}
					}
				}
			}
		}
	}
}

// inParallel runs one function on all ranks.
func inParallel(t *testing.T, groups []*allreduce.Group, do func(ctx context.Context, g *allreduce.Group) error) {
	t.Helper()
	var all sync.WaitGroup
	for _, g := range groups {
		all.Go(func() {
			if err := do(t.Context(), g); err != nil {
				t.Errorf("rank %d of %d: %v", g.Rank(), g.World(), err)
			}
		})
	}
	all.Wait()
}

// What a check costs a vector of the size of ResNet-50's, at the usual stride.
func BenchmarkCheck(b *testing.B) {
	data := make([]float32, 25<<20)
	for i := range data {
		data[i] = float32(i%1000) / 1000
	}
	step := uint64(0)
	for b.Loop() {
		check := &allreduce.Check{Step: step, Stride: 256}
		check.Alone(data)
		step++
	}
}
