package queue

import (
	"fmt"
	"math"
	"math/rand/v2"

	"mochi/model/engine"
)

// Unlabelled is the class of a slot whose sample's class is unknown.
const Unlabelled = -1

// Storage is how keys are kept.
type Storage int

// The ways to store keys. BF16 rounds them to the nearest bfloat16 (ties to
// even) as they enter.
const (
	FP32 Storage = iota
	BF16
)

// Queue is a replica's part of the K slots. It is not safe for concurrent use.
type Queue struct {
	k, dim  int
	storage Storage

	shards   []*Shard // by index, nil where not held
	held     []*Shard
	ptr      int   // next slot to write
	enqueued int64 // keys ever enqueued

	hash  slotHash
	audit int // the next of held to audit
}

// New makes a queue of K slots for keys of length dim, in V shards, and holds
// all of them as float32. All keys are zero and unlabelled until Init or Set.
// It panics when K, dim or V is below 1.
func New(k, dim, shards int) *Queue { return NewStored(k, dim, shards, FP32) }

// NewStored is New with a choice of storage.
func NewStored(k, dim, shards int, storage Storage) *Queue {
	q := NewEmpty(k, dim, shards, storage)
	q.Hold(AllShards(shards))
	return q
}

// NewEmpty is NewStored without any shard held.
func NewEmpty(k, dim, shards int, storage Storage) *Queue {
	if k < 1 || dim < 1 || shards < 1 {
		panic(fmt.Sprintf("queue: K = %d, d = %d, V = %d; each must be at least 1", k, dim, shards))
	}
	return &Queue{k: k, dim: dim, storage: storage, shards: make([]*Shard, shards)}
}

// AllShards lists the shards of a queue in V: 0 to V−1.
func AllShards(shards int) []int {
	all := make([]int, shards)
	for v := range all {
		all[v] = v
	}
	return all
}

// Hold changes which shards are held, by index, in any order. Those held before
// keep their contents, others begin as zero keys without class and count as
// Damaged until Init, Set or Import fills them.
func (q *Queue) Hold(shards []int) {
	before := q.shards
	q.shards, q.held, q.audit = make([]*Shard, len(before)), nil, 0
	for _, v := range shards {
		if q.shards[v] = before[v]; before[v] == nil {
			q.shards[v] = q.newShard(v)
			q.shards[v].damaged = true
		}
	}
	for _, s := range q.shards {
		if s != nil {
			q.held = append(q.held, s)
		}
	}
}

// Holds says whether a shard is held.
func (q *Queue) Holds(shard int) bool { return q.shards[shard] != nil }

// Held are the shards held, ascending: for reading, valid until the next Hold.
// Their contents change with Enqueue, Init, Set and Import.
func (q *Queue) Held() []*Shard { return q.held }

// Complete says whether all shards are held.
func (q *Queue) Complete() bool { return len(q.held) == len(q.shards) }

// Len is K, the number of slots.
func (q *Queue) Len() int { return q.k }

// Dim is d, the length of a key.
func (q *Queue) Dim() int { return q.dim }

// Shards is V.
func (q *Queue) Shards() int { return len(q.shards) }

// Ptr is the slot that the next key goes to.
func (q *Queue) Ptr() int { return q.ptr }

// Filled is how many keys were enqueued so far. It is not capped at K (min
// with K is how many slots hold keys of samples): versions follow from it.
func (q *Queue) Filled() int64 { return q.enqueued }

// SetPosition says where a queue stands whose shards come one by one (Import).
func (q *Queue) SetPosition(ptr int, filled int64) error {
	switch {
	case ptr < 0 || ptr >= q.k:
		return fmt.Errorf("restore a queue of %d slots at slot %d", q.k, ptr)
	case filled < 0:
		return fmt.Errorf("restore a queue after %d keys", filled)
	}
	q.ptr, q.enqueued = ptr, filled
	return nil
}

