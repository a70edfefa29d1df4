// Package driver is the CUDA driver for the engine: devices, memory, streams,
// events, modules and launches, by gorgonia.org/cu. It is there with the build
// tag gpu.
//
// cu links libcuda.so.1, which only machines with a driver have, and ends the
// program in its init where cuInit fails. Both would take the CPU engines of
// the same program along. So trampoline.c defines the driver's functions and
// opens the library at run time; where there is none, Status says so and what
// was looked for, and the program goes on without a GPU. The linker must be
// told -Wl,--as-needed (make build does), or it notes libcuda.so.1 all the
// same.
//
// The environment variable MOCHI_CUDA_LIBRARIES names a folder in which
// libcuda.so.1, cuDNN, cuBLAS and NVRTC are looked for first.
//
// All calls on a Device happen between Enter and the function that Enter
// returns: the driver's current context belongs to a thread.
package driver
