package replica

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"mochi/allreduce"
	"mochi/model/network"
)

// reduction sums what the groups of a step computed over all groups of all
// members: the gradients and the BatchNorm statistics of both encoders, laid
// out as one vector [parameters | query statistics | key statistics].
//
// With exact set, each group's vector is first rounded, tensor by tensor, to
// a grid on which the sum over all groups is exact (allreduce.Grid). The
// result then has the same bits for any number of members, any deal of groups
// and any order of summation. The price is one vector a group instead of one
// a replica, and one all-reduce of a maximum per tensor.
//
// Where the global batch is one group, its vector is the sum: the engine writes
// it in place, nothing is rounded, and members without it add −0, which changes
// no value.
type reduction struct {
	net     *network.Network
	exact   bool
	groups  int // of the global batch
	atOnce  int // groups that a program computes
	threads int
	tensors []span
	buckets []bucket
	ofParam []int // bucket index by parameter

	local []share
	sum   []float32 // the reduced vector
	max   []float32 // scratch, one per tensor
}

// share is what one run of a program leaves of its n groups, as the engine
// writes it: each group's in a row.
type share struct {
	grads      []float32 // [n, NumParams]
	query, key []float32 // [n, NumBuffers] statistics of the encoders
}

// Bucket sizes, PyTorch DDP's: the first is small so that something leaves
// early.
const (
	firstBucket = 1 << 20
	bucketCap   = 25 << 20
)

// span is a tensor's place in the sum, [lo, hi), and from where it lies in a row
// of a share's part.
type span struct {
	name   string
	lo, hi int
	part   part
	from   int
}

// negativeZero is what leaves every value as it is in a sum: +0 turns −0 into +0.
var negativeZero = float32(math.Copysign(0, -1))

type part int

const (
	gradients part = iota
	queryStatistics
	keyStatistics
)

// bucket is a contiguous range of tensors that travels together.
type bucket struct {
	lo, hi int // tensors
	params int // how many of them are parameters: it is final when all are
}

func newReduction(net *network.Network, exact bool, groups, atOnce, threads int) *reduction {
	r := &reduction{net: net, exact: exact, groups: groups, atOnce: atOnce, threads: threads, ofParam: make([]int, len(net.Params))}
	add := func(part part, name string, ts []network.Tensor, base int) {
		for _, t := range ts {
			r.tensors = append(r.tensors, span{name + t.Name, base + t.Offset, base + t.Offset + t.Size, part, t.Offset})
		}
	}
	p, b := net.NumParams(), net.NumBuffers()
	add(gradients, "gradient of ", net.Params, 0)
	add(queryStatistics, "query statistic ", net.Buffers, p)
	add(keyStatistics, "key statistic ", net.Buffers, p+b)

	sizes := make([]int, len(net.Params))
	for i, t := range net.Params {
		sizes[i] = t.Size
	}
	for _, ab := range allreduce.Buckets(sizes, firstBucket, bucketCap) {
		for i := ab.Lo; i < ab.Hi; i++ {
			r.ofParam[i] = len(r.buckets)
		}
		r.buckets = append(r.buckets, bucket{lo: ab.Lo, hi: ab.Hi, params: ab.Hi - ab.Lo})
	}
	// The statistics, a few KB, leave last.
	r.buckets = append(r.buckets, bucket{lo: len(net.Params), hi: len(r.tensors)})
	r.sum = make([]float32, p+2*b)
	r.max = make([]float32, len(r.tensors))
	if groups == 1 {
		r.local = []share{{r.grads(), r.queryStatistics(), r.keyStatistics()}}
	}
	return r
}

func (r *reduction) grads() []float32 { return r.sum[:r.net.NumParams()] }

func (r *reduction) queryStatistics() []float32 {
	p, b := r.net.NumParams(), r.net.NumBuffers()
	return r.sum[p : p+b]
}

func (r *reduction) keyStatistics() []float32 {
	p, b := r.net.NumParams(), r.net.NumBuffers()
	return r.sum[p+b : p+2*b]
}

// shares makes room for n local runs of a program and returns it.
func (r *reduction) shares(n int) []share {
	for len(r.local) < n {
		p, b := r.atOnce*r.net.NumParams(), r.atOnce*r.net.NumBuffers()
		r.local = append(r.local, share{make([]float32, p), make([]float32, b), make([]float32, b)})
	}
	return r.local[:n]
}

