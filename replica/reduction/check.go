package reduction

import (
	"math"
	"sort"

	"mochi/allreduce"
)

// looksAt is how many elements of the sums are added a second time in a step, if
// that is not less than one in mostStride.
const (
	looksAt    = 4096
	mostStride = 256
)

// startCheck begins the second look at the additions of a step.
func (r *Reduction) startCheck(step int64) {
	r.check = nil
	if r.cfg.Check {
		stride := min(max(1, len(r.sum)/looksAt), mostStride)
		r.check = &allreduce.Check{Step: uint64(step), Stride: stride}
	}
}

// checkOf is the check for a bucket.
func (r *Reduction) checkOf(b bucket) *allreduce.Check {
	if r.check == nil {
		return nil
	}
	base := r.layout.tensors[b.lo].lo
	r.check.Offset, r.check.Own = base, nil
	if r.cfg.Groups > 1 { // else the terms are the sums
		r.check.Own = func(dst []float32, lo int) { r.again(dst, b, base+lo) }
	}
	return r.check
}

// again makes what add makes of the elements from one on of the sums: in float64,
// which holds every sum of exact terms, and rounds once what float32 rounds once.
func (r *Reduction) again(dst []float32, b bucket, from int) {
	tensors := r.layout.tensors[b.lo:b.hi]
	i := sort.Search(len(tensors), func(i int) bool { return tensors[i].hi > from })
	for ; len(dst) > 0; i++ {
		t := tensors[i]
		n := min(len(dst), t.hi-from)
		r.againOf(dst[:n], t, from-t.lo, r.max[b.lo+i])
		dst, from = dst[n:], from+n
	}
}

// againOf is again for elements of one tensor.
func (r *Reduction) againOf(dst []float32, t span, from int, largest float32) {
	unit := 1.0
	if r.cfg.Exact {
		grid, err := allreduce.Grid(largest, r.cfg.Groups)
		if err != nil {
			return // add has said so
		}
		unit = float64(grid)
	}
	clear(dst)
	r.each(t, func(values []float32) {
		for i, v := range values[from : from+len(dst)] {
			x := float64(v)
			switch {
			case !r.cfg.Exact:
			case math.Abs(x) > float64(largest):
				x = math.NaN() // it is not the largest: what follows from it is wrong
			default:
				x = math.RoundToEven(x/unit) * unit
			}
			dst[i] = float32(float64(dst[i]) + x)
		}
	})
}

// Checked is what a second look at a part of the additions found, valid after
// Wait; false when nobody looked (Config.Check).
func (r *Reduction) Checked() (allreduce.Found, bool) {
	if r.check == nil {
		return allreduce.Found{}, false
	}
	return r.check.Found(), true
}
