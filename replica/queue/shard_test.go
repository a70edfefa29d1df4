package queue

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// Queues that hold parts, whatever parts, are together the queue that holds
// all: keys, labels, digests, positions; and a shard copied from one to
// another is the shard that the other would have had.
func TestPartsAreTheWhole(t *testing.T) {
	const k, dim, shards = 37, 4, 5
	for _, storage := range []Storage{FP32, BF16} {
		rng := rand.New(rand.NewPCG(3, uint64(storage)))
		whole := NewStored(k, dim, shards, storage)
		parts := []*Queue{NewStored(k, dim, shards, storage), NewStored(k, dim, shards, storage)}
		holds := [][]int{{4, 0, 2}, {1, 2, 3}} // 2 twice
		whole.Init(5)
		for i, q := range parts {
			q.Hold(holds[i])
			q.Init(5)
		}
		for step := range 30 {
			keys, labels := randomBatch(rng, rng.IntN(k+1), dim)
			for _, q := range append(parts, whole) {
				if err := q.Enqueue(keys, labels); err != nil {
					t.Fatal(err)
				}
			}
			if step == 10 { // 3 moves to the first
				blob := make([]byte, parts[1].ExportSize(3))
				parts[1].Export(3, blob)
				parts[1].Hold([]int{1, 2})
				parts[0].Hold([]int{0, 2, 3, 4})
				if err := parts[0].Import(3, blob); err != nil {
					t.Fatal(err)
				}
			}
			all := whole.Digests()
			for _, q := range parts {
				if q.Ptr() != whole.Ptr() || q.Filled() != whole.Filled() || q.Complete() {
					t.Fatalf("step %d: at %d, %d", step, q.Ptr(), q.Filled())
				}
				for _, s := range q.Held() {
					want := whole.shards[s.Index]
					if q.Digests()[s.Index] != all[s.Index] || !slices.Equal(s.Keys, want.Keys) ||
						!slices.Equal(s.BF16, want.BF16) || !slices.Equal(s.Labels, want.Labels) {
						t.Fatalf("step %d: shard %d differs", step, s.Index)
					}
				}
			}
			if n := len(slices.DeleteFunc(parts[0].Digests(), func(s string) bool { return s == "" })); n != len(parts[0].Held()) {
				t.Fatalf("%d digests", n)
			}
		}
		keys, labels := parts[0].Keys(), parts[0].Labels()
		for _, v := range []int{1} { // what the first lacks, without holding it
			blob := make([]byte, parts[1].ExportSize(v))
			parts[1].Export(v, blob)
			parts[0].Unpack(v, blob, keys, labels)
		}
		if !slices.Equal(keys, whole.Keys()) || !slices.Equal(labels, whole.Labels()) {
			t.Error("unpacked they are not the whole")
		}
		if !slices.Equal(sum(parts[0].Keys(), parts[1].Keys(), 2, shards, dim), whole.Keys()) {
			t.Error("the parts are not the whole")
		}
		fresh := NewStored(k, dim, shards, storage)
		if err := fresh.Set(whole.Keys(), whole.Labels(), whole.Ptr(), whole.Filled()); err != nil {
			t.Fatal(err)
		}
		if fresh.Digest() != whole.Digest() {
			t.Error("saved and restored it differs")
		}
	}
}

// sum adds slot-major keys; the shard that both hold counts once.
func sum(a, b []float32, twice, shards, dim int) []float32 {
	for i, x := range b {
		if i/dim%shards != twice {
			a[i] += x
		}
	}
	return a
}

