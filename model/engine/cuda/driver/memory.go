//go:build gpu

package driver

/*
#include <stdlib.h>
#include "trampoline.h"

typedef int (*host_alloc)(void **, size_t, unsigned);

static int md_host_alloc(void **p, size_t bytes) {
	host_alloc f = (host_alloc)md_symbol("cuMemHostAlloc");
	return f ? f(p, bytes, 0) : 34;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"gorgonia.org/cu"
)

// Pointer is an address in device memory.
type Pointer uintptr

// Add is the address bytes behind p.
func (p Pointer) Add(bytes int) Pointer { return p + Pointer(bytes) }

// Memory is a block of device memory.
type Memory struct {
	Pointer
	Bytes int
}

// OutOfMemory says what an allocation wanted and what there was.
type OutOfMemory struct {
	Want, Free, Total int64 // bytes
}

func (e *OutOfMemory) Error() string {
	return fmt.Sprintf("out of device memory: %d MiB wanted, %d of %d MiB free", e.Want>>20, e.Free>>20, e.Total>>20)
}

// alignment of what is allocated; the driver's own is larger.
const minimum = 256

// Alloc returns a block of zeros; *OutOfMemory where it does not fit.
func (d *Device) Alloc(bytes int) (Memory, error) {
	n := int64(max(bytes, minimum))
	p, err := cu.MemAlloc(n)
	if err != nil {
		if errors.Is(err, cu.OutOfMemory) {
			free, _, _ := cu.MemInfo()
			return Memory{}, &OutOfMemory{Want: n, Free: free, Total: d.Memory}
		}
		return Memory{}, fmt.Errorf("allocate %d bytes of device memory: %w", n, err)
	}
	if err := cu.MemsetD8(p, 0, n); err != nil {
		cu.MemFree(p)
		return Memory{}, fmt.Errorf("clear %d bytes of device memory: %w", n, err)
	}
	// That is in the default stream, for which the engine's do not wait. (To wait
	// for the whole context would break what others capture.)
	if err := (cu.Stream{}).Synchronize(); err != nil {
		cu.MemFree(p)
		return Memory{}, fmt.Errorf("wait until %d bytes of device memory are clear: %w", n, err)
	}
	return Memory{Pointer(p), int(n)}, nil
}

// Release frees a block; nothing on any stream may still use it.
func (m *Memory) Release() error {
	if m.Pointer == 0 {
		return nil
	}
	err := cu.MemFree(cu.DevicePtr(m.Pointer))
	*m = Memory{}
	return err
}

// Pinned is host memory that the device copies from and to while the host goes
// on.
type Pinned struct {
	p     unsafe.Pointer
	bytes int
}

// AllocPinned returns pinned memory for n values.
func (d *Device) AllocPinned(n int) (Pinned, error) {
	bytes := max(4*n, minimum)
	var p unsafe.Pointer
	if status := C.md_host_alloc(&p, C.size_t(bytes)); status != 0 {
		return Pinned{}, fmt.Errorf("allocate %d bytes of pinned memory: %s", bytes, errorText(int(status)))
	}
	return Pinned{p, bytes}, nil
}

// Floats is the memory as n values.
func (p Pinned) Floats(n int) []float32 { return unsafe.Slice((*float32)(p.p), n) }

// View is n values of pinned memory from byte at on.
func View[T any](p Pinned, at, n int) []T {
	var one T
	if at < 0 || n < 0 || at+n*int(unsafe.Sizeof(one)) > p.bytes {
		panic(fmt.Sprintf("driver: %d values of %d bytes at byte %d of %d", n, unsafe.Sizeof(one), at, p.bytes))
	}
	return unsafe.Slice((*T)(unsafe.Add(p.p, at)), n)
}

// Bytes is how large it is.
func (p Pinned) Bytes() int { return p.bytes }

// Release frees the memory; no copy may be under way.
func (p *Pinned) Release() error {
	if p.p == nil {
		return nil
	}
	err := cu.MemFreeHost(p.p)
	*p = Pinned{}
	return err
}
