package reduction

import (
	"math"
	"sync"
	"sync/atomic"

	"mochi/allreduce"
)

// negativeZero is what leaves every value as it is in a sum: +0 turns −0 into +0.
var negativeZero = float32(math.Copysign(0, -1))

// each calls do with a tensor of every local group, in their order.
func (r *Reduction) each(t span, do func(values []float32)) {
	for _, s := range r.local {
		rows := [...][]float32{gradients: s.Grads, queryStatistics: s.Query, keyStatistics: s.Key, besides: s.Besides}[t.kind]
		stride := len(rows) / r.cfg.AtOnce
		for at := t.from; at < len(rows); at += stride {
			do(rows[at : at+t.hi-t.lo])
		}
	}
}

// largest is the largest magnitude in one tensor of all local groups; +Inf where
// a value is not finite, NaN too: it must win every maximum.
func (r *Reduction) largest(t span) (largest float32) {
	r.each(t, func(values []float32) {
		m := allreduce.MaxAbs(values)
		if !(m <= math.MaxFloat32) {
			m = float32(math.Inf(1))
		}
		largest = max(largest, m)
	})
	return largest
}

// add sums one tensor over the local groups; largest is that of all members.
func (r *Reduction) add(dst []float32, t span, largest float32) error {
	if r.cfg.Groups == 1 {
		if len(r.local) == 0 {
			for i := range dst {
				dst[i] = negativeZero
			}
		}
		return nil
	}
	if !r.cfg.Exact || len(r.local) == 0 {
		clear(dst)
	}
	if !r.cfg.Exact {
		r.each(t, func(values []float32) {
			for i, x := range values {
				dst[i] += x
			}
		})
		return nil
	}
	unit, err := allreduce.Grid(largest, r.cfg.Groups)
	if err != nil {
		return err
	}
	sum := allreduce.RoundInto // of the first
	r.each(t, func(values []float32) {
		sum(dst, values, unit)
		sum = allreduce.AddRounded
	})
	return nil
}

// forEach calls do with every tensor of a bucket, on so many threads. Of several
// errors the first tensor's counts.
func forEach(b bucket, threads int, do func(i int) error) error {
	if threads == 1 {
		for i := b.lo; i < b.hi; i++ {
			if err := do(i); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make([]error, b.hi-b.lo)
	var next atomic.Int64
	var running sync.WaitGroup
	for range min(threads, len(errs)) {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(errs); i = int(next.Add(1)) - 1 {
				errs[i] = do(b.lo + i)
			}
		})
	}
	running.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
