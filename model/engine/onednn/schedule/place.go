package schedule

import (
	"cmp"
	"slices"
)

// alignment of every tensor, a cache line.
const alignment = 64

// interval is the memory of a tensor during its life, both ends included.
type interval struct {
	tensor, first, last, size int
}

// place gives every tensor its space and offset.
func (s *Schedule) place(phases []Phase) {
	used := make([]bool, len(s.Tensors))
	for _, p := range phases {
		for _, t := range s.touched(&p) {
			used[t] = true
		}
	}
	var arena []interval
	for i := range s.Tensors {
		t := &s.Tensors[i]
		size := align(s.Batch * t.Bytes())
		switch {
		case !used[i]:
		case i == s.Feature || i == s.Output:
			t.Space, t.Offset = Kept, s.Kept
			s.Kept += size
		case t.first == t.last && phases[t.first].written(i):
			t.Space = Scratch
		default:
			arena = append(arena, interval{i, t.first, t.last, size})
		}
	}
	s.Arena = s.assign(arena)
	for _, p := range phases {
		s.Scratch = max(s.Scratch, s.assign(s.local(&p)))
	}
}

// written says whether a phase's first use of t is a write.
func (p *Phase) written(t int) bool {
	for _, o := range p.Ops {
		if slices.Contains(o.In[:], t) {
			return false
		}
		if slices.Contains(o.Out[:], t) {
			return true
		}
	}
	return false
}

// local are the scratch tensors of a phase, alive between its operations.
func (s *Schedule) local(p *Phase) (v []interval) {
	largest := 0
	for _, lane := range p.Slices {
		for _, sl := range lane {
			largest = max(largest, sl.N)
		}
	}
	at := map[int]int{}
	for i, o := range p.Ops {
		for _, t := range append(o.In[:], o.Out[:]...) {
			if t == None || s.Tensors[t].Space != Scratch {
				continue
			}
			j, seen := at[t]
			if !seen {
				j = len(v)
				at[t] = j
				v = append(v, interval{tensor: t, first: i, size: align(largest * s.Tensors[t].Bytes() / p.Split)})
			}
			v[j].last = i
		}
	}
	return v
}

// assign places intervals, the largest first, each at the lowest offset free
// during its life. It returns the size of all.
func (s *Schedule) assign(v []interval) (total int) {
	slices.SortStableFunc(v, func(a, b interval) int { return cmp.Compare(b.size, a.size) })
	var placed []interval // by offset
	for _, a := range v {
		offset := 0
		for _, b := range placed {
			if b.last < a.first || a.last < b.first {
				continue
			}
			start := s.Tensors[b.tensor].Offset
			if start >= offset+a.size {
				break
			}
			offset = max(offset, start+b.size)
		}
		s.Tensors[a.tensor].Offset = offset
		total = max(total, offset+a.size)
		i, _ := slices.BinarySearchFunc(placed, offset, func(b interval, at int) int {
			return cmp.Compare(s.Tensors[b.tensor].Offset, at)
		})
		placed = slices.Insert(placed, i, a)
	}
	return total
}

func align(n int) int { return (n + alignment - 1) / alignment * alignment }
