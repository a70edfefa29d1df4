package loss

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"mochi/model/engine/cpu"
)

// What is said to be mixed gives the loss: every synthetic point built from it,
// of the hardest keys, in both ways of drawing pairs.
func TestSeenIsWhatIsMixed(t *testing.T) {
	const d, b, k, v = 8, 5, 60, 3
	for _, inShard := range []bool{false, true} {
		cfg := Config{N: 12, S: 9, S2: 7, PairsInShard: inShard, Temperature: 0.3, Shards: v, Seed: 4, Threads: 2}
		l := mustNewOn(t, cpu.Contrast{}, cfg, d, b, k)
		rng := rand.New(rand.NewPCG(1, 2))
		unit := func(n int) []float32 {
			x := make([]float32, n*d)
			for i := range n {
				norm := 0.0
				for j := range d {
					x[i*d+j] = float32(rng.NormFloat64())
					norm += float64(x[i*d+j]) * float64(x[i*d+j])
				}
				for j := range d {
					x[i*d+j] /= float32(math.Sqrt(norm))
				}
			}
			return x
		}
		q, pos, queue := unit(b), unit(b), unit(k)
		points := make([][][]float64, b)
		hard := make([][]int, b)
		var mu sync.Mutex
		in := Input{Queries: Queries{Q: q, Samples: []int{5, 6, 7, 8, 9}, Step: 3, Mix: true}, Pos: pos, Shards: Split(queue, nil, d, v), Scale: 1}
		row := func(x []float32, i int) []float32 { return x[i*d : (i+1)*d] }
		in.Seen = func(m Mixed) {
			mu.Lock()
			defer mu.Unlock()
			hard[m.Query] = append(hard[m.Query], m.Slots...)
			add := func(x, y []float32, a float32) {
				p := make([]float64, d)
				for j := range p {
					p[j] = float64(a)*float64(x[j]) + (1-float64(a))*float64(y[j])
				}
				points[m.Query] = append(points[m.Query], p)
			}
			for t := range m.First {
				add(row(queue, m.Slots[m.First[t]]), row(queue, m.Slots[m.Second[t]]), m.Alpha[t])
			}
			for t := range m.Partner {
				add(row(q, m.Query), row(queue, m.Slots[m.Partner[t]]), m.Beta[t])
			}
		}
		out := Output{DQ: make([]float32, b*d)}
		if err := l.Compute(in, &out); err != nil {
			t.Fatal(err)
		}
		want := 0.0
		for i := range b {
			dot := func(p []float64) (c float64) {
				norm := 0.0
				for j := range p {
					c += p[j] * float64(q[i*d+j])
					norm += p[j] * p[j]
				}
				return c / math.Sqrt(norm)
			}
			wide := func(x []float32) (p []float64) {
				for _, e := range x {
					p = append(p, float64(e))
				}
				return p
			}
			sims := make([]float64, k)
			for n := range k {
				sims[n] = dot(wide(row(queue, n)))
			}
			hardest := make([]int, k)
			for n := range k {
				hardest[n] = n
			}
			slices.SortFunc(hardest, func(a, b int) int { return int(math.Copysign(1, sims[b]-sims[a])) })
			hardest = hardest[:cfg.N]
			slices.Sort(hardest)
			slices.Sort(hard[i])
			if !slices.Equal(hard[i], hardest) {
				t.Fatalf("in shard %v: query %d mixes from slots %v, its hardest are %v", inShard, i, hard[i], hardest)
			}
			if got := len(points[i]); got != cfg.S+cfg.S2 {
				t.Fatalf("in shard %v: query %d has %d points, want %d", inShard, i, got, cfg.S+cfg.S2)
			}
			own := dot(wide(row(pos, i))) / cfg.Temperature
			sum := math.Exp(own)
			for _, c := range sims {
				sum += math.Exp(c / cfg.Temperature)
			}
			for _, p := range points[i] {
				sum += math.Exp(dot(p) / cfg.Temperature)
			}
			want += math.Log(sum) - own
		}
		if math.Abs(out.Loss-want) > 1e-5*want {
			t.Errorf("in shard %v: loss %v, built from what is said to be mixed %v", inShard, out.Loss, want)
		}
	}
}
