package allreduce

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"unsafe"
)

// TestVectorsAskForLargePages: all of a large vector but its ends, as the kernel sees it.
// Whether it has some left is the kernel's affair.
func TestVectorsAskForLargePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("this kernel has no large pages")
	}
	v := NewVector(5 * largePage / 4)
	asked, err := askedFor(uintptr(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
	if err != nil {
		t.Skip(err)
	}
	if asked < 4*largePage {
		t.Errorf("of %d bytes, large pages were asked for %d", 4*len(v), asked)
	}
	v[len(v)-1] = 1 // it lives until here
}

// askedFor is how many of n bytes at an address are marked hg in smaps.
func askedFor(at uintptr, n int) (bytesAsked int, err error) {
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return 0, err
	}
	var lo, hi uintptr
	for line := range bytes.Lines(maps) {
		var from, to uintptr
		if k, _ := fmt.Sscanf(string(line), "%x-%x ", &from, &to); k == 2 {
			lo, hi = max(from, at), min(to, at+uintptr(n))
		}
		if flags, ok := bytes.CutPrefix(line, []byte("VmFlags:")); ok && lo < hi && bytes.Contains(flags, []byte(" hg")) {
			bytesAsked += int(hi - lo)
		}
	}
	return bytesAsked, nil
}
