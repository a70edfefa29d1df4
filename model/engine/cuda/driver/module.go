//go:build gpu

package driver

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"

	"mochi/model/engine/cuda/kernel"
)

// Module is a compiled program on the device.
type Module struct {
	m         cu.Module
	functions map[string]cu.Function
}

// Load takes a compiled program: PTX or a cubin for this device.
func (d *Device) Load(image []byte) (*Module, error) {
	m, err := cu.LoadData(string(image))
	if err != nil {
		return nil, fmt.Errorf("load %d bytes of compiled kernels: %w", len(image), err)
	}
	return &Module{m: m, functions: map[string]cu.Function{}}, nil
}

// Find looks functions up, so that a launch cannot miss one.
func (m *Module) Find(names []string) error {
	for _, name := range names {
		f, err := m.m.Function(name)
		if err != nil {
			return fmt.Errorf("kernel %s: %w", name, err)
		}
		m.functions[name] = f
	}
	return nil
}

// Prepare makes a launch of a kernel, which may be put into the stream again
// and again. Arguments are Pointer, int32,
// int64 and float32, as the kernel's table lists them.
func (m *Module) Prepare(s Stream, name string, g kernel.Launch, args ...any) func() error {
	f, ok := m.functions[name]
	if !ok {
		panic("driver: there is no kernel " + name)
	}
	// cu reads eight bytes of every argument.
	values := make([]uint64, len(args))
	pointers := make([]unsafe.Pointer, len(args))
	for i, a := range args {
		pointers[i] = unsafe.Pointer(&values[i])
		switch a := a.(type) {
		case Pointer:
			values[i] = uint64(a)
		case int32:
			values[i] = uint64(uint32(a))
		case int64:
			values[i] = uint64(a)
		case float32:
			*(*float32)(pointers[i]) = a
		default:
			panic(fmt.Sprintf("driver: argument %d of kernel %s is a %T", i, name, a))
		}
	}
	return func() error {
		if err := f.Launch(g.Grid[0], g.Grid[1], g.Grid[2], g.Block[0], g.Block[1], g.Block[2], g.Shared, s.s, pointers); err != nil {
			return fmt.Errorf("launch kernel %s, grid %v, block %v, %d bytes of shared memory: %w", name, g.Grid, g.Block, g.Shared, err)
		}
		return nil
	}
}

// Launch puts a kernel into the stream once.
func (m *Module) Launch(s Stream, name string, g kernel.Launch, args ...any) error {
	return m.Prepare(s, name, g, args...)()
}

// Close unloads the program.
func (m *Module) Close() error { return m.m.Unload() }
