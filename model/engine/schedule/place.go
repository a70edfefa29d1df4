package schedule

import (
	"cmp"
	"slices"
)

// alignment of every tensor, a cache line.
const alignment = 64

// Interval is the memory of a tensor during its life, both ends included.
type Interval struct {
	Tensor, First, Last int
	Size                int // bytes, or any other unit
	Offset              int // set by Assign, in the same unit
}

// place gives every tensor its space and offset.
func (s *Schedule) place(phases []Phase) {
	used := make([]bool, len(s.Tensors))
	for _, p := range phases {
		for _, t := range s.touched(&p) {
			used[t] = true
		}
	}
	var arena []Interval
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
			arena = append(arena, Interval{Tensor: i, First: t.first, Last: t.last, Size: size})
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
func (s *Schedule) local(p *Phase) (v []Interval) {
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
				v = append(v, Interval{Tensor: t, First: i, Size: align(largest * s.Tensors[t].Bytes() / p.Split)})
			}
			v[j].Last = i
		}
	}
	return v
}

// assign gives tensors the offsets of their intervals. It returns the size of all.
func (s *Schedule) assign(v []Interval) (total int) {
	total = Assign(v)
	for _, a := range v {
		s.Tensors[a.Tensor].Offset = a.Offset
	}
	return total
}

// Assign places intervals, the largest first, those of a size in the order
// given, each at the lowest offset free during its life. It sorts v and returns
// the size of all.
func Assign(v []Interval) (total int) {
	slices.SortStableFunc(v, func(a, b Interval) int { return cmp.Compare(b.Size, a.Size) })
	var placed []Interval // by offset
	for n := range v {
		a := &v[n]
		a.Offset = 0
		for _, b := range placed {
			if b.Last < a.First || a.Last < b.First {
				continue
			}
			if b.Offset >= a.Offset+a.Size {
				break
			}
			a.Offset = max(a.Offset, b.Offset+b.Size)
		}
		total = max(total, a.Offset+a.Size)
		i, _ := slices.BinarySearchFunc(placed, a.Offset, func(b Interval, at int) int { return cmp.Compare(b.Offset, at) })
		placed = slices.Insert(placed, i, *a)
	}
	return total
}

func align(n int) int { return (n + alignment - 1) / alignment * alignment }
