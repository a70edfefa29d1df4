// Package sampler says which samples a step trains on: a pure function of
// (number of samples, seed, cursor), so that any replica can compute any step
// and a job resumes in the middle of an epoch at another world size.
//
// The stream is the concatenation of one seeded permutation of all samples an
// epoch. A step takes the next B of it, where the cursor (samples committed so
// far) stands. An epoch's last, incomplete batch is carried: it is filled from
// the start of the next epoch's permutation, so a batch may straddle epochs,
// nothing is dropped, and every epoch has every sample exactly once whatever
// the batch sizes were. B may be larger than the number of samples.
//
// Cost: a permutation of n samples is computed once and takes 4n bytes; the
// last two used are kept.
package sampler

import (
	"fmt"
	"math/rand/v2"
	"sync"
)

// Ref is one draw of a sample: its index in the data set, and the epoch, which
// its augmentation depends on.
type Ref struct{ Sample, Epoch int }

// Sampler is safe for concurrent use.
type Sampler struct {
	n    int
	seed uint64

	mu     sync.Mutex
	recent [2]permutation // most recently used first
}

// permutation is the order of one epoch.
type permutation struct {
	epoch int
	order []int32
}

// New returns the sampler of n samples. It panics when n is below 1 or above
// 2³¹−1.
func New(n int, seed uint64) *Sampler {
	if n < 1 || int(int32(n)) != n {
		panic(fmt.Sprintf("sampler: %d samples", n))
	}
	return &Sampler{n: n, seed: seed}
}

// Len is the number of samples of an epoch.
func (s *Sampler) Len() int { return s.n }

// Batch is the global batch of size samples at cursor, in order.
func (s *Sampler) Batch(cursor int64, size int) []Ref {
	refs := make([]Ref, 0, size)
	epoch, at := s.Epoch(cursor), int(cursor%int64(s.n))
	for len(refs) < size {
		order := s.order(epoch)
		for ; at < s.n && len(refs) < size; at++ {
			refs = append(refs, Ref{Sample: int(order[at]), Epoch: epoch})
		}
		epoch, at = epoch+1, 0
	}
	return refs
}

// Epoch is the epoch of the sample at cursor, from 0.
func (s *Sampler) Epoch(cursor int64) int { return int(cursor / int64(s.n)) }

// Steps is how many steps of batch samples, from the sample at cursor on, it
// takes to the end of the given number of epochs, ⌈(epochs·n − cursor)/batch⌉;
// 0 behind it.
func (s *Sampler) Steps(epochs, batch int, cursor int64) int64 {
	b := int64(batch)
	return (max(0, int64(epochs)*int64(s.n)-cursor) + b - 1) / b
}

// Shuffle is the permutation of ShuffleBN (He et al. 2020, §3.3) for the
// global batch of size samples at cursor: position i of the shuffled batch,
// the one that key views are computed in, holds position Shuffle(…)[i] of the
// batch.
func (s *Sampler) Shuffle(cursor int64, size int) []int {
	return generator(s.seed, shuffleStream, uint64(cursor)).Perm(size)
}

// order returns an epoch's permutation; it must not be changed.
func (s *Sampler) order(epoch int) []int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recent[0].order == nil || s.recent[0].epoch != epoch {
		s.recent[0], s.recent[1] = s.recent[1], s.recent[0]
	}
	if p := &s.recent[0]; p.order == nil || p.epoch != epoch {
		*p = permutation{epoch: epoch, order: permute(s.n, generator(s.seed, orderStream, uint64(epoch)))}
	}
	return s.recent[0].order
}

// permute draws a permutation of n samples (Fisher & Yates).
func permute(n int, rng *rand.Rand) []int32 {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	rng.Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// The random streams of a seed that this package uses.
const (
	orderStream   = 0x6f72646572 // "order"
	shuffleStream = 0x73687566   // "shuf"
)

// generator is a PCG of its own for each (seed, stream, index).
func generator(seed, stream, index uint64) *rand.Rand {
	// Two draws in between, so that neighbouring seeds and indices start from
	// unrelated states.
	mixed := rand.NewPCG(seed, stream)
	first := mixed.Uint64()
	again := rand.NewPCG(first, index)
	return rand.New(rand.NewPCG(again.Uint64(), again.Uint64()))
}
