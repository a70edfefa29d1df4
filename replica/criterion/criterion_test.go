package criterion_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
	"mochi/model/loss"
	"mochi/replica/criterion"
	"mochi/replica/queue"
	"mochi/replica/replicatest"
)

// The loss against a spread queue, whose shards all happen to be here, has the
// bits of the local one, with and without synthetic negatives and class oracle.
func TestSpreadIsLocal(t *testing.T) {
	const k, d, v, b, unit, hard = 37, 16, 5, 8, 4, 9
	eng, err := gorgonia.New(engine.Config{Precision: engine.FP32, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	cfg := loss.Config{N: hard, S: 12, S2: 5, PairsInShard: true, Temperature: 0.2, Shards: v, Seed: 1, Threads: 1}
	q := queue.New(k, d, v)
	q.Init(3)
	rng := rand.New(rand.NewPCG(1, 2))
	rows := func(n int) []float32 {
		x := make([]float32, n*d)
		for i := range n {
			row, sum := x[i*d:(i+1)*d], 0.0
			for j := range row {
				row[j] = float32(rng.NormFloat64())
				sum += float64(row[j]) * float64(row[j])
			}
			for j := range row {
				row[j] /= float32(math.Sqrt(sum))
			}
		}
		return x
	}
	if err := q.Enqueue(rows(k), slices.Repeat([]int32{0, 1, 2}, k)[:k]); err != nil {
		t.Fatal(err)
	}
	queries := rows(b)
	units := []criterion.Rows{{Lo: 4, Hi: 8}, {Lo: 0, Hi: 4}}
	shape := criterion.Shape{Batch: b, Dim: d, Groups: 2}
	holders := slices.Repeat([][]int{{0}}, v)
	for _, step := range []criterion.Step{
		{Number: 4, Mix: true},
		{Number: 5},
		{Number: 6, Mix: true, Labels: []int32{0, 1, 2, 0, 1, 2, -1, 0}},
	} {
		step.Keys, step.Samples = rows(b), []int{5, 2, 9, 4, 1, 0, 7, 3}
		run := func(make func(l *loss.Loss) criterion.Criterion) (bits []uint32, sum float64) {
			l, err := loss.New(cfg, d, b, k, eng.Contrast())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c := make(l)
			if waves := c.Begin(step); waves != len(units) {
				t.Fatalf("%d waves, want %d", waves, len(units))
			}
			for wave, rows := range units {
				copy(c.Queries(wave), queries[rows.Lo*d:rows.Hi*d])
				got, err := c.Evaluate(t.Context(), wave)
				if err != nil {
					t.Fatal(err)
				}
				if len(got.DQ) != unit*d {
					t.Fatalf("%d gradients, want %d", len(got.DQ), unit*d)
				}
				for _, x := range got.DQ {
					bits = append(bits, math.Float32bits(x))
				}
				for _, out := range got.Groups {
					sum += out.Loss
				}
			}
			return bits, sum
		}
		local, sum := run(func(l *loss.Loss) criterion.Criterion { return criterion.NewLocal(l, q, units, shape) })
		deal := criterion.Deal{Names: []string{"a"}, Units: [][]criterion.Rows{units}, Holders: holders}
		spread, other := run(func(l *loss.Loss) criterion.Criterion {
			return criterion.NewSpread(l, q, replicatest.Ring{}, deal, hard, shape)
		})
		if !(sum > 0) || sum != other || !slices.Equal(local, spread) {
			t.Errorf("step %d: losses %v and %v, or their gradients differ", step.Number, sum, other)
		}
	}
}
