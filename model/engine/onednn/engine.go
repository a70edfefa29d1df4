//go:build onednn

package onednn

/*
#cgo CFLAGS: -O3 -std=gnu11 -Wall
#cgo LDFLAGS: -ldnnl -ldl -lm -lpthread
#include <stdlib.h>
#include "exec.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"mochi/model/engine"
	"mochi/model/engine/onednn/contrast"
	"mochi/model/network"
)

// cpuEngine implements engine.Engine. Its threads serve one call at a time.
type cpuEngine struct {
	info engine.Info
	kind C.int32_t // of feature maps, as mk_type
	wide bool      // convolutions of bf16 are computed in fp32

	mu     sync.Mutex // guards the threads, and all of C
	c      *C.ox_engine
	err    *C.char // for messages from C
	closed bool
}

// New starts an engine and its threads; Close ends them. Config.Device is
// ignored. It fails with engine.ErrUnsupported for a precision other than fp32
// and bf16.
func New(cfg engine.Config) (engine.Engine, error) {
	fail := func(format string, args ...any) (engine.Engine, error) {
		return nil, fmt.Errorf("engine onednn: "+format, args...)
	}
	level := C.mk_level_now()
	kind := C.int32_t(C.MK_F32)
	switch cfg.Precision {
	case "", engine.FP32:
	case engine.BF16:
		kind = C.MK_BF16
	default:
		return fail("precision %q: %w: there are %s and %s", cfg.Precision, engine.ErrPrecision, engine.FP32, engine.BF16)
	}
	if cfg.Threads < 0 {
		return fail("threads: %d; use 0 for all cores, or at least 1", cfg.Threads)
	}
	threads := cfg.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	// The library's stand-in for bf16 dot products takes three times as long as
	// fp32, and there is none below AVX-512.
	wide := kind == C.MK_BF16 && level < C.MK_AVX512_BF16
	e := &cpuEngine{kind: kind, wide: wide, err: (*C.char)(C.calloc(1, C.OX_ERR))}
	if e.err == nil {
		return fail("start: no memory for messages: %d bytes", C.OX_ERR)
	}
	if e.c = C.ox_engine_open(C.int(threads), C.int(flag(wide)), e.err); e.c == nil {
		defer C.free(unsafe.Pointer(e.err))
		return fail("start: %s", C.GoString(e.err))
	}
	var major, minor, patch C.int
	C.ox_library_version(&major, &minor, &patch)
	// What changes the order or the rounding of sums: the library's and our
	// choice of instructions, and the parts of a batch.
	version := fmt.Sprintf("%d.%d.%d", major, minor, patch)
	numerics := fmt.Sprintf("%s %s %s isa %d lanes %d", Name, version, levelName(level), C.ox_library_isa(), lanes(threads))
	device := fmt.Sprintf("CPU, %d threads, %s kernels", threads, levelName(level))
	if wide {
		device += ", bf16 computed in fp32"
	}
	e.info = engine.Info{Name: Name, Threads: threads, Numerics: numerics, Versions: map[string]string{"onednn": version},
		Device: device}
	return e, nil
}

func levelName(l C.mk_level) string { return C.GoString(C.mk_level_name(l)) }

func (e *cpuEngine) Info() engine.Info { return e.info }

func (e *cpuEngine) NewState(net *network.Network) (engine.State, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return newState(e, net)
}

func (e *cpuEngine) Products() engine.Products { return products{e} }

func (e *cpuEngine) Contrast() engine.Contrast {
	return contrast.New(C.mk_level_now() >= C.MK_AVX512)
}

// KernelTime is the time spent in convolutions and matrix products since the
// engine was made, of all its states together, the mean over threads.
func (e *cpuEngine) KernelTime() time.Duration { return time.Duration(C.ox_engine_kernel_ns(e.c)) }

// Close ends the threads. States and programs of the engine must be closed
// before, and must not be used afterwards.
func (e *cpuEngine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.closed = true
		C.ox_engine_close(e.c)
		C.free(unsafe.Pointer(e.err))
	}
	return nil
}

// message is the error that C left.
func (e *cpuEngine) message() error { return errors.New(C.GoString(e.err)) }

// pointer is a slice's memory for C, which does not keep it.
func pointer(v []float32) *C.float { return (*C.float)(unsafe.Pointer(unsafe.SliceData(v))) }

// products are the library's matrix products, in parts of fixed size.
type products struct{ e *cpuEngine }

func (p products) NT(m, n, k int, a, b, c []float32) { p.run(1, m, n, k, a, b, c) }
func (p products) NN(m, n, k int, a, b, c []float32) { p.run(0, m, n, k, a, b, c) }

func (p products) run(nt, m, n, k int, a, b, c []float32) {
	if len(a) < m*k || len(b) < n*k || len(c) < m*n {
		panic(fmt.Sprintf("engine onednn: product %d×%d×%d of %d and %d values into %d", m, n, k, len(a), len(b), len(c)))
	}
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	if status := C.ox_product(p.e.c, C.int(nt), C.int(m), C.int(n), C.int(k), pointer(a), pointer(b), pointer(c)); status != 0 {
		panic(fmt.Sprintf("engine onednn: product %d×%d×%d: oneDNN fails with status %d", m, n, k, status))
	}
}
