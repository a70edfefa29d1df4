package allreduce

import (
	"testing"
)

// TestNewVector: zeros, as many as were asked for, whether or not they fill a large page.
func TestNewVector(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 524288, 524288 + 1, 3 << 20} {
		v := NewVector(n)
		if len(v) != n || cap(v) < n {
			t.Fatalf("%d elements: length %d, capacity %d", n, len(v), cap(v))
		}
		for i, x := range v {
			if x != 0 {
				t.Fatalf("element %d of %d is %g", i, n, x)
			}
			v[i] = 1
		}
	}
}