// each calls do with a tensor of every local group, in their order.
func (r *reduction) each(local []share, t span, do func(values []float32)) {
	for _, s := range local {
		rows := [...][]float32{gradients: s.grads, queryStatistics: s.query, keyStatistics: s.key}[t.part]
		stride := len(rows) / r.atOnce
		for at := t.from; at < len(rows); at += stride {
			do(rows[at : at+t.hi-t.lo])
		}
	}
}

// DivergedError says that a tensor is no longer finite: training diverged.
type DivergedError struct {
	Step   int64
	Tensor string
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("step %d: %s is not finite: training diverged; lower --lr, raise --temperature, or check the data", e.Step, e.Tensor)
}

// run reduces bucket after bucket, in index order on every member, each as
// soon as final delivers its index. local is what this member's groups left
// (nothing for a member without groups). The result is in r.sum.
//
// A member that is alone has no way of the buckets to hide behind backward: it
// waits for the last of them and then takes all threads. Beside backward, what
// the sums take from one of an engine's threads all of them wait for.
func (r *reduction) run(ctx context.Context, ring Ring, step int64, local []share, final <-chan int, alone bool) error {
	threads, from := 1, 1
	if alone {
		threads, from = r.threads, len(r.buckets)
	}
	done := make([]bool, len(r.buckets))
	for next, known := 0, 0; next < len(r.buckets); {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case i, open := <-final:
			if !open {
				return errors.New("backward ended before all gradients were final")
			}
			done[i] = true
			known++
		}
		for known >= from && next < len(r.buckets) && done[next] {
			if err := r.bucket(ctx, ring, step, next, local, threads); err != nil {
				return err
			}
			next++
		}
	}
	// The statistics were summed; their mean is what is applied.
	scale := 1 / float32(r.groups)
	stats := r.sum[r.net.NumParams():]
	for i := range stats {
		stats[i] *= scale
	}
	return nil
}

func (r *reduction) bucket(ctx context.Context, ring Ring, step int64, index int, local []share, threads int) error {
	b := r.buckets[index]
	if b.lo == b.hi {
		return nil
	}
	max := r.max[b.lo:b.hi]
	err := tensors(b, threads, func(i int) error {
		r.max[i] = 0
		r.each(local, r.tensors[i], func(values []float32) {
			m := allreduce.MaxAbs(values)
			if !(m <= math.MaxFloat32) {
				m = float32(math.Inf(1)) // NaN too: it must win every maximum
			}
			if m > r.max[i] {
				r.max[i] = m
			}
		})
		return nil
	})
	if err != nil {
		return err
	}
	tag := allreduce.Tag{Step: uint64(step), Bucket: uint32(2 * index)}
	if err := ring.AllReduceMax(ctx, tag, max); err != nil {
		return fmt.Errorf("all-reduce the maxima of bucket %d: %w", index, err)
	}
	err = tensors(b, threads, func(i int) error {
		t := r.tensors[i]
		if math.IsInf(float64(r.max[i]), 1) || r.add(r.sum[t.lo:t.hi], t, r.max[i], local) != nil {
			return &DivergedError{Step: step, Tensor: t.name}
		}
		return nil
	})
	if err != nil {
		return err
	}
	tag.Bucket++
	lo, hi := r.tensors[b.lo].lo, r.tensors[b.hi-1].hi
	if err := ring.AllReduceSum(ctx, tag, r.sum[lo:hi]); err != nil {
		return fmt.Errorf("all-reduce bucket %d: %w", index, err)
	}
	return nil
}

// tensors calls do with every tensor of a bucket, on so many threads. Of several
// errors the first tensor's counts.
func tensors(b bucket, threads int, do func(i int) error) error {
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

// add sums one tensor over the local groups.
func (r *reduction) add(dst []float32, t span, max float32, local []share) error {
	if r.groups == 1 {
		if len(local) == 0 {
			for i := range dst {
				dst[i] = negativeZero
			}
		}
		return nil
	}
	if !r.exact || len(local) == 0 {
		clear(dst)
	}
	if !r.exact {
		r.each(local, t, func(values []float32) {
			for i, x := range values {
				dst[i] += x
			}
		})
		return nil
	}
	unit, err := allreduce.Grid(max, r.groups)
	if err != nil {
		return err
	}
	sum := allreduce.RoundInto // of the first
	r.each(local, t, func(values []float32) {
		sum(dst, values, unit)
		sum = allreduce.AddRounded
	})
	return nil
}
