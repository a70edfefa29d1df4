//go:build gpu

package library

/*
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "open.h"
*/
import "C"

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"
)

// Folder is the environment variable that names a folder in which libraries
// are looked for first; package driver reads it too.
const Folder = "MOCHI_CUDA_LIBRARIES"

// Missing says that a library cannot be used, and why.
type Missing struct {
	Library string   // "cuDNN"
	Tried   []string // names, in the order they were looked for
	Why     string   // of the last that is there but unusable; "" where none is there
}

func (e *Missing) Error() string {
	s := fmt.Sprintf("%s: looked for %s", e.Library, strings.Join(e.Tried, ", "))
	if e.Why != "" {
		return s + ": " + e.Why
	}
	return s + ": none is there; install it, or name its folder in " + Folder
}

// search is a library to be opened.
type search struct {
	library string
	sonames []string // the newest first
}

// The sonames are those of NVIDIA's and the distributions' packages. The
// unversioned name comes last: it belongs to development packages, and only a
// version check says what is behind it.
var (
	cudnn  = search{"cuDNN", []string{"libcudnn.so.9", "libcudnn.so.8", "libcudnn.so"}}
	cublas = search{"cuBLAS", []string{"libcublas.so.13", "libcublas.so.12", "libcublas.so.11", "libcublas.so"}}
	nvrtc  = search{"NVRTC", []string{"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so.11.1", "libnvrtc.so.11.0", "libnvrtc.so"}}
)

// open opens the first library of the list that is there and that accept
// takes; accept says why not. What accept refuses is closed again.
func (s search) open(accept func(handle unsafe.Pointer) error) (name string, err error) {
	missing := &Missing{Library: s.library}
	folders := []string{""}
	if f := os.Getenv(Folder); f != "" {
		folders = []string{f, ""}
	}
	for _, folder := range folders {
		for _, soname := range s.sonames {
			name := soname
			if folder != "" {
				name = filepath.Join(folder, soname)
			}
			missing.Tried = append(missing.Tried, name)
			handle, why := dlopen(name)
			if handle == nil {
				// There but broken is worth more words than not there.
				if _, err := os.Stat(name); folder != "" && err == nil || !strings.Contains(why, "No such file") && !strings.Contains(why, "cannot open shared object") {
					missing.Why = why
				}
				continue
			}
			if err := accept(handle); err != nil {
				missing.Why = fmt.Sprintf("%s: %v", name, err)
				C.ml_close(handle)
				continue
			}
			return name, nil
		}
	}
	return "", missing
}

func dlopen(name string) (handle unsafe.Pointer, why string) {
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	message := (*C.char)(C.malloc(512))
	defer C.free(unsafe.Pointer(message))
	*message = 0
	handle = C.ml_open(c, message, 512)
	return handle, C.GoString(message)
}

// fill looks up functions; it names the first that is missing.
func fill(handle unsafe.Pointer, names **C.char, functions *unsafe.Pointer, n int) error {
	if missing := C.ml_fill(handle, names, functions, C.int(n)); missing != nil {
		return fmt.Errorf("it has no %s", C.GoString(missing))
	}
	return nil
}
