//go:build onednn && testhooks && amd64

package contrast

/*
#cgo CFLAGS: -DMOCHI_TESTHOOKS
extern long ct_allocations;
*/
import "C"

// allocations lets the next n allocations of panels succeed and the one after
// them fail; n < 0: all succeed.
func allocations(n int) { C.ct_allocations = C.long(n) }
