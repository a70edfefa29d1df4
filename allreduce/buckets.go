package allreduce

import "fmt"

// Default bucket sizes, bytes of float32 gradient (Li et al., "PyTorch
// Distributed", VLDB 2020, use the same): a small first one, so that sending
// starts early in backward, and a cap that still amortises the ring's latency.
const (
	DefaultFirstBucket = 1 << 20
	DefaultBucketCap   = 25 << 20
)

// Bucket is a contiguous range of parameters whose gradients travel together.
type Bucket struct {
	Lo, Hi int // parameters [Lo, Hi), in forward order
	Offset int // of parameter Lo's first element in the flat vector
	Len    int // elements
}

// Buckets splits the flat gradient vector of parameters with the given sizes
// (elements, forward order) into buckets of at most capBytes (the first: at
// most firstBytes); a parameter larger than that has a bucket of its own.
// Backward finishes the last parameter first, so bucket 0 is the end of the
// vector and buckets are launched in index order. Every parameter is in
// exactly one bucket. The result depends on nothing but the arguments, so all
// ranks agree on it. It panics on a negative size or a limit below 4 bytes.
func Buckets(sizes []int, firstBytes, capBytes int) []Bucket {
	if firstBytes < 4 || capBytes < 4 {
		panic(fmt.Sprintf("allreduce: bucket limits %d and %d bytes hold no element", firstBytes, capBytes))
	}
	end := 0
	for i, n := range sizes {
		if n < 0 {
			panic(fmt.Sprintf("allreduce: parameter %d has %d elements", i, n))
		}
		end += n
	}
	var buckets []Bucket
	limit := firstBytes / 4
	current := Bucket{Lo: len(sizes), Hi: len(sizes), Offset: end}
	for i := len(sizes) - 1; i >= 0; i-- {
		if current.Hi > current.Lo && current.Len+sizes[i] > limit {
			buckets = append(buckets, current)
			current = Bucket{Lo: current.Lo, Hi: current.Lo, Offset: current.Offset}
			limit = capBytes / 4
		}
		current.Lo = i
		current.Offset -= sizes[i]
		current.Len += sizes[i]
	}
	if current.Hi > current.Lo {
		buckets = append(buckets, current)
	}
	return buckets
}
