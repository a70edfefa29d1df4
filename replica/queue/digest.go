package queue

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"mochi/allreduce/codec"
)

// Digests is the digest of every shard's keys and labels, 16 hexadecimal digits
// each, "" for shards that are not held.
func (q *Queue) Digests() []string {
	list := make([]string, len(q.shards))
	for _, s := range q.held {
		list[s.Index] = fmt.Sprintf("%016x", s.sum)
	}
	return list
}

// Digest covers keys, labels and Ptr of a queue that holds all shards. It does
// not depend on V or the storage of the same values.
func (q *Queue) Digest() string {
	sum := uint64(q.ptr)
	for _, s := range q.held {
		sum += s.sum
	}
	return fmt.Sprintf("%016x", sum)
}

// Audit reads shards again, in turn, until it has read so many bytes or all
// there are, but at least one shard. Rows that no longer have their checksum
// were changed by nobody but a fault; Digests then speaks of what is there,
// and Damaged names the shard until it is replaced.
func (q *Queue) Audit(bytes int) {
	for range q.held {
		s := q.held[q.audit]
		q.audit = (q.audit + 1) % len(q.held)
		q.AuditShard(s.Index)
		if bytes -= 4*len(s.Keys) + 2*len(s.BF16); bytes <= 0 {
			return
		}
	}
}

// AuditShard audits one shard that is held; false: it is Damaged.
func (q *Queue) AuditShard(shard int) (intact bool) {
	s := q.shards[shard]
	for row := range s.Labels {
		if h := q.hash.of(s, row, q.slot(s, row)); h != s.hashes[row] {
			s.sum += h - s.hashes[row]
			s.hashes[row] = h
			s.damaged = true
		}
	}
	return !s.damaged
}

// Damaged lists the shards in which an Audit found a change, or that were never
// filled; nil when there is none.
func (q *Queue) Damaged() []int {
	var list []int
	for _, s := range q.held {
		if s.damaged {
			list = append(list, s.Index)
		}
	}
	return list
}

// rehash makes a shard's checksums those of its contents.
func (q *Queue) rehash(s *Shard) {
	s.sum, s.damaged = 0, false
	for row := range s.hashes {
		s.hashes[row] = q.hash.of(s, row, q.slot(s, row))
		s.sum += s.hashes[row]
	}
}

// slotHash is xxhash64 over slot number, label and key as float32,
// little-endian. Its buffer is reused.
type slotHash struct{ buf []byte }

func (h *slotHash) of(s *Shard, row, slot int) uint64 {
	n := 8 + 4*s.dim
	if len(h.buf) != n {
		h.buf = make([]byte, n)
	}
	b := h.buf
	binary.LittleEndian.PutUint32(b, uint32(slot))
	binary.LittleEndian.PutUint32(b[4:], uint32(s.Labels[row]))
	at := row * s.dim
	if s.BF16 != nil {
		for i, x := range s.BF16[at : at+s.dim] {
			binary.LittleEndian.PutUint32(b[8+4*i:], uint32(x)<<16)
		}
		return xxhash.Sum64(b)
	}
	copy(b[8:], codec.FP32.Pack(b[8:], s.Keys[at:at+s.dim])) // at the speed of memory
	return xxhash.Sum64(b)
}
