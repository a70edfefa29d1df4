package replica

import (
	"context"
	"errors"
	"fmt"
	"math"

	"mochi/allreduce"
	"mochi/model/network"
)

// reduction sums what the groups of a step computed over all groups of all
// members: the gradients and the BatchNorm statistics of both encoders, laid
// out as one vector [parameters | query statistics | key statistics].
//
// With exact set, each group's vector is first rounded, tensor by tensor, to
// a grid on which the sum over all groups is exact (allreduce.Unit). The
// result then has the same bits for any number of members, any deal of groups
// and any order of summation. The price is one vector a group instead of one
// a replica, and one all-reduce of a maximum per tensor.
type reduction struct {
	net     *network.Network
	exact   bool
	groups  int // of the global batch
	tensors []span
	buckets []bucket
	ofParam []int // bucket index by parameter

	local [][]float32 // one vector a local group
	sum   []float32   // the reduced vector
	max   []float32   // scratch, one per tensor
}

// Bucket sizes, PyTorch DDP's: the first is small so that something leaves
// early.
const (
	firstBucket = 1 << 20
	bucketCap   = 25 << 20
)

type span struct {
	name   string
	lo, hi int
}

// bucket is a contiguous range of tensors that travels together.
type bucket struct {
	lo, hi int // tensors
	params int // how many of them are parameters: it is final when all are
}

func newReduction(net *network.Network, exact bool, groups int) *reduction {
	r := &reduction{net: net, exact: exact, groups: groups, ofParam: make([]int, len(net.Params))}
	add := func(kind string, ts []network.Tensor, base int) {
		for _, t := range ts {
			r.tensors = append(r.tensors, span{kind + t.Name, base + t.Offset, base + t.Offset + t.Size})
		}
	}
	p, b := net.NumParams(), net.NumBuffers()
	add("gradient of ", net.Params, 0)
	add("query statistic ", net.Buffers, p)
	add("key statistic ", net.Buffers, p+b)

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

// vectors makes room for n local groups and returns their vectors.
func (r *reduction) vectors(n int) [][]float32 {
	for len(r.local) < n {
		r.local = append(r.local, make([]float32, len(r.sum)))
	}
	return r.local[:n]
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
// soon as final delivers its index. local holds the vectors of this member's
// groups (none for a member without groups). The result is in r.sum.
func (r *reduction) run(ctx context.Context, ring Ring, step int64, local [][]float32, final <-chan int) error {
	done := make([]bool, len(r.buckets))
	for next := 0; next < len(r.buckets); {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case i, open := <-final:
			if !open {
				return errors.New("backward ended before all gradients were final")
			}
			done[i] = true
		}
		for next < len(r.buckets) && done[next] {
			if err := r.bucket(ctx, ring, step, next, local); err != nil {
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

func (r *reduction) bucket(ctx context.Context, ring Ring, step int64, index int, local [][]float32) error {
	b := r.buckets[index]
	if b.lo == b.hi {
		return nil
	}
	max := r.max[b.lo:b.hi]
	for i, t := range r.tensors[b.lo:b.hi] {
		max[i] = 0
		for _, v := range local {
			m := allreduce.MaxAbs(v[t.lo:t.hi])
			if !(m <= math.MaxFloat32) {
				m = float32(math.Inf(1)) // NaN too: it must win every maximum
			}
			if m > max[i] {
				max[i] = m
			}
		}
	}
	tag := allreduce.Tag{Step: uint64(step), Bucket: uint32(2 * index)}
	if err := ring.AllReduceMax(ctx, tag, max); err != nil {
		return fmt.Errorf("all-reduce the maxima of bucket %d: %w", index, err)
	}
	for i, t := range r.tensors[b.lo:b.hi] {
		if math.IsInf(float64(max[i]), 1) {
			return &DivergedError{Step: step, Tensor: t.name}
		}
		if err := r.add(r.sum[t.lo:t.hi], t, max[i], local); err != nil {
			return &DivergedError{Step: step, Tensor: t.name}
		}
	}
	tag.Bucket++
	lo, hi := r.tensors[b.lo].lo, r.tensors[b.hi-1].hi
	if err := ring.AllReduceSum(ctx, tag, r.sum[lo:hi]); err != nil {
		return fmt.Errorf("all-reduce bucket %d: %w", index, err)
	}
	return nil
}

// add sums one tensor over the local groups.
func (r *reduction) add(dst []float32, t span, max float32, local [][]float32) error {
	clear(dst)
	if !r.exact {
		for _, v := range local {
			for i, x := range v[t.lo:t.hi] {
				dst[i] += x
			}
		}
		return nil
	}
	unit, err := allreduce.Unit(max, r.groups)
	if err != nil {
		return err
	}
	for _, v := range local {
		allreduce.AddRounded(dst, v[t.lo:t.hi], unit)
	}
	return nil
}
