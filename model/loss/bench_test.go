package loss

import (
	"fmt"
	"testing"
)

// noProducts leaves similarities as they are: the benchmark then measures
// what the loss itself adds to the two matrix products.
type noProducts struct{ logits []float32 }

func (p noProducts) NT(m, n, k int, a, b, c []float32) { copy(c, p.logits[:m*n]) }
func (p noProducts) NN(m, n, k int, a, b, c []float32) {}

// BenchmarkLoss: one group of 32 queries against 65,536 slots, without the
// matrix products. allocs/op must be 0.
func BenchmarkLoss(b *testing.B) {
	const batch, d, k = 32, 128, 65536
	in := example(1, batch, d, k)
	var p noProducts
	p.logits = make([]float32, batch*k)
	for i := range batch {
		for j := range k {
			p.logits[i*k+j] = dot(in.Q[i*d:(i+1)*d], in.Queue[j*d:(j+1)*d])
		}
	}
	for _, cfg := range []Config{
		{Temperature: 0.2, Threads: 1},
		{N: 1024, S: 512, S2: 256, Temperature: 0.2, Shards: 16, Threads: 1},
		{N: 1024, S: 512, S2: 256, Temperature: 0.2, Shards: 16, Threads: 2},
	} {
		b.Run(fmt.Sprintf("N=%d,threads=%d", cfg.N, cfg.Threads), func(b *testing.B) {
			l, err := New(cfg, d, batch, k, p)
			if err != nil {
				b.Fatal(err)
			}
			out := Output{DQ: make([]float32, batch*d)}
			b.ReportAllocs()
			for b.Loop() {
				if err := l.Compute(in, &out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*batch), "µs/query")
		})
	}
}
