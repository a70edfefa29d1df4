package loss

import (
	"flag"
	"fmt"
	"testing"
)

var benchOn = flag.String("kernels", "avx512", "kernels of the benchmark: avx512, avx2, generic, onednn")

// BenchmarkLoss: queries against 65,536 slots on the gorgonia engine's kernels.
// allocs/op must be 0.
func BenchmarkLoss(b *testing.B) {
	const d, k = 128, 65536
	for _, batch := range []int{32, 256} {
		in := example(1, batch, d, k)
		in.store(16)
		for _, cfg := range []Config{
			{Temperature: 0.2, Shards: 16, Threads: 1},
			{Temperature: 0.2, Shards: 16, Threads: 2},
			{N: 1024, S: 1024, S2: 128, Temperature: 0.2, Shards: 16, Threads: 1},
			{N: 1024, S: 1024, S2: 128, Temperature: 0.2, Shards: 16, Threads: 2},
		} {
			b.Run(fmt.Sprintf("B=%d,N=%d,threads=%d", batch, cfg.N, cfg.Threads), func(b *testing.B) {
				l, err := New(cfg, d, batch, k, contrasts[*benchOn])
				if err != nil {
					b.Fatal(err)
				}
				out := Output{DQ: make([]float32, batch*d)}
				if err := l.Compute(in.Input, &out); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := l.Compute(in.Input, &out); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*batch), "µs/query")
			})
		}
	}
}

// store lays the shards of the queue out one after the other.
func (in *problem) store(v int) {
	d := len(in.Q) / len(in.Samples)
	in.Shards = nil
	for _, s := range Split(in.Queue, nil, d, v) {
		var keys []float32
		for at := 0; at < len(s.Keys); at += s.Stride * d {
			keys = append(keys, s.Keys[at:at+d]...)
		}
		in.Shards = append(in.Shards, Shard{Index: s.Index, Keys: keys})
	}
}
