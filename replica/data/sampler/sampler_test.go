package sampler

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// Every sample once an epoch, for any sequence of batch sizes, larger than an
// epoch included; and the stream does not depend on how it is cut.
func TestEverySampleOnceAnEpoch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		n, epochs := 1+rng.IntN(70), 1+rng.IntN(5)
		s := New(n, rng.Uint64())
		seen := make([]int, n*epochs)
		var cursor int64
		var stream []Ref
		for cursor < int64(n*epochs) {
			size := 1 + rng.IntN(3*n)
			for i, ref := range s.Batch(cursor, size) {
				if want := s.Epoch(cursor + int64(i)); ref.Epoch != want {
					t.Fatalf("n=%d: sample at cursor %d is of epoch %d, want %d", n, cursor+int64(i), ref.Epoch, want)
				}
				if ref.Epoch < epochs {
					seen[ref.Epoch*n+ref.Sample]++
				}
				stream = append(stream, ref)
			}
			cursor += int64(size)
		}
		for i, times := range seen {
			if times != 1 {
				t.Fatalf("n=%d: sample %d comes %d times in epoch %d", n, i%n, times, i/n)
			}
		}
		if whole := New(n, s.seed).Batch(0, len(stream)); !slices.Equal(whole, stream) {
			t.Fatalf("n=%d: the stream depends on the batch sizes", n)
		}
	}
}

func TestStepsCarryTheLastBatch(t *testing.T) {
	for _, c := range []struct {
		n, epochs, batch int
		cursor, want     int64
	}{{100, 1, 10, 0, 10}, {100, 1, 30, 0, 4}, {100, 3, 30, 0, 10}, {7, 2, 20, 0, 1}, {60000, 200, 512, 0, 23438}, {5, 0, 2, 0, 0},
		{100, 3, 30, 60, 8}, {100, 3, 7, 60, 35}, {100, 1, 30, 99, 1}, {100, 1, 30, 100, 0}, {100, 1, 30, 120, 0}} {
		if got := New(c.n, 1).Steps(c.epochs, c.batch, c.cursor); got != c.want {
			t.Errorf("n=%d, %d epochs, batch %d from %d on: %d steps, want %d", c.n, c.epochs, c.batch, c.cursor, got, c.want)
		}
	}
	if got := New(10, 1).Epoch(29); got != 2 {
		t.Errorf("epoch of cursor 29 of 10 samples: %d", got)
	}
}

func TestOrderDependsOnSeedAndEpoch(t *testing.T) {
	samples := func(seed uint64, epoch int) []int {
		var out []int
		for _, ref := range New(50, seed).Batch(int64(50*epoch), 50) {
			out = append(out, ref.Sample)
		}
		return out
	}
	base := samples(1, 0)
	if !slices.Equal(base, samples(1, 0)) {
		t.Error("not reproducible")
	}
	if slices.Equal(base, samples(2, 0)) || slices.Equal(base, samples(1, 1)) {
		t.Error("seed or epoch does not matter")
	}
	if slices.IsSorted(base) {
		t.Error("not shuffled")
	}
	// Pinned: a changed generator would break the resumption of every job.
	if got := New(6, 1).Batch(4, 4); !slices.Equal(got, []Ref{{4, 0}, {2, 0}, {5, 1}, {2, 1}}) {
		t.Errorf("the stream of seed 1 changed: %v", got)
	}
}

func TestShuffleIsAPermutation(t *testing.T) {
	s := New(10, 3)
	for _, size := range []int{1, 2, 64, 513} {
		perm := s.Shuffle(77, size)
		if !slices.Equal(perm, s.Shuffle(77, size)) {
			t.Errorf("size %d: not reproducible", size)
		}
		sorted := slices.Sorted(slices.Values(perm))
		for i, v := range sorted {
			if v != i {
				t.Fatalf("size %d: no permutation: %v", size, perm)
			}
		}
	}
	if slices.Equal(s.Shuffle(77, 64), s.Shuffle(141, 64)) || slices.Equal(s.Shuffle(77, 64), New(10, 4).Shuffle(77, 64)) {
		t.Error("cursor or seed does not matter")
	}
}

// First places are uniform: 3,000 epochs of 6 samples, five standard
// deviations.
func TestOrderIsUniform(t *testing.T) {
	s, counts := New(6, 9), make([]int, 6)
	for epoch := range 3000 {
		counts[s.Batch(int64(6*epoch), 1)[0].Sample]++
	}
	for sample, n := range counts {
		if n < 400 || n > 600 {
			t.Errorf("sample %d comes first %d times of 3000", sample, n)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	s := New(40, 5)
	want := New(40, 5).Batch(0, 400)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for at := 0; at < 400; at += 16 {
				if !slices.Equal(s.Batch(int64(at), 16), want[at:at+16]) {
					t.Errorf("batch at %d differs", at)
				}
			}
		})
	}
	wg.Wait()
}

func TestNewRefusesNoSamples(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	New(0, 1)
}
