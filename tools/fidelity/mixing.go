package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"mochi/model/loss"
)

// mixingSpec asks for what is mixed of random queries and keys.
type mixingSpec struct {
	N, S, S2, Keys, Shards int
	InShard                bool // pairs stay inside a shard
	Queries, Steps, Dim    int
	Seed                   uint64
}

// showMixing writes what every query of every step has mixed: as loss.Mixed, by
// slots of the queue. In steps of a shard points are in the order of the shards.
func showMixing(s mixingSpec, out *tensors) error {
	eng, err := openEngine()
	if err != nil {
		return err
	}
	defer eng.Close()
	l, err := loss.New(loss.Config{
		N: s.N, S: s.S, S2: s.S2, PairsInShard: s.InShard, Temperature: 0.2, Shards: s.Shards, Seed: s.Seed,
	}, s.Dim, s.Queries, s.Keys, eng.Contrast())
	if err != nil {
		return err
	}
	defer l.Close()
	rng := rand.New(rand.NewPCG(s.Seed, 1))
	queue := loss.Split(units(rng, s.Keys, s.Dim), nil, s.Dim, s.Shards)
	var all mixtures
	for step := range s.Steps {
		q := loss.Queries{Q: units(rng, s.Queries, s.Dim), Step: int64(step + 1), Mix: true}
		for i := range s.Queries {
			q.Samples = append(q.Samples, step*s.Queries+i)
		}
		if err := all.collect(l, q, queue, s.Shards, s.N); err != nil {
			return err
		}
	}
	all.write(out, s.Queries*s.Steps)
	return nil
}

// units are random vectors of length 1.
func units(rng *rand.Rand, n, dim int) []float32 {
	x := make([]float32, n*dim)
	for i := range n {
		row, norm := x[i*dim:(i+1)*dim], 0.0
		for j := range row {
			row[j] = float32(rng.NormFloat64())
			norm += float64(row[j]) * float64(row[j])
		}
		for j := range row {
			row[j] /= float32(math.Sqrt(norm))
		}
	}
	return x
}

// mixtures are what was mixed, query after query.
type mixtures struct {
	hard, first, second, partner []int32
	alpha, beta                  []float32
}

// collect lets a loss mix a batch of queries and takes what it says of it.
func (x *mixtures) collect(l *loss.Loss, q loss.Queries, queue []loss.Shard, shards, n int) error {
	var mu sync.Mutex
	b := len(q.Samples)
	each := make([][]loss.Mixed, b)
	q.Seen = func(m loss.Mixed) {
		mu.Lock()
		defer mu.Unlock()
		m.First, m.Second, m.Partner = slices.Clone(m.First), slices.Clone(m.Second), slices.Clone(m.Partner)
		m.Alpha, m.Beta = slices.Clone(m.Alpha), slices.Clone(m.Beta)
		each[m.Query] = append(each[m.Query], m)
	}
	if err := l.Scan(q, queue); err != nil {
		return err
	}
	if err := l.Mix(loss.Threshold(n, shards, b, []loss.Hard{l.Hardest()})); err != nil {
		return err
	}
	for _, mixed := range each {
		for _, m := range mixed {
			slot := func(to *[]int32, places []int32) {
				for _, at := range places {
					*to = append(*to, int32(m.Slots[at]))
				}
			}
			for _, s := range m.Slots {
				x.hard = append(x.hard, int32(s))
			}
			slot(&x.first, m.First)
			slot(&x.second, m.Second)
			slot(&x.partner, m.Partner)
			x.alpha, x.beta = append(x.alpha, m.Alpha...), append(x.beta, m.Beta...)
		}
	}
	return nil
}

func (x *mixtures) write(out *tensors, queries int) {
	add(out, "hard", x.hard, queries, len(x.hard)/queries)
	add(out, "first", x.first, queries, len(x.first)/queries)
	add(out, "second", x.second, queries, len(x.second)/queries)
	add(out, "alpha", x.alpha, queries, len(x.alpha)/queries)
	add(out, "partner", x.partner, queries, len(x.partner)/queries)
	add(out, "beta", x.beta, queries, len(x.beta)/queries)
}
