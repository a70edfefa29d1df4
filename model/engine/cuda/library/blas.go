//go:build gpu

package library

/*
#include "blas.h"

static int mb_workspace_at(mb_library *l, void *blas, size_t at, size_t bytes) { return mb_workspace(l, blas, (void *)at, bytes); }

static int mb_product_at(mb_library *l, void *blas, int ta, int tb, int m, int n, int k,
	size_t a, int lda, size_t b, int ldb, size_t c, int ldc) {
	return mb_product(l, blas, ta, tb, m, n, k, (const float *)a, lda, (const float *)b, ldb, (float *)c, ldc);
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"mochi/model/engine/cuda/driver"
)

// BLAS is cuBLAS with a handle on the current device, bound to one stream.
type BLAS struct {
	Name    string // "libcublas.so.12"
	Version int    // 120103 is 12.1.3
	l       *C.mb_library
	handle  unsafe.Pointer
}

// OpenBLAS opens cuBLAS 11 or newer. tf32 lets products lose mantissa bits.
func OpenBLAS(s driver.Stream, tf32 bool) (*BLAS, error) {
	b := &BLAS{}
	name, err := cublas.open(func(handle unsafe.Pointer) error {
		var missing *C.char
		if b.l = C.mb_library_open(handle, &missing); b.l == nil {
			return fmt.Errorf("it has no %s", C.GoString(missing))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	b.Name = name
	if err := b.try("create a handle", C.mb_create(b.l, &b.handle)); err != nil {
		C.mb_library_close(b.l)
		return nil, err
	}
	var version C.int
	err = b.try("ask for the version", C.mb_version(b.l, b.handle, &version))
	b.Version = int(version)
	if err == nil && b.Version < 11000 {
		err = &Missing{Library: cublas.library, Tried: []string{name}, Why: fmt.Sprintf("it is version %d; 11 or newer is needed", b.Version)}
	}
	if err == nil {
		err = b.try("set up the handle", C.mb_setup(b.l, b.handle, s.Handle(), truth(tf32)))
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// SetWorkspace gives products device memory for what lies between, which the
// library would else allocate itself, for every capture anew (driver.Graph).
// Handles of one stream may share it; it must outlive them.
func (b *BLAS) SetWorkspace(m driver.Memory) error {
	return b.try("set the workspace", C.mb_workspace_at(b.l, b.handle, C.size_t(m.Pointer), C.size_t(m.Bytes)))
}

// Close destroys the handle; the library itself stays in memory.
func (b *BLAS) Close() error {
	err := b.try("destroy the handle", C.mb_destroy(b.l, b.handle))
	C.mb_library_close(b.l)
	return err
}

func (b *BLAS) try(action string, status C.int) error {
	if status != 0 {
		return fmt.Errorf("cuBLAS: %s: status %d", action, status)
	}
	return nil
}

// Product is dense and row-major: c [m, n] = a · b, with a [m, k] or, if
// transposed, [k, m], and b [k, n] or, if transposed, [n, k].
func (b *BLAS) Product(m, n, k int, a driver.Pointer, aTransposed bool, x driver.Pointer, xTransposed bool, c driver.Pointer) error {
	return b.ProductInto(m, n, k, a, aTransposed, x, xTransposed, c, n)
}

// ProductInto is Product with ldc ≥ n values from one row of c to the next. To
// cuBLAS, which is column-major, it is cᵀ = bᵀ·aᵀ.
func (b *BLAS) ProductInto(m, n, k int, a driver.Pointer, aTransposed bool, x driver.Pointer, xTransposed bool, c driver.Pointer, ldc int) error {
	lda, ldx := k, n
	if aTransposed {
		lda = m
	}
	if xTransposed {
		ldx = k
	}
	status := C.mb_product_at(b.l, b.handle, truth(xTransposed), truth(aTransposed),
		C.int(n), C.int(m), C.int(k), C.size_t(x), C.int(ldx), C.size_t(a), C.int(lda), C.size_t(c), C.int(ldc))
	if status != 0 {
		return b.try(fmt.Sprintf("product %d×%d×%d", m, n, k), status)
	}
	return nil
}
