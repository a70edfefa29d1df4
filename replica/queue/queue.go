// Package queue is the queue of negatives (He et al. 2020, §3.2): the keys of
// the last K samples and their classes, oldest overwritten first.
//
// The contents depend on nothing but the history of commits: keys enter in
// global-batch order, with wrap-around, on COMMIT only, so K need not be a
// multiple of the batch and every replica holds the same bits. Slot i belongs
// to virtual shard i mod V; a shard has a version (keys written to it so far)
// and a digest, by which copies are compared.
//
// A digest is a sum of one 64-bit hash per slot, so that Enqueue updates it in
// O(B·d) whatever K is. It guards against faults, not against an adversary.
// Memory: 4·K·d bytes of keys and 12·K of labels and hashes.
package queue

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/cespare/xxhash/v2"
)

// Unlabelled is the class of a slot whose sample's class is unknown.
const Unlabelled = -1

// Queue is a replica's copy of all K slots. It is not safe for concurrent use.
type Queue struct {
	k, dim, shards int

	keys     []float32 // [K, d]
	labels   []int32   // [K]
	ptr      int       // next slot to write
	enqueued int64     // keys ever enqueued

	slots []uint64 // hash of each slot
	sums  []uint64 // sum of the hashes of each shard's slots
	hash  slotHash
}

// New makes a queue of K slots for keys of length dim, in V shards. All keys
// are zero and unlabelled until Init or Set. It panics when K, dim or V is
// below 1.
func New(k, dim, shards int) *Queue {
	if k < 1 || dim < 1 || shards < 1 {
		panic(fmt.Sprintf("queue: K = %d, d = %d, V = %d; each must be at least 1", k, dim, shards))
	}
	q := &Queue{
		k: k, dim: dim, shards: shards,
		keys: make([]float32, k*dim), labels: make([]int32, k),
		slots: make([]uint64, k), sums: make([]uint64, shards),
	}
	for i := range q.labels {
		q.labels[i] = Unlabelled
	}
	q.rehashAll()
	return q
}

// Len is K, the number of slots.
func (q *Queue) Len() int { return q.k }

// Dim is d, the length of a key.
func (q *Queue) Dim() int { return q.dim }

// Shards is V.
func (q *Queue) Shards() int { return q.shards }

// Keys is the queue itself, [K, d] row-major, slot i at i·d: for reading, valid
// until the next Enqueue, Init or Set.
func (q *Queue) Keys() []float32 { return q.keys }

// Labels is the class of each slot's sample, [K], or Unlabelled; for reading,
// like Keys.
func (q *Queue) Labels() []int32 { return q.labels }

// Ptr is the slot that the next key goes to.
func (q *Queue) Ptr() int { return q.ptr }

// Filled is how many keys were enqueued so far. It is not capped at K (min
// with K is how many slots hold keys of samples): versions follow from it.
func (q *Queue) Filled() int64 { return q.enqueued }

// Init fills every slot with a random vector of length 1, a function of (seed,
// slot) alone, as MoCo starts its queue.
func (q *Queue) Init(seed uint64) {
	for slot := range q.k {
		rng := rand.New(rand.NewPCG(seed, uint64(slot)))
		row := q.keys[slot*q.dim : (slot+1)*q.dim]
		var sum float64
		for sum < 1e-12 { // an all-zero draw has no direction
			sum = 0
			for i := range row {
				x := float64(float32(rng.NormFloat64()))
				row[i] = float32(x)
				sum += float64(x * x) // the conversion forbids a fused multiply-add
			}
		}
		scale := 1 / math.Sqrt(sum)
		for i := range row {
			row[i] = float32(float64(row[i]) * scale)
		}
		q.labels[slot] = Unlabelled
	}
	q.ptr, q.enqueued = 0, 0
	q.rehashAll()
}

