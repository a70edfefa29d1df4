package loss

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mochi/model/engine/cpu"
	"mochi/model/splitmix"
)

// The same bits whoever holds which shards: one holder of all against several,
// by Scan, Hardest, Threshold, Mix, Partials and Fold, each on a Loss of its
// own, with some of the queries as one batch.
func TestIndependentOfReplicas(t *testing.T) {
	for i := range 24 {
		r := rand.New(rand.NewPCG(5, uint64(i)))
		b, d, k := 2+r.IntN(8), 1+r.IntN(40), 10+r.IntN(600)
		cfg := Config{N: 1 + r.IntN(k), S: r.IntN(60), S2: r.IntN(60), PairsInShard: true, Temperature: []float64{0.2, 0.01}[i%2], Shards: 2 + r.IntN(17), Seed: 4, Threads: 1 + i%2}
		if i%8 == 7 {
			b, k = 70+r.IntN(10), 1500
			cfg.N = 40
		}
		in := example(uint64(i), b, d, k)
		in.Mix = i%6 != 5
		if i%4 == 1 {
			in.Labels, in.QueueLabels = make([]int32, b), make([]int32, k)
			for x := range in.QueueLabels {
				in.QueueLabels[x] = int32(r.IntN(5)) - 1
			}
			for x := range in.Labels {
				in.Labels[x] = int32(r.IntN(5)) - 1
			}
		}
		for x := k / 3; x < k; x++ { // ties, within a shard and across
			if r.IntN(3) == 0 {
				copy(in.Queue[x*d:(x+1)*d], in.Queue[r.IntN(x)*d:][:d])
			}
		}
		whole := mustNew(t, cfg, d, b, k)
		in.split(whole)
		if i%3 == 2 {
			in.Shards = stored(in.Shards, d, k, true)
		}
		want := mustCompute(t, whole, in)

		holders := 2 + r.IntN(3)
		held := make([][]Shard, holders)
		for _, s := range in.Shards {
			h := r.IntN(holders)
			held[h] = append(held[h], s)
		}
		q := in.Queries
		from := r.IntN(b)
		q.Q, q.Samples = q.Q[from*d:], q.Samples[from:]
		if q.Labels != nil {
			q.Labels = q.Labels[from:]
		}
		n := b - from
		var losses []*Loss
		var hard []Hard
		for h := range held {
			l := mustNew(t, cfg, d, b, k)
			losses = append(losses, l)
			if err := l.Scan(q, held[h]); err != nil {
				t.Fatal(err)
			}
			own := l.Hardest()
			own.Values = slices.Clone(own.Values) // Mix overwrites them
			hard = append(hard, own)
		}
		var starts []int32
		if in.Mix {
			starts = Threshold(cfg.N, cfg.Shards, n, hard)
		}
		parts := make([][]float32, len(in.Shards))
		width := whole.PartialFloats()
		for h, l := range losses {
			if err := l.Mix(starts); err != nil {
				t.Fatal(err)
			}
			for s := range held[h] {
				parts[held[h][s].Index] = l.Partials()[s*n*width : (s+1)*n*width]
			}
		}
		out := Output{DQ: make([]float32, n*d)}
		if err := losses[0].Fold(Fold{Q: q.Q, Pos: in.Pos[from*d:], Samples: q.Samples, Scale: in.Scale, Partials: parts}, &out); err != nil {
			t.Fatal(err)
		}
		for x := range out.DQ {
			if math.Float32bits(out.DQ[x]) != math.Float32bits(want.DQ[from*d+x]) {
				t.Fatalf("example %d: %d holders, queries from %d of %d: dq[%d] is %g, of one holder %g", i, holders, from, b, x, out.DQ[x], want.DQ[from*d+x])
			}
		}
		if from == 0 && out.Loss != want.Loss {
			t.Errorf("example %d: loss %v, of one holder %v", i, out.Loss, want.Loss)
		}
	}
}

// stored lays shards out row after row, as a queue stores them, with checksums;
// in bfloat16 or not.
func stored(shards []Shard, d, k int, bf16 bool) (all []Shard) {
	for _, s := range shards {
		rows := (k - s.Index + max(s.Stride, 1) - 1) / max(s.Stride, 1)
		one := Shard{Index: s.Index, Labels: slices.Clone(s.Labels)}
		for r := range rows {
			for _, x := range s.Keys[s.Row(r, d):][:d] {
				if bf16 {
					one.BF16 = append(one.BF16, uint16((math.Float32bits(x)+0x8000)>>16))
				} else {
					one.Keys = append(one.Keys, x)
				}
			}
		}
		sum(&one, d)
		all = append(all, one)
	}
	return all
}

// sum makes the checksums of a stored shard.
func sum(s *Shard, d int) {
	rows := (len(s.Keys) + len(s.BF16)) / d
	s.Sums = s.Sums[:0]
	for r := range rows {
		h := uint64(s.Index*1_000_003 + r)
		for x := r * d; x < (r+1)*d; x++ {
			if s.BF16 != nil {
				h = splitmix.Mix(h ^ uint64(s.BF16[x])<<16)
			} else {
				h = splitmix.Mix(h ^ uint64(math.Float32bits(s.Keys[x])))
			}
		}
		if s.Labels != nil {
			h = splitmix.Mix(h ^ uint64(uint32(s.Labels[r]))<<32)
		}
		s.Sums = append(s.Sums, h)
	}
}

// A value that is not finite is an error wherever it stands, on the device as
// on the CPU, and the loss goes on with the next batch.
func TestNotFiniteAnywhere(t *testing.T) {
	const b, d, k = 4, 9, 150
	cfg := Config{N: 40, S: 30, S2: 20, Temperature: 0.1, Shards: 5, Seed: 8, Threads: 2}
	l, cpu := mustNew(t, cfg, d, b, k), mustNewOn(t, cpu.Contrast{}, cfg, d, b, k)
	clean := example(3, b, d, k)
	want := mustCompute(t, l, clean)
	for i := range 60 {
		r := rand.New(rand.NewPCG(6, uint64(i)))
		in := example(3, b, d, k)
		bad := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))}[i%3]
		to := [][]float32{in.Q, in.Queue, in.Pos}[i/3%3]
		at := r.IntN(len(to))
		to[at] = bad
		for range i % 7 {
			to[r.IntN(len(to))] = bad
		}
		if i%2 == 1 {
			in.Labels, in.QueueLabels = make([]int32, b), make([]int32, k)
			for x := range in.QueueLabels {
				in.QueueLabels[x] = int32(r.IntN(3)) // 0: dropped
			}
			if &to[0] == &in.Queue[0] {
				in.QueueLabels[at/d] = 1
			}
		}
		for name, l := range map[string]*Loss{"best": l, "CPU": cpu} {
			one := in
			one.split(l)
			if err := l.Compute(one.Input, &Output{DQ: make([]float32, b*d)}); !errors.Is(err, ErrNotFinite) {
				t.Errorf("%d, %v at %d of %d values, %s: %v", i, bad, at, len(to), name, err)
			}
		}
		sameOutput(t, fmt.Sprintf("after %v", bad), mustCompute(t, l, clean), want)
	}
}
