package loss

import "testing"

// FuzzLoss compares with the implementation that builds every synthetic
// vector, over shapes, settings and duplicated or opposite vectors.
func FuzzLoss(f *testing.F) {
	f.Add(uint64(1), uint8(4), uint8(8), uint16(20), uint8(5), uint8(9), uint8(3), uint8(4), uint8(0), false)
	f.Add(uint64(2), uint8(1), uint8(1), uint16(1), uint8(1), uint8(9), uint8(3), uint8(1), uint8(1), true)
	f.Add(uint64(3), uint8(7), uint8(3), uint16(63), uint8(63), uint8(200), uint8(200), uint8(16), uint8(18), false)
	f.Add(uint64(4), uint8(2), uint8(5), uint16(17), uint8(4), uint8(0), uint8(8), uint8(3), uint8(7), true)
	f.Add(uint64(5), uint8(3), uint8(2), uint16(40), uint8(0), uint8(0), uint8(0), uint8(0), uint8(3), false)
	f.Fuzz(func(t *testing.T, seed uint64, b, d uint8, k uint16, n, s, s2, v, shape uint8, oracle bool) {
		batch, dim, length := int(b)%9+1, int(d)%17+1, int(k)%150+1
		cfg := Config{N: int(n) % (length + 1), S: int(s), S2: int(s2), Shards: int(v), Seed: seed,
			Temperature: []float64{0.2, 0.07, 0.01, 1}[shape%4], Threads: int(shape)%3 + 1}
		cfg.PairsInShard = shape&16 != 0
		if cfg.N == 0 {
			cfg.S, cfg.S2 = 0, 0
		}
		in := example(seed, batch, dim, length)
		if shape&4 != 0 { // duplicates and opposites
			for i := 1; i < length; i += 2 {
				sign := float32(1 - i%4/2*2)
				for x := range dim {
					in.Queue[i*dim+x] = sign * in.Queue[(i-1)*dim+x]
				}
			}
		}
		if shape&8 != 0 { // a queue entry that is the query
			copy(in.Queue[:dim], in.Q[:dim])
		}
		if oracle {
			in.Labels, in.QueueLabels = make([]int32, batch), make([]int32, length)
			for i := range in.Labels {
				in.Labels[i] = int32(i%4) - 1
			}
			for i := range in.QueueLabels {
				in.QueueLabels[i] = int32(i%5) - 1
			}
		}
		checkAgainstPlain(t, cfg, dim, in)
	})
}
