package allreduce

// NewVector is a vector of n zeros that is good to sum: a large one asks for large pages
// (2 MiB), where there are some. Sums pass through memory, and in a virtual machine a
// page of 4 KiB costs nearly as much to find as to read: on a Zen 3 that adds half again
// to the speed of each pass. To Go it is a slice like any other.
func NewVector(n int) []float32 {
	v := make([]float32, n)
	wantLargePages(v)
	return v
}
