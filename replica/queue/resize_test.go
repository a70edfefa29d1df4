package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// A resized queue holds the newest keys, in order, and goes on as if it had
// never had another length; its other slots are those of a new queue.
func TestResized(t *testing.T) {
	const dim, seed = 3, 7
	rng := rand.New(rand.NewPCG(1, 1))
	for _, from := range []int{1, 7, 10} {
		for _, to := range []int{1, 6, 10, 23} {
			for _, enqueued := range []int{0, 1, 5, 7, 10, 34} {
				t.Run(fmt.Sprintf("%d of %d to %d", enqueued, from, to), func(t *testing.T) {
					old := New(from, dim, min(from, 2))
					old.Init(seed + 1)
					var history []float32
					var classes []int32
					for range enqueued {
						keys, labels := randomBatch(rng, 1, dim)
						if err := old.Enqueue(keys, labels); err != nil {
							t.Fatal(err)
						}
						history, classes = append(history, keys...), append(classes, labels...)
					}
					saved := Saved{old.Keys(), old.Labels(), old.Ptr(), old.Filled()}
					got := saved.Resized(to, dim, seed)
					kept := min(enqueued, from, to)

					// The same by enqueueing what is kept.
					want := New(to, dim, min(to, 4))
					want.Init(seed)
					if err := want.Enqueue(history[(enqueued-kept)*dim:], classes[enqueued-kept:]); err != nil {
						t.Fatal(err)
					}
					q := New(to, dim, min(to, 4))
					if err := q.Set(got.Keys, got.Labels, got.Ptr, got.Filled); err != nil {
						t.Fatal(err)
					}
					for range 3 {
						if !slices.Equal(q.Keys(), want.Keys()) || !slices.Equal(q.Labels(), want.Labels()) || q.Ptr() != want.Ptr() || q.Filled() != want.Filled() || q.Digest() != want.Digest() {
							t.Fatalf("%v %v at %d, want %v %v at %d", q.Keys(), q.Labels(), q.Ptr(), want.Keys(), want.Labels(), want.Ptr())
						}
						keys, labels := randomBatch(rng, to, dim)
						for _, q := range []*Queue{q, want} {
							if err := q.Enqueue(keys[:(to+1)/2*dim], labels[:(to+1)/2]); err != nil {
								t.Fatal(err)
							}
						}
					}
				})
			}
		}
	}
}