// Keys is a copy of the keys, [K, d] row-major, slot i at i·d; of shards that
// are not held zeros.
func (q *Queue) Keys() []float32 {
	keys := make([]float32, q.k*q.dim)
	for _, s := range q.held {
		for row := range s.Labels {
			slot := q.slot(s, row)
			s.read(row, keys[slot*q.dim:(slot+1)*q.dim])
		}
	}
	return keys
}

// Labels is a copy of the class of each slot's sample, [K], or Unlabelled.
func (q *Queue) Labels() []int32 {
	labels := make([]int32, q.k)
	for i := range labels {
		labels[i] = Unlabelled
	}
	for _, s := range q.held {
		for row, label := range s.Labels {
			labels[q.slot(s, row)] = label
		}
	}
	return labels
}

// Init fills every slot held with a random vector of length 1, a function of
// (seed, slot) alone, as MoCo starts its queue.
func (q *Queue) Init(seed uint64) {
	key := make([]float32, q.dim)
	for _, s := range q.held {
		for row := range s.Labels {
			randomKey(seed, q.slot(s, row), key)
			s.write(row, key, Unlabelled)
		}
		q.rehash(s)
	}
	q.ptr, q.enqueued = 0, 0
}

func randomKey(seed uint64, slot int, key []float32) {
	rng := rand.New(rand.NewPCG(seed, uint64(slot)))
	var sum float64
	for sum < 1e-12 { // an all-zero draw has no direction
		sum = 0
		for i := range key {
			x := float64(float32(rng.NormFloat64()))
			key[i] = float32(x)
			sum += float64(x * x) // the conversion forbids a fused multiply-add
		}
	}
	scale := 1 / math.Sqrt(sum)
	for i := range key {
		key[i] = float32(float64(key[i]) * scale)
	}
}

// Enqueue writes keys [B, d] and their classes [B] in order from Ptr on, with
// wrap-around; those of shards that are not held fall away. labels may be nil:
// all unlabelled. B must not exceed K, or the batch would overwrite itself.
// Nothing changes when an error is returned.
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
		if s := q.shards[q.ptr%len(q.shards)]; s != nil {
			label := int32(Unlabelled)
			if labels != nil {
				label = labels[i]
			}
			row := q.ptr / len(q.shards)
			s.write(row, keys[i*q.dim:(i+1)*q.dim], label)
			s.sum -= s.hashes[row]
			s.hashes[row] = q.hash.of(s, row, q.ptr)
			s.sum += s.hashes[row]
		}
		if q.ptr++; q.ptr == q.k {
			q.ptr = 0
		}
	}
	q.enqueued += int64(b)
	return nil
}

// Set replaces everything held with its part of a saved queue: keys [K, d],
// labels [K] (nil: all unlabelled), Ptr and Filled. Nothing changes when an
// error is returned.
func (q *Queue) Set(keys []float32, labels []int32, ptr int, filled int64) error {
	switch {
	case len(keys) != q.k*q.dim:
		return fmt.Errorf("restore a queue of %d floats: this one has %d slots of length %d", len(keys), q.k, q.dim)
	case labels != nil && len(labels) != q.k:
		return fmt.Errorf("restore a queue of %d slots with %d labels", q.k, len(labels))
	}
	if err := q.SetPosition(ptr, filled); err != nil {
		return err
	}
	for _, s := range q.held {
		for row := range s.Labels {
			slot := q.slot(s, row)
			label := int32(Unlabelled)
			if labels != nil {
				label = labels[slot]
			}
			s.write(row, keys[slot*q.dim:(slot+1)*q.dim], label)
		}
		q.rehash(s)
	}
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

// slot is the slot that a row of a shard is.
func (q *Queue) slot(s *Shard, row int) int { return s.Index + row*len(q.shards) }

// slotsBelow counts the slots i < n with i mod V = shard.
func (q *Queue) slotsBelow(n, shard int) int {
	return engine.ShardRows(n, len(q.shards), shard)
}
