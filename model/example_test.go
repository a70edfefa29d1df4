package model_test

import (
	"fmt"
	"math/rand/v2"

	"mochi/model"
	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
	"mochi/model/loss"
	"mochi/model/network"
	"mochi/model/optim"
)

// The whole method in one process: what package replica does, without cluster,
// loader and checkpoints. Random images stand for two augmented views.
func Example() {
	const (
		batch, group = 16, 8
		k, dim, size = 40, 8, 8
		steps        = 5
	)
	net, err := network.Build("resnet8", network.Options{Channels: 3, ImageSize: size, Dim: dim, Head: network.HeadMLP, Width: 4})
	check(err)
	eng, err := gorgonia.New(engine.Config{Threads: 1})
	check(err)
	defer eng.Close()
	m, err := model.New(eng, net, model.Config{
		BNGroup: group, Queue: k, Momentum: 0.9, SGDMomentum: 0.9, WeightDecay: 1e-4,
		Loss: loss.Config{N: 8, S: 16, S2: 4, Temperature: 0.2, Shards: 4, Seed: 1},
	})
	check(err)
	defer m.Close()
	m.InitState(1)

	r := rand.New(rand.NewPCG(1, 1))
	queue, pointer := unitRows(r, k, dim), 0
	const pixels = 3 * size * size
	part, partStats := make([]float32, net.NumParams()), make([]float32, net.NumBuffers())
	rate := optim.Schedule{Name: optim.Cosine, Base: 0.03, Epochs: steps}
	for step := range steps {
		queries, views := noise(r, batch*pixels), noise(r, batch*pixels)
		samples := r.Perm(batch)
		shuffle := r.Perm(batch)
		keys := make([]float32, batch*dim)
		grads := make([]float32, net.NumParams())
		queryStats, keyStats := make([]float32, net.NumBuffers()), make([]float32, net.NumBuffers())

		for j := 0; j < batch; j += group { // ShuffleBN: groups of permuted samples
			permuted, out := make([]float32, group*pixels), make([]float32, group*dim)
			for i, sample := range shuffle[j : j+group] {
				copy(permuted[i*pixels:(i+1)*pixels], views[sample*pixels:])
			}
			check(m.Keys(permuted, out, partStats))
			add(keyStats, partStats, float32(group)/batch)
			for i, sample := range shuffle[j : j+group] {
				copy(keys[sample*dim:], out[i*dim:(i+1)*dim])
			}
		}
		var total model.Report
		for j := 0; j < batch; j += group {
			reports, err := m.Step(model.StepInput{
				Images: queries[j*pixels : (j+group)*pixels], Positives: keys[j*dim : (j+group)*dim],
				Samples: samples[j : j+group], Shards: loss.Split(queue, nil, dim, 4), Step: int64(step), BatchSize: batch, Mix: step >= 2,
			}, part, partStats, nil)
			check(err)
			add(grads, part, 1)
			add(queryStats, partStats, float32(group)/batch)
			total.Add(reports[0])
		}
		check(m.Apply(grads, queryStats, keyStats, rate.LR(float64(step))))
		for b := range batch { // after the logits
			copy(queue[pointer*dim:(pointer+1)*dim], keys[b*dim:(b+1)*dim])
			pointer = (pointer + 1) % k
		}
		fmt.Printf("step %d: %d queries, loss per query between 0 and 20: %v\n",
			step, total.Samples, total.Loss > 0 && total.Loss < 20*batch)
	}
	// Output:
	// step 0: 16 queries, loss per query between 0 and 20: true
	// step 1: 16 queries, loss per query between 0 and 20: true
	// step 2: 16 queries, loss per query between 0 and 20: true
	// step 3: 16 queries, loss per query between 0 and 20: true
	// step 4: 16 queries, loss per query between 0 and 20: true
}

func add(dst, src []float32, scale float32) {
	for i := range dst {
		dst[i] += src[i] * scale
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