// Whatever bit flips, in a key or a label, an audit finds it, in the right
// shard and no other, and a copy put in its place ends it.
func TestAuditFindsAnyFlippedBit(t *testing.T) {
	const k, dim, shards = 12, 3, 5
	for _, storage := range []Storage{FP32, BF16} {
		good := NewStored(k, dim, shards, storage)
		good.Init(1)
		for v, s := range good.Held() {
			for at := range len(s.Labels) * dim {
				for bit := range 32 {
					q := NewStored(k, dim, shards, storage)
					q.Init(1)
					s := q.Held()[v]
					switch {
					case bit == 17:
						s.Labels[at/dim] ^= 1 << bit
					case storage == BF16:
						s.BF16[at] ^= 1 << (bit % 16)
					default:
						s.Keys[at] = math.Float32frombits(math.Float32bits(s.Keys[at]) ^ 1<<bit)
					}
					if q.Damaged() != nil || !slices.Equal(q.Digests(), good.Digests()) {
						t.Fatal("found without looking")
					}
					for range shards {
						q.Audit(1) // a shard at a time
					}
					if !reflect.DeepEqual(q.Damaged(), []int{v}) || q.Digests()[v] == good.Digests()[v] {
						t.Fatalf("storage %v, shard %d, element %d, bit %d: found %v", storage, v, at, bit, q.Damaged())
					}
					blob := make([]byte, q.ExportSize(v))
					good.Export(v, blob)
					if err := q.Import(v, blob); err != nil {
						t.Fatal(err)
					}
					if q.Audit(1 << 20); q.Damaged() != nil || !slices.Equal(q.Digests(), good.Digests()) {
						t.Fatal("not repaired")
					}
				}
			}
		}
	}
}

// The checksum of a row changes with its key or class, and of no other row; with
// a fault it does when an audit finds it. Whoever copies the rows whose
// checksums have changed has the shard.
func TestSumsSayWhichRowsChanged(t *testing.T) {
	const k, dim, shards = 37, 4, 5
	for _, storage := range []Storage{FP32, BF16} {
		rng := rand.New(rand.NewPCG(4, uint64(storage)))
		q := NewStored(k, dim, shards, storage)
		q.Init(1)
		var copied []*Shard
		for _, s := range q.Held() {
			copied = append(copied, &Shard{Keys: slices.Clone(s.Keys), BF16: slices.Clone(s.BF16), Labels: slices.Clone(s.Labels), hashes: slices.Clone(s.Sums())})
		}
		for step := range 40 {
			b := rng.IntN(9)
			switch {
			case step%4 == 3:
				s := q.Held()[rng.IntN(shards)]
				if storage == BF16 {
					s.BF16[rng.IntN(len(s.BF16))] ^= 1
				} else {
					s.Keys[rng.IntN(len(s.Keys))]++
				}
				for i, c := range copied {
					if !slices.Equal(c.hashes, q.Held()[i].Sums()) {
						t.Fatalf("step %d: a checksum has changed before the audit", step)
					}
				}
				q.Audit(1 << 20)
				b = 1
			default:
				keys, labels := randomBatch(rng, b, dim)
				if err := q.Enqueue(keys, labels); err != nil {
					t.Fatal(err)
				}
			}
			changed := 0
			for i, s := range q.Held() {
				for row, sum := range s.Sums() {
					if c := copied[i]; sum != c.hashes[row] {
						changed++
						c.hashes[row], c.Labels[row] = sum, s.Labels[row]
						if storage == BF16 {
							copy(c.BF16[row*dim:], s.BF16[row*dim:(row+1)*dim])
						} else {
							copy(c.Keys[row*dim:], s.Keys[row*dim:(row+1)*dim])
						}
					}
				}
				if c := copied[i]; !slices.Equal(c.Keys, s.Keys) || !slices.Equal(c.BF16, s.BF16) || !slices.Equal(c.Labels, s.Labels) {
					t.Fatalf("step %d: the copy of shard %d differs", step, i)
				}
			}
			if changed != b {
				t.Fatalf("step %d: %d rows have changed, by their checksums %d", step, b, changed)
			}
		}
	}
}

func TestImportTooShort(t *testing.T) {
	if err := New(4, 1, 2).Import(1, nil); err == nil {
		t.Error("too short")
	}
}

// A commit's audit at K = 65536, d = 128.
func BenchmarkAudit(b *testing.B) {
	q := New(65536, 128, 16)
	b.SetBytes(65536 * 128 * 4)
	for b.Loop() {
		q.Audit(1 << 30)
	}
}
