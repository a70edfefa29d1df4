//go:build gpu

package library

/*
#include <stdlib.h>
#include "compiler.h"
*/
import "C"

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

// Compiler is NVRTC.
type Compiler struct {
	Name         string // "libnvrtc.so.12"
	Major, Minor int
	archs        []int // that it compiles for, rising; 75 is 7.5
	l            *C.mn_library
}

// OpenCompiler opens NVRTC 11.2 or newer. It needs no device.
func OpenCompiler() (*Compiler, error) {
	c := &Compiler{}
	name, err := nvrtc.open(func(handle unsafe.Pointer) error {
		var missing *C.char
		if c.l = C.mn_library_open(handle, &missing); c.l == nil {
			return fmt.Errorf("it has no %s, so it is older than 11.2", C.GoString(missing))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.Name = name
	var major, minor, n C.int
	var archs [64]C.int
	if err := c.try("ask for the version", C.mn_version(c.l, &major, &minor)); err != nil {
		return nil, err
	}
	if err := c.try("ask for architectures", C.mn_archs(c.l, &archs[0], C.int(len(archs)), &n)); err != nil {
		return nil, err
	}
	c.Major, c.Minor = int(major), int(minor)
	for _, a := range archs[:n] {
		c.archs = append(c.archs, int(a))
	}
	slices.Sort(c.archs)
	return c, nil
}

// Close forgets the library; it stays in memory.
func (c *Compiler) Close() { C.mn_library_close(c.l) }

func (c *Compiler) try(action string, status C.int) error {
	if status != 0 {
		return fmt.Errorf("NVRTC: %s: %s", action, C.GoString(C.mn_text(c.l, status)))
	}
	return nil
}

// Target is what a device of compute capability major.minor is compiled for:
// itself, or, where this NVRTC does not know it yet, PTX for the newest older
// architecture, which the driver compiles to the end.
func (c *Compiler) Target(major, minor int) (Target, error) {
	want := 10*major + minor
	if slices.Contains(c.archs, want) {
		return Target{Arch: want}, nil
	}
	for _, a := range slices.Backward(c.archs) {
		if a < want {
			return Target{Arch: a, PTX: true}, nil
		}
	}
	return Target{}, fmt.Errorf("NVRTC %d.%d compiles for %v, not for compute capability %d.%d", c.Major, c.Minor, c.archs, major, minor)
}

// Target is what is compiled for.
type Target struct {
	Arch int
	PTX  bool
}

// String is as file names have it: "sm_90", "compute_90".
func (t Target) String() string {
	if t.PTX {
		return fmt.Sprintf("compute_%d", t.Arch)
	}
	return fmt.Sprintf("sm_%d", t.Arch)
}

// Options of every compilation; part of a cached program's name.
var Options = []string{"--std=c++17"}

// Compile compiles one translation unit. Warnings and errors are NVRTC's.
func (c *Compiler) Compile(source string, t Target) ([]byte, error) {
	list := append(slices.Clone(Options), "--gpu-architecture="+t.String())
	argv := (*[1 << 10]*C.char)(C.calloc(C.size_t(len(list)), 8))
	if argv == nil {
		return nil, fmt.Errorf("NVRTC: no memory for %d options: %d bytes", len(list), 8*len(list))
	}
	defer C.free(unsafe.Pointer(argv))
	for i, o := range list {
		argv[i] = C.CString(o)
		defer C.free(unsafe.Pointer(argv[i]))
	}
	text := C.CString(source)
	defer C.free(unsafe.Pointer(text))
	var image, log *C.char
	var bytes C.size_t
	ptx := truth(t.PTX)
	status := C.mn_compile(c.l, text, &argv[0], C.int(len(list)), ptx, &image, &bytes, &log)
	defer C.free(unsafe.Pointer(image))
	defer C.free(unsafe.Pointer(log))
	if err := c.try("compile the kernels for "+t.String(), status); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, strings.TrimSpace(C.GoString(log)))
	}
	return C.GoBytes(unsafe.Pointer(image), C.int(bytes)), nil
}
