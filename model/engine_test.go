package model_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"mochi/model"
	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
	"mochi/model/loss"
	"mochi/model/network"
)

// A group's keys, gradients and statistics are the same bits for any number
// of threads and whatever the pair did before: what makes the sum over groups
// independent of the deal.
func TestGroupIsReproducibleOnAnyThreads(t *testing.T) {
	const g, size, k, dim = 8, 8, 50, 8
	net, err := network.Build("resnet8", network.Options{Channels: 3, ImageSize: size, Dim: dim, Head: network.HeadLinear, Width: 4})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	images, other := noise(r, g*3*size*size), noise(r, g*3*size*size)
	queue, positives := unitRows(r, k, dim), unitRows(r, g, dim)
	run := func(threads int, before bool) (all [][]float32) {
		eng, err := gorgonia.New(engine.Config{Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		defer eng.Close()
		m, err := model.New(eng, net, model.Config{BNGroup: g, Queue: k, Momentum: 0.99, SGDMomentum: 0.9,
			Loss: loss.Config{N: 20, S: 40, S2: 10, Temperature: 0.1, Shards: 4, Seed: 5}})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		m.InitState(3)
		group := func(images []float32) [][]float32 {
			keys, keyStats := make([]float32, g*dim), make([]float32, net.NumBuffers())
			grads, stats := make([]float32, net.NumParams()), make([]float32, net.NumBuffers())
			if err := m.Keys(images, keys, keyStats); err != nil {
				t.Fatal(err)
			}
			reports, err := m.Step(model.StepInput{Images: images, Positives: positives, Samples: []int{9, 8, 7, 6, 5, 4, 3, 2},
				Shards: loss.Split(queue, nil, dim, 4), Step: 1, BatchSize: 4 * g, Mix: true}, grads, stats, nil)
			if err != nil {
				t.Fatal(err)
			}
			return [][]float32{keys, keyStats, grads, stats, {float32(reports[0].Loss)}}
		}
		if before {
			group(other)
		}
		return group(images)
	}
	want := run(1, false)
	for _, threads := range []int{1, 2, 3} {
		for i, got := range run(threads, true) {
			if !slices.Equal(got, want[i]) {
				t.Errorf("%d threads: output %d differs", threads, i)
			}
		}
	}
}

// A query has the same gradient alone, in a group and in a block of another
// size: the engine's products must not depend on the number of rows.
func TestQueryIsIndependentOfItsGroup(t *testing.T) {
	const b, k, dim = 13, 301, 24
	eng, err := gorgonia.New(engine.Config{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	l, err := loss.New(loss.Config{N: 30, S: 40, S2: 10, Temperature: 0.1, Shards: 4}, dim, b, k, eng.Contrast())
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(2, 2))
	q, pos, queue := unitRows(r, b, dim), unitRows(r, b, dim), unitRows(r, k, dim)
	samples := rand.Perm(b)
	compute := func(from, to int) []float32 {
		out := loss.Output{DQ: make([]float32, (to-from)*dim)}
		err := l.Compute(loss.Input{Queries: loss.Queries{Q: q[from*dim : to*dim], Samples: samples[from:to], Mix: true},
			Pos: pos[from*dim : to*dim], Shards: loss.Split(queue, nil, dim, 4), Scale: 1}, &out)
		if err != nil {
			t.Fatal(err)
		}
		return out.DQ
	}
	whole := compute(0, b)
	for i := range b {
		if !slices.Equal(compute(i, i+1), whole[i*dim:(i+1)*dim]) {
			t.Errorf("query %d alone has another gradient than in the group", i)
		}
	}
}
