package queue

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// simulation is a queue without any cleverness: a list of all keys ever
// enqueued behind the initial ones; slot i holds the last one that went there.
type simulation struct {
	k, dim, shards int
	keys           [][]float32 // by slot
	labels         []int32
	next           int
	versions       []int64
}

func (s *simulation) enqueue(keys []float32, labels []int32) {
	for i, label := range labels {
		s.keys[s.next] = slices.Clone(keys[i*s.dim : (i+1)*s.dim])
		s.labels[s.next] = label
		s.versions[s.next%s.shards]++
		s.next = (s.next + 1) % s.k
	}
}

func randomBatch(rng *rand.Rand, b, dim int) ([]float32, []int32) {
	keys, labels := make([]float32, b*dim), make([]int32, b)
	for i := range keys {
		keys[i] = rng.Float32()*2 - 1
	}
	for i := range labels {
		labels[i] = int32(rng.IntN(5)) - 1
	}
	return keys, labels
}

// fresh is a queue with q's contents that hashed them from scratch.
func fresh(t *testing.T, q *Queue) *Queue {
	t.Helper()
	f := New(q.Len(), q.Dim(), q.Shards())
	if err := f.Set(q.Keys(), q.Labels(), q.Ptr(), q.Filled()); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestEnqueueEqualsSimulation(t *testing.T) {
	for _, c := range []struct{ k, dim, shards, maxBatch int }{
		{1, 1, 1, 1},
		{7, 3, 16, 7},  // more shards than slots
		{10, 4, 3, 4},  // neither B nor V divides K
		{64, 8, 16, 8}, // both do
		{50, 5, 16, 50},
	} {
		t.Run(fmt.Sprintf("K=%d,d=%d,V=%d", c.k, c.dim, c.shards), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(c.k), 1))
			q := New(c.k, c.dim, c.shards)
			q.Init(9)
			sim := &simulation{k: c.k, dim: c.dim, shards: c.shards, labels: slices.Clone(q.Labels()), versions: make([]int64, c.shards)}
			for i := range c.k {
				sim.keys = append(sim.keys, slices.Clone(q.Keys()[i*c.dim:(i+1)*c.dim]))
			}
			var total int64
			for step := range 40 {
				b := rng.IntN(c.maxBatch + 1)
				if step%5 == 0 {
					b = c.maxBatch // B = K in some cases
				}
				keys, labels := randomBatch(rng, b, c.dim)
				if err := q.Enqueue(keys, labels); err != nil {
					t.Fatal(err)
				}
				sim.enqueue(keys, labels)
				total += int64(b)

				if !slices.Equal(q.Keys(), slices.Concat(sim.keys...)) || !slices.Equal(q.Labels(), sim.labels) {
					t.Fatalf("step %d: contents differ from the simulation", step)
				}
				if q.Ptr() != sim.next || q.Filled() != total {
					t.Fatalf("step %d: ptr %d filled %d, want %d and %d", step, q.Ptr(), q.Filled(), sim.next, total)
				}
				for s := range c.shards {
					if v := q.Version(s); v != sim.versions[s] {
						t.Fatalf("step %d: version of shard %d is %d, want %d", step, s, v, sim.versions[s])
					}
				}
				f := fresh(t, q)
				if !slices.Equal(q.Digests(), f.Digests()) || q.Digest() != f.Digest() {
					t.Fatalf("step %d: digest kept %v, from scratch %v", step, q.Digests(), f.Digests())
				}
			}
		})
	}
}

func TestDigestSeesEveryChange(t *testing.T) {
	const k, dim, shards = 12, 3, 5
	base := New(k, dim, shards)
	base.Init(1)
	for slot := range k {
		for what, change := range map[string]func(q *Queue){
			"key": func(q *Queue) {
				k := &q.shards[slot%shards].Keys[slot/shards*dim+2]
				*k = math.Nextafter32(*k, 2)
			},
			"label": func(q *Queue) { q.shards[slot%shards].Labels[slot/shards] = 3 },
			"two slots exchanged": func(q *Queue) {
				keys := q.Keys()
				other := (slot + shards) % k
				for i := range dim {
					keys[slot*dim+i], keys[other*dim+i] = keys[other*dim+i], keys[slot*dim+i]
				}
				if err := q.Set(keys, q.Labels(), q.Ptr(), q.Filled()); err != nil {
					t.Fatal(err)
				}
			},
		} {
			q := fresh(t, base)
			change(q)
			q = fresh(t, q)
			if q.Digest() == base.Digest() {
				t.Errorf("%s of slot %d changed, the digest did not", what, slot)
			}
			if s := slot % shards; q.Digests()[s] == base.Digests()[s] {
				t.Errorf("%s of slot %d changed, the digest of shard %d did not", what, slot, s)
			}
		}
	}
	moved := New(k, dim, shards)
	if err := moved.Set(base.Keys(), base.Labels(), 4, 4); err != nil {
		t.Fatal(err)
	}
	if moved.Digest() == base.Digest() {
		t.Error("the pointer moved, the digest did not")
	}
	other := New(k, dim, 1)
	if err := other.Set(base.Keys(), base.Labels(), base.Ptr(), base.Filled()); err != nil {
		t.Fatal(err)
	}
	if other.Digest() != base.Digest() {
		t.Error("the digest depends on the number of shards")
	}
}