// Enqueue writes keys [B, d] and their classes [B] in order from Ptr on, with
// wrap-around. labels may be nil: all unlabelled. B must not exceed K, or the
// batch would overwrite itself. Nothing changes when an error is returned.
func (q *Queue) Enqueue(keys []float32, labels []int32) error {
	b := len(keys) / q.dim
	switch {
	case len(keys)%q.dim != 0:
		return fmt.Errorf("enqueue %d floats: not a whole number of keys of length %d", len(keys), q.dim)
	case b > q.k:
		return fmt.Errorf("enqueue %d keys: the queue has %d slots; lower --batch or raise --queue", b, q.k)
	case labels != nil && len(labels) != b:
		return fmt.Errorf("enqueue %d keys with %d labels", b, len(labels))
	}
	for i := range b {
		copy(q.keys[q.ptr*q.dim:(q.ptr+1)*q.dim], keys[i*q.dim:])
		q.labels[q.ptr] = Unlabelled
		if labels != nil {
			q.labels[q.ptr] = labels[i]
		}
		q.rehash(q.ptr)
		if q.ptr++; q.ptr == q.k {
			q.ptr = 0
		}
	}
	q.enqueued += int64(b)
	return nil
}

// Set replaces everything with a saved queue: keys [K, d], labels [K] (nil: all
// unlabelled), Ptr and Filled. Nothing changes when an error is returned.
func (q *Queue) Set(keys []float32, labels []int32, ptr int, filled int64) error {
	switch {
	case len(keys) != q.k*q.dim:
		return fmt.Errorf("restore a queue of %d floats: this one has %d slots of length %d", len(keys), q.k, q.dim)
	case labels != nil && len(labels) != q.k:
		return fmt.Errorf("restore a queue of %d slots with %d labels", q.k, len(labels))
	case ptr < 0 || ptr >= q.k:
		return fmt.Errorf("restore a queue of %d slots at slot %d", q.k, ptr)
	case filled < 0:
		return fmt.Errorf("restore a queue after %d keys", filled)
	}
	copy(q.keys, keys)
	for i := range q.labels {
		q.labels[i] = Unlabelled
	}
	copy(q.labels, labels)
	q.ptr, q.enqueued = ptr, filled
	q.rehashAll()
	return nil
}

// Version is how many keys were ever written to a shard's slots.
func (q *Queue) Version(shard int) int64 {
	// Every slot was written once per full turn; those just before ptr once more.
	turns, rest := q.enqueued/int64(q.k), int(q.enqueued%int64(q.k))
	first := (q.ptr - rest + q.k) % q.k
	v := turns * int64(q.slotsBelow(q.k, shard))
	if end := first + rest; end <= q.k {
		return v + int64(q.slotsBelow(end, shard)-q.slotsBelow(first, shard))
	}
	return v + int64(q.slotsBelow(q.k, shard)-q.slotsBelow(first, shard)+q.slotsBelow(q.ptr, shard))
}

// slotsBelow counts the slots i < n with i mod V = shard.
func (q *Queue) slotsBelow(n, shard int) int { return (n - shard + q.shards - 1) / q.shards }

// Digests is the digest of every shard's keys and labels, 16 hexadecimal digits
// each.
func (q *Queue) Digests() []string {
	list := make([]string, q.shards)
	for s, sum := range q.sums {
		list[s] = fmt.Sprintf("%016x", sum)
	}
	return list
}

// Digest covers keys, labels and Ptr. It does not depend on V.
func (q *Queue) Digest() string {
	var sum uint64
	for _, s := range q.sums {
		sum += s
	}
	return fmt.Sprintf("%016x", sum+uint64(q.ptr))
}

func (q *Queue) rehash(slot int) {
	h := q.hash.of(slot, q.keys[slot*q.dim:(slot+1)*q.dim], q.labels[slot])
	q.sums[slot%q.shards] += h - q.slots[slot]
	q.slots[slot] = h
}

func (q *Queue) rehashAll() {
	for slot := range q.k {
		q.rehash(slot)
	}
}

// slotHash is xxhash64 over slot number, label and key, little-endian. Its
// buffer is reused.
type slotHash struct{ buf []byte }

func (h *slotHash) of(slot int, key []float32, label int32) uint64 {
	b := binary.LittleEndian.AppendUint32(h.buf[:0], uint32(slot))
	b = binary.LittleEndian.AppendUint32(b, uint32(label))
	for _, x := range key {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	h.buf = b
	return xxhash.Sum64(b)
}
