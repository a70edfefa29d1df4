package allreduce

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// largePage is the size of one, bytes.
const largePage = 2 << 20

// wantLargePages asks for them where v fills some, before it is touched.
func wantLargePages(v []float32) {
	first := uintptr(unsafe.Pointer(unsafe.SliceData(v)))
	skip := int(-first % largePage)
	if 4*len(v)-skip < largePage {
		return
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))[skip:]
	_ = unix.Madvise(b[:len(b)&^(largePage-1)], unix.MADV_HUGEPAGE) // a kernel without them says so, and small ones do
}
