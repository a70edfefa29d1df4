package loss

import (
	"math"
	"slices"
)

// selection keeps the N most similar slots of a row, ties by the lower slot.
//
// A candidate is one uint64: the similarity, mapped so that a smaller number
// is more similar, above the slot. Candidates above the threshold collect in
// a buffer of 2N; when it is full, the better half stays and the threshold
// rises to the N-th. A row of K random similarities costs K comparisons and
// about N·(1 + ln(K/N)) pushes.
type selection struct {
	n         int
	keys      []uint64 // capacity 2N
	threshold float32  // the N-th best so far; −∞ until known
}

func newSelection(n int) selection {
	return selection{n: n, keys: make([]uint64, 0, 2*n)}
}

func (s *selection) reset() {
	s.keys = s.keys[:0]
	s.threshold = minusInf
}

// push adds slot i. Slots must come in increasing order: an equal similarity
// in a later slot then never displaces an earlier one.
func (s *selection) push(c float32, i int) {
	if len(s.keys) == cap(s.keys) {
		s.shrink()
		if !(c > s.threshold) {
			return
		}
	}
	s.keys = append(s.keys, key(c, i))
}

// shrink keeps the N best, in no order.
func (s *selection) shrink() {
	selectSmallest(s.keys, s.n)
	s.keys = s.keys[:s.n]
	s.threshold = similarity(slices.Max(s.keys))
}

// sorted is the N best (or all there were), hardest first; valid until reset.
func (s *selection) sorted() []uint64 {
	if len(s.keys) > s.n {
		s.shrink()
	}
	slices.Sort(s.keys)
	return s.keys
}

func key(c float32, i int) uint64 {
	bits := math.Float32bits(c + 0) // −0 counts as 0
	if bits>>31 != 0 {
		bits = ^bits
	} else {
		bits |= 1 << 31
	}
	return uint64(^bits)<<32 | uint64(uint32(i))
}

func slot(key uint64) int32 { return int32(uint32(key)) }

func similarity(key uint64) float32 {
	bits := ^uint32(key >> 32)
	if bits>>31 != 0 {
		bits &^= 1 << 31
	} else {
		bits = ^bits
	}
	return math.Float32frombits(bits)
}

// selectSmallest moves the n smallest of the distinct keys to the front
// (Hoare's quickselect, median of three).
func selectSmallest(keys []uint64, n int) {
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
