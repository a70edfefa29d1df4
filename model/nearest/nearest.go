// Package nearest selects the N most similar of a row of similarities: the
// hard negatives of a query (package loss), the neighbours of a test image
// (package eval).
//
// A candidate is one uint64: the similarity, mapped so that a smaller number
// is more similar, above its index; so candidates are totally ordered, ties by
// the lower index. Candidates above the threshold collect in a buffer of 2N;
// when it is full, the better half stays in its order (the N-th is found by
// Hoare's quickselect) and the threshold rises to the N-th. A row of K values in random order costs K
// comparisons and about N·(1 + ln(K/N)) insertions; nothing is allocated
// after New.
package nearest

import (
	"math"
	"slices"
)

// Key is a candidate: similarity and index in one ordered number.
type Key uint64

// Selection keeps the N most similar candidates seen since Reset.
type Selection struct {
	size      int     // N
	n         int     // how many to keep: N, or fewer for a while
	keys      []Key   // capacity 2N, by index
	scratch   []Key   // capacity 2N
	threshold float32 // the N-th best so far; −∞ until known
}

// New makes a selection of the n most similar, n ≥ 1.
func New(n int) *Selection {
	s := &Selection{size: n, n: n, keys: make([]Key, 0, 2*n), scratch: make([]Key, 0, 2*n)}
	s.Reset()
	return s
}

// Reset forgets all candidates.
func (s *Selection) Reset() {
	s.ResetFor(s.size)
}

// ResetFor forgets all candidates and keeps only n ≤ N, until Raise or Reset.
func (s *Selection) ResetFor(n int) {
	s.n = n
	s.keys = s.keys[:0]
	s.threshold = float32(math.Inf(-1))
}

// Raise keeps n ≤ N from now on, but only candidates above the least similar of
// those kept so far, when there are as many as were to be kept: a guess at the
// final threshold after a sample. It returns the threshold.
func (s *Selection) Raise(n int) float32 {
	if len(s.keys) >= s.n {
		s.shrink()
	}
	s.n = n
	return s.threshold
}

// Scan offers row[i] as candidate first+i. Calls between two Resets must come
// with increasing indices: an equal similarity at a later index then never
// displaces an earlier one. −∞ and NaN are no candidates.
func (s *Selection) Scan(row []float32, first int) {
	threshold := s.threshold
	for i, c := range row {
		if c > threshold {
			s.push(c, first+i)
			threshold = s.threshold
		}
	}
}

// Offer offers one candidate, under the conditions of Scan, and returns the
// threshold from then on: only what is above it can still be among the N best.
func (s *Selection) Offer(c float32, i int) float32 {
	if c > s.threshold {
		s.push(c, i)
	}
	return s.threshold
}

func (s *Selection) push(c float32, i int) {
	if len(s.keys) == 2*s.n {
		s.shrink()
		if !(c > s.threshold) {
			return
		}
	}
	s.keys = append(s.keys, NewKey(c, i))
}

// shrink keeps the N best, in their order.
func (s *Selection) shrink() {
	var last Key
	s.keys, s.scratch, last = SelectInOrder(s.keys, s.n, s.scratch)
	s.threshold = last.Similarity()
}

// Sorted is the N best, or all there were, most similar first. The slice is
// the selection's own; nothing but Reset may follow.
func (s *Selection) Sorted() []Key {
	if len(s.keys) > s.n {
		s.shrink()
	}
	slices.Sort(s.keys)
	return s.keys
}

// Best is the N best, or all there were, by rising index. The slice is the
// selection's own, valid until the next Reset, Scan or Offer.
func (s *Selection) Best() []Key {
	if len(s.keys) > s.n {
		s.shrink()
	}
	return s.keys
}

// Bytes is the memory held.
func (s *Selection) Bytes() int64 { return int64(8 * (cap(s.keys) + cap(s.scratch))) }

// NewKey is the candidate of similarity c, which must not be NaN, and index i.
func NewKey(c float32, i int) Key {
	bits := math.Float32bits(c + 0) // −0 counts as 0
	if bits>>31 != 0 {
		bits = ^bits
	} else {
		bits |= 1 << 31
	}
	return Key(^bits)<<32 | Key(uint32(i))
}

// Index of the candidate.
func (k Key) Index() int32 { return int32(uint32(k)) }

// Similarity of the candidate.
func (k Key) Similarity() float32 {
	bits := ^uint32(k >> 32)
	if bits>>31 != 0 {
		bits &^= 1 << 31
	} else {
		bits = ^bits
	}
	return math.Float32frombits(bits)
}

// Select moves the n most similar of the keys to the front, in no order, and
// returns them; all when there are no more than n.
func Select(keys []Key, n int) []Key {
	if len(keys) <= n {
		return keys
	}
	selectSmallest(keys, n)
	return keys[:n]
}

// SelectInOrder returns the n ≥ 1 most similar of the keys, which must differ,
// in the order in which they came, and the least similar of those; all when
// there are no more than n. It overwrites the keys, and grows scratch as needed
// for the next call.
func SelectInOrder(keys []Key, n int, scratch []Key) (best, grown []Key, last Key) {
	if len(keys) <= n {
		if len(keys) > 0 {
			last = slices.Max(keys)
		}
		return keys, scratch, last
	}
	scratch = append(scratch[:0], keys...)
	selectSmallest(scratch, n)
	last = slices.Max(scratch[:n])
	to := 0
	for _, k := range keys {
		keys[to] = k // before the n-th kept one, to < n
		if k <= last {
			to++
		}
	}
	return keys[:to], scratch, last
}

// selectSmallest moves the n smallest of the keys to the front
// (Hoare's quickselect, median of three).
func selectSmallest(keys []Key, n int) {
	lo, hi := 0, len(keys)-1
	for lo < hi {
		a, b, c := keys[lo], keys[lo+(hi-lo)/2], keys[hi]
		pivot := max(min(a, b), min(max(a, b), c))
		i, j := lo, hi
		for i <= j {
			for keys[i] < pivot {
				i++
			}
			for keys[j] > pivot {
				j--
			}
			if i <= j {
				keys[i], keys[j] = keys[j], keys[i]
				i++
				j--
			}
		}
		switch {
		case n-1 <= j:
			hi = j
		case n-1 >= i:
			lo = i
		default:
			return
		}
	}
}
