//go:build onednn && testhooks

package onednn

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"mochi/model/engine"
	"mochi/model/network"
)

// BenchmarkKernelsAlone compares the time of convolutions within a step of
// ResNet-50 at 224², batch 32 (both forwards and the backward, median), with
// that of the same calls one after the other with nothing between them, in turns:
//
//	go test -tags onednn,testhooks -run - -bench KernelsAlone -benchtime 5x ./model/engine/onednn
func BenchmarkKernelsAlone(b *testing.B) {
	for _, precision := range []engine.Precision{engine.BF16, engine.FP32} {
		b.Run(string(precision), func(b *testing.B) {
			net, err := network.Build("resnet50", network.Options{Channels: 3, ImageSize: 224, Dim: 128, Head: network.HeadMLP})
			if err != nil {
				b.Fatal(err)
			}
			const batch = 32
			e := open(b, precision, 2)
			st, err := e.NewState(net)
			if err != nil {
				b.Fatal(err)
			}
			defer st.Close()
			params, _ := net.Init(1)
			st.Set(engine.QueryParams, params)
			st.Set(engine.KeyParams, params)
			var programs []*program
			for _, spec := range []engine.Spec{{Encoder: engine.Key, Batch: batch, Mode: engine.Forward}, {Batch: batch, Mode: engine.Train}} {
				p, err := st.Compile(spec)
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				programs = append(programs, p.(*program))
			}
			rng := rand.New(rand.NewPCG(1, 1))
			normal := func(n int) []float32 {
				v := make([]float32, n)
				for i := range v {
					v[i] = float32(rng.NormFloat64())
				}
				return v
			}
			images, d := normal(batch*3*224*224), normal(batch*net.Dim)
			embeddings, grads := make([]float32, batch*net.Dim), make([]float32, net.NumParams())
			timer := e.(interface{ KernelTime() time.Duration })
			// step returns the time of the kernels and of the whole.
			step := func(alone bool) (kernels, whole float64) {
				for _, p := range programs {
					p.kernelsOnly(alone)
				}
				before, start := timer.KernelTime(), time.Now()
				for _, p := range programs {
					if err := p.Forward(images, embeddings); err != nil {
						b.Fatal(err)
					}
				}
				if err := programs[1].Backward(d, grads, nil); err != nil {
					b.Fatal(err)
				}
				return (timer.KernelTime() - before).Seconds() * 1e3, time.Since(start).Seconds() * 1e3
			}
			step(false)
			var within, alone, whole []float64
			for range b.N {
				k, w := step(false)
				within, whole = append(within, k), append(whole, w)
				_, w = step(true)
				alone = append(alone, w)
			}
			median := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
			b.ReportMetric(median(whole), "step-ms")
			b.ReportMetric(median(within), "kernel-ms")
			b.ReportMetric(median(alone), "alone-ms")
			b.ReportMetric(median(within)/median(alone), "kernel/alone")
		})
	}
}
