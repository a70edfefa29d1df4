package reduction

import (
	"mochi/allreduce"
	"mochi/model/network"
)

// Bucket sizes, PyTorch DDP's: the first is small so that something leaves
// early.
const (
	firstBucket = 1 << 20
	bucketCap   = 25 << 20
)

// layout says where the tensors lie in the sums and in the terms, and which of
// them travel together.
type layout struct {
	tensors []span
	buckets []bucket
	ofParam []int // bucket of each parameter
	late    int   // the first bucket that is final only when all terms are
}

// span is a tensor's place in the sums, [lo, hi), and where it begins in a row
// of the terms of its kind.
type span struct {
	name   string
	lo, hi int
	kind   kind
	from   int
}

// kind is which of the vectors of a Terms.
type kind int

const (
	gradients kind = iota
	queryStatistics
	keyStatistics
	besides
)

// bucket is a contiguous range of tensors, [lo, hi), that travels together.
type bucket struct {
	lo, hi int
	params int // how many of them are parameters: it is final when all are
}

func newLayout(net *network.Network, more int) layout {
	l := layout{ofParam: make([]int, len(net.Params))}
	add := func(kind kind, name string, ts []network.Tensor, base int) {
		for _, t := range ts {
			l.tensors = append(l.tensors, span{name + t.Name, base + t.Offset, base + t.Offset + t.Size, kind, t.Offset})
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
			l.ofParam[i] = len(l.buckets)
		}
		l.buckets = append(l.buckets, bucket{lo: ab.Lo, hi: ab.Hi, params: ab.Hi - ab.Lo})
	}
	// The statistics, a few KB, leave last; but for what is besides, which is apart so
	// that the way of all else, and with it its bits, is as without it.
	l.late = len(l.buckets)
	l.buckets = append(l.buckets, bucket{lo: len(net.Params), hi: len(l.tensors)})
	if more > 0 {
		at := len(l.tensors)
		l.tensors = append(l.tensors, span{"gradient of the probe", p + 2*b, p + 2*b + more, besides, 0})
		l.buckets = append(l.buckets, bucket{lo: at, hi: at + 1})
	}
	return l
}