// The initial keys have length 1, differ from slot to slot, depend on the seed
// and not on K or V, and point everywhere alike.
func TestInit(t *testing.T) {
	const k, dim = 2000, 16
	q := New(k, dim, 16)
	q.Init(7)
	mean := make([]float64, dim)
	for slot := range k {
		var norm float64
		for i, x := range q.Keys()[slot*dim : (slot+1)*dim] {
			norm += float64(x) * float64(x)
			mean[i] += float64(x) / k
		}
		if math.Abs(norm-1) > 1e-6 {
			t.Fatalf("slot %d has squared length %v", slot, norm)
		}
	}
	for i, m := range mean { // the standard error is 1/√(k·d)
		if math.Abs(m) > 5/math.Sqrt(k*dim) {
			t.Errorf("component %d has mean %v", i, m)
		}
	}
	small := New(3, dim, 2)
	small.Init(7)
	if !slices.Equal(small.Keys(), q.Keys()[:3*dim]) {
		t.Error("the keys depend on K or V")
	}
	if slices.Equal(small.Keys()[:dim], small.Keys()[dim:2*dim]) {
		t.Error("slots 0 and 1 are equal")
	}
	small.Init(8)
	if slices.Equal(small.Keys()[:dim], q.Keys()[:dim]) {
		t.Error("the keys do not depend on the seed")
	}
	// Init after use starts over.
	keys, labels := randomBatch(rand.New(rand.NewPCG(1, 1)), 2, dim)
	if err := small.Enqueue(keys, labels); err != nil {
		t.Fatal(err)
	}
	small.Init(7)
	again := New(3, dim, 2)
	again.Init(7)
	if small.Digest() != again.Digest() || small.Ptr() != 0 || small.Filled() != 0 || small.Labels()[0] != Unlabelled {
		t.Error("Init does not start over")
	}
}

func TestRefusals(t *testing.T) {
	q := New(4, 2, 2)
	q.Init(1)
	before := q.Digest()
	for name, err := range map[string]error{
		"B > K":            q.Enqueue(make([]float32, 10), make([]int32, 5)),
		"half a key":       q.Enqueue(make([]float32, 3), nil),
		"labels":           q.Enqueue(make([]float32, 4), make([]int32, 1)),
		"set length":       q.Set(make([]float32, 6), nil, 0, 0),
		"set labels":       q.Set(make([]float32, 8), make([]int32, 3), 0, 0),
		"set ptr":          q.Set(make([]float32, 8), nil, 4, 0),
		"set negative ptr": q.Set(make([]float32, 8), nil, -1, 0),
		"set filled":       q.Set(make([]float32, 8), nil, 0, -1),
	} {
		if err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	if q.Digest() != before || q.Filled() != 0 {
		t.Error("a refused call changed the queue")
	}
}

func TestEnqueueDoesNotAllocate(t *testing.T) {
	q := New(256, 32, 16)
	keys, labels := randomBatch(rand.New(rand.NewPCG(1, 2)), 64, 32)
	if n := testing.AllocsPerRun(10, func() {
		if err := q.Enqueue(keys, labels); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// METHOD, ImageNet-1K: B = 256, K = 65536, d = 128.
func BenchmarkEnqueue(b *testing.B) {
	q := New(65536, 128, 16)
	keys, labels := randomBatch(rand.New(rand.NewPCG(1, 2)), 256, 128)
	b.SetBytes(256 * 128 * 4)
	for b.Loop() {
		if err := q.Enqueue(keys, labels); err != nil {
			b.Fatal(err)
		}
	}
}

func Example() {
	q := New(4, 1, 2)
	_ = q.Enqueue([]float32{1, 2, 3}, []int32{10, 20, 30})
	_ = q.Enqueue([]float32{4, 5}, nil) // wraps around
	fmt.Println(q.Keys(), q.Labels(), q.Ptr(), q.Filled())
	fmt.Println(q.Version(0), q.Version(1))
	// Output:
	// [5 2 3 4] [-1 20 30 -1] 1 5
	// 3 2
}
