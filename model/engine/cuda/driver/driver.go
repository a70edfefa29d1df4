//go:build gpu

package driver

/*
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "trampoline.h"

typedef int (*error_text)(int, const char **);

static const char *md_error(int status, const char *which) {
	const char *s = 0;
	error_text f = (error_text)md_symbol(which);
	return f && !f(status, &s) && s ? s : "";
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"gorgonia.org/cu"
)

// ErrNoDriver is wrapped by Status and Open on a machine without a working
// driver or without a GPU.
var ErrNoDriver = errors.New("no usable CUDA driver")

// Status is nil where the driver works and has a device.
func Status() error {
	switch s := C.md_status(); {
	case s == -1:
		return fmt.Errorf("%w: cannot open %s; is the NVIDIA driver installed here (in a container: is the GPU passed into it)?",
			ErrNoDriver, C.GoString(C.md_looked_for()))
	case s != 0:
		return fmt.Errorf("%w: cuInit: %s", ErrNoDriver, errorText(int(s)))
	}
	switch n, err := cu.NumDevices(); {
	case err != nil:
		return fmt.Errorf("%w: count devices: %v", ErrNoDriver, err)
	case n == 0:
		return fmt.Errorf("%w: it sees no device", ErrNoDriver)
	}
	return nil
}

// Release is the driver's own version, "550.54.15", as its kernel module says;
// "" where the kernel does not show it.
func Release() string {
	text, err := os.ReadFile("/sys/module/nvidia/version")
	if err != nil {
		return "" // WSL, for one
	}
	return strings.TrimSpace(string(text))
}

// errorText is what the driver calls a status.
func errorText(status int) string {
	text := func(which string) string {
		name := C.CString(which)
		defer C.free(unsafe.Pointer(name))
		return C.GoString(C.md_error(C.int(status), name))
	}
	return fmt.Sprintf("CUDA error %d (%s: %s)", status, text("cuGetErrorName"), text("cuGetErrorString"))
}

// Properties describe a device.
type Properties struct {
	Number       int
	Name         string // "NVIDIA H100 80GB HBM3"
	Major, Minor int    // compute capability
	Memory       int64  // bytes
	Driver       int    // version of CUDA that the driver knows, 12040 is 12.4
}

// Device is one GPU, by its primary context, which cuDNN and cuBLAS share.
type Device struct {
	Properties
	device  cu.Device
	context cu.CUContext
}

// Open retains the primary context of device number; Close releases it.
func Open(number int) (*Device, error) {
	if err := Status(); err != nil {
		return nil, err
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, fmt.Errorf("count devices: %w", err)
	}
	if number < 0 || number >= n {
		return nil, fmt.Errorf("device %d: there are devices 0 to %d", number, n-1)
	}
	d := &Device{Properties: Properties{Number: number, Driver: cu.Version()}}
	step := func(action string, err error) error {
		if err != nil {
			return fmt.Errorf("device %d: %s: %w", number, action, err)
		}
		return nil
	}
	d.device, err = cu.GetDevice(number)
	if err = step("get", err); err != nil {
		return nil, err
	}
	d.Name, err = d.device.Name()
	if err = step("name", err); err != nil {
		return nil, err
	}
	d.Major, d.Minor, err = d.device.ComputeCapability()
	if err = step("compute capability", err); err != nil {
		return nil, err
	}
	d.Memory, err = d.device.TotalMem()
	if err = step("memory", err); err != nil {
		return nil, err
	}
	d.context, err = d.device.RetainPrimaryCtx()
	if err = step("context", err); err != nil {
		return nil, err
	}
	return d, nil
}

// Enter makes the device current for the calling goroutine, until the function
// it returns is called.
func (d *Device) Enter() (leave func(), err error) {
	runtime.LockOSThread()
	if err := cu.SetCurrentContext(d.context); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("device %d: make current: %w", d.Number, err)
	}
	return runtime.UnlockOSThread, nil
}

// Free is the memory that nobody has allocated, of this process or another.
func (d *Device) Free() (bytes int64, err error) {
	free, _, err := cu.MemInfo()
	return free, err
}

// Close releases the context. All that was made on the device must be closed
// before.
func (d *Device) Close() error {
	if err := d.device.ReleasePrimaryCtx(); err != nil {
		return fmt.Errorf("device %d: release: %w", d.Number, err)
	}
	return nil
}
