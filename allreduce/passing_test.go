package allreduce_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
	"mochi/allreduce/codec"
)

// TestSumsAreThoseOfThePath: every chunk is the sum along its path around the ring, rounded
// at each hop where the wire rounds, to the bit. However little room there is for what only
// passes a rank, and whichever links lend, the sums are the same.
func TestSumsAreThoseOfThePath(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(4, seed))
			world, length := 2+rng.IntN(4), rng.IntN(3000)
			cfg := faultConfig()
			cfg.Wire = []codec.Wire{codec.FP32, codec.BF16}[seed%2]
			cfg.Window = 1 + rng.IntN(6)
			plan := allreducetest.Plan{Seed: seed, Delay: time.Duration(rng.IntN(2)) * 20 * time.Millisecond}
			data := make([][]float32, world)
			for rank := range data {
				data[rank] = oddValues(length, rng)
			}
			want := alongThePath(data, cfg.Wire)
			sumOver(t, data, cfg, plan)
			for rank := range data {
				for i, x := range data[rank] {
					if math.Float32bits(x) != math.Float32bits(want[i]) && (x == x || want[i] == want[i]) {
						t.Fatalf("seed %d, %s, rank %d of %d: element %d of %d is %g, want %g", seed, cfg.Wire, rank, world, i, length, x, want[i])
					}
				}
			}
		})
	}
}

// TestLongSums: vectors that no cache holds.
func TestLongSums(t *testing.T) {
	const length = 1<<20 + 1009
	for _, wire := range []codec.Wire{codec.FP32, codec.BF16} {
		for _, world := range []int{2, 3} {
			cfg := allreducetest.Config()
			cfg.Wire, cfg.Segment = wire, 65_000
			rng := rand.New(rand.NewPCG(5, uint64(world)))
			data := make([][]float32, world)
			for rank := range data {
				data[rank] = allreduce.NewVector(length)
				for i := range data[rank] {
					data[rank][i] = rng.Float32() - 0.5
				}
			}
			want := alongThePath(data, wire)
			sumOver(t, data, cfg, allreducetest.Plan{})
			for rank := range data {
				for i, x := range data[rank] {
					if x != want[i] {
						t.Fatalf("%s, rank %d of %d: element %d is %g, want %g", wire, rank, world, i, x, want[i])
					}
				}
			}
		}
	}
}

// sumOver sums data, a vector a rank, over a network.
func sumOver(t *testing.T, data [][]float32, cfg allreduce.Config, plan allreducetest.Plan) {
	t.Helper()
	groups := allreducetest.Groups(t, allreducetest.NewNetwork("sums", 1, len(data), plan).Transports(), cfg)
	for rank, err := range allreducetest.Together(groups, func(g *allreduce.Group) error {
		if err := g.AllReduceSum(t.Context(), allreduce.Tag{Step: 1}, data[g.Rank()]); err != nil {
			return err
		}
		return g.Leave(t.Context())
	}) {
		if err != nil {
			t.Fatalf("rank %d: %v", rank, err)
		}
	}
}

// oddValues are random, some of them awkward; a NaN makes one of any payload.
func oddValues(n int, rng *rand.Rand) []float32 {
	odd := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.SmallestNonzeroFloat32, 0, float32(math.Copysign(0, -1)), math.MaxFloat32, 0x1p-130}
	x := make([]float32, n)
	for i := range x {
		if x[i] = float32(rng.NormFloat64()); rng.IntN(20) == 0 {
			x[i] = odd[rng.IntN(len(odd))]
		}
	}
	return x
}

// alongThePath is the sum that the ring gives: chunk c begins at rank c, and each rank after
// it adds its part to what it gets, an element at a time.
func alongThePath(data [][]float32, wire codec.Wire) []float32 {
	travels := func(x float32) float32 {
		if wire == codec.BF16 {
			return codec.FromBF16Bits(codec.BF16Bits(x))
		}
		return x
	}
	world, length := len(data), len(data[0])
	sum := make([]float32, length)
	for c := range world {
		for i := c * length / world; i < (c+1)*length/world; i++ {
			s := travels(data[c][i])
			for k := 1; k < world; k++ {
				s = travels(data[(c+k)%world][i] + s)
			}
			sum[i] = s
		}
	}
	return sum
}
