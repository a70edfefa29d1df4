package gorgonia

import (
	"fmt"
	"testing"

	"mochi/model/engine"
	"mochi/model/network"
)

// BenchmarkStep is a training step of ResNet-20 on 28×28 images, batch 32:
// forward and backward of the query encoder, forward of the key encoder, and
// the update.
func BenchmarkStep(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) { benchmarkStep(b, threads) })
	}
}

func benchmarkStep(b *testing.B, threads int) {
	net, err := network.Build("resnet20", network.Options{Channels: 3, ImageSize: 28, Dim: 128, Head: network.HeadLinear})
	if err != nil {
		b.Fatal(err)
	}
	const batch = 32
	e, st, images := start(b, net, batch, threads)
	defer e.Close()
	query, err := st.Compile(engine.Spec{Encoder: engine.Query, Batch: batch, Mode: engine.Train})
	if err != nil {
		b.Fatal(err)
	}
	defer query.Close()
	key, err := st.Compile(engine.Spec{Encoder: engine.Key, Batch: batch, Mode: engine.Forward})
	if err != nil {
		b.Fatal(err)
	}
	defer key.Close()
	embeddings := make([]float32, batch*net.Dim)
	u := engine.Update{
		Grads:           make([]float32, net.NumParams()),
		QueryStatistics: make([]float32, net.NumBuffers()), KeyStatistics: make([]float32, net.NumBuffers()),
		LR: 1e-3, SGDMomentum: 0.9, WeightDecay: 1e-4, EncoderMomentum: 0.999,
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range []error{
			key.Forward(images, embeddings),
			query.Forward(images, embeddings),
			query.Backward(embeddings, u.Grads, nil),
		} {
			if err != nil {
				b.Fatal(err)
			}
		}
		query.Statistics(u.QueryStatistics)
		key.Statistics(u.KeyStatistics)
		if err := st.Update(u); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "images/s")
}
