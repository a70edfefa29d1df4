package queue

import (
	"encoding/binary"
	"fmt"
	"math"

	"mochi/allreduce/codec"
)

// Shard is one virtual shard: the slots Index, Index+V, Index+2V, …, one row
// each. Keys or BF16 is set, by the queue's storage.
type Shard struct {
	Index  int
	Keys   []float32 // [n, d], FP32
	BF16   []uint16  // [n, d], the upper halves of float32
	Labels []int32   // [n], class of each row's sample, or Unlabelled

	dim     int
	hashes  []uint64 // of each row
	sum     uint64   // of the hashes
	damaged bool     // an audit found rows that changed by themselves, or nothing came yet
}

// Sums is the checksum of each row's key and label, [n]: for reading, as the
// keys. Those of a row that a fault has changed are the old ones until an Audit.
func (s *Shard) Sums() []uint64 { return s.hashes }

func (q *Queue) newShard(v int) *Shard {
	n := max(q.slotsBelow(q.k, v), 0)
	s := &Shard{Index: v, Labels: make([]int32, n), dim: q.dim, hashes: make([]uint64, n)}
	if q.storage == BF16 {
		s.BF16 = make([]uint16, n*q.dim)
	} else {
		s.Keys = make([]float32, n*q.dim)
	}
	for i := range s.Labels {
		s.Labels[i] = Unlabelled
	}
	q.rehash(s)
	return s
}

func (s *Shard) write(row int, key []float32, label int32) {
	s.Labels[row] = label
	if s.BF16 == nil {
		copy(s.Keys[row*s.dim:(row+1)*s.dim], key)
		return
	}
	for i, x := range key {
		s.BF16[row*s.dim+i] = codec.BF16Bits(x)
	}
}

func (s *Shard) read(row int, key []float32) {
	if s.BF16 == nil {
		copy(key, s.Keys[row*s.dim:(row+1)*s.dim])
		return
	}
	for i, h := range s.BF16[row*s.dim : (row+1)*s.dim] {
		key[i] = codec.FromBF16Bits(h)
	}
}

// ExportSize is the length of Export's result, in bytes, whether the shard is
// held or not.
func (q *Queue) ExportSize(shard int) int {
	size := 4
	if q.storage == BF16 {
		size = 2
	}
	return max(q.slotsBelow(q.k, shard), 0) * (size*q.dim + 4)
}

// Export writes a held shard's labels and keys, as stored, into dst, which has
// ExportSize bytes.
func (q *Queue) Export(shard int, dst []byte) {
	s := q.shards[shard]
	for _, label := range s.Labels {
		binary.LittleEndian.PutUint32(dst, uint32(label))
		dst = dst[4:]
	}
	for _, x := range s.Keys {
		binary.LittleEndian.PutUint32(dst, math.Float32bits(x))
		dst = dst[4:]
	}
	for _, h := range s.BF16 {
		binary.LittleEndian.PutUint16(dst, h)
		dst = dst[2:]
	}
}

// Unpack writes what another queue of the same shape and storage exported into
// a slot-major queue, keys [K, d] and labels [K], without holding it.
func (q *Queue) Unpack(shard int, src []byte, keys []float32, labels []int32) {
	n := max(q.slotsBelow(q.k, shard), 0)
	body := src[4*n:]
	for row := range n {
		slot := shard + row*len(q.shards)
		labels[slot] = int32(binary.LittleEndian.Uint32(src[4*row:]))
		key := keys[slot*q.dim : (slot+1)*q.dim]
		for i := range key {
			if at := row*q.dim + i; q.storage == BF16 {
				key[i] = codec.FromBF16Bits(binary.LittleEndian.Uint16(body[2*at:]))
			} else {
				key[i] = math.Float32frombits(binary.LittleEndian.Uint32(body[4*at:]))
			}
		}
	}
}

// Import replaces a held shard by what another queue of the same shape and
// storage exported.
func (q *Queue) Import(shard int, src []byte) error {
	s := q.shards[shard]
	if s == nil || len(src) != q.ExportSize(shard) {
		return fmt.Errorf("import shard %d of %d bytes: held: %v, size %d", shard, len(src), s != nil, q.ExportSize(shard))
	}
	for i := range s.Labels {
		s.Labels[i] = int32(binary.LittleEndian.Uint32(src[4*i:]))
	}
	src = src[4*len(s.Labels):]
	for i := range s.Keys {
		s.Keys[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
	for i := range s.BF16 {
		s.BF16[i] = binary.LittleEndian.Uint16(src[2*i:])
	}
	q.rehash(s)
	return nil
}
