// What the emulated libraries share; it lives in the emulated libcuda.so.1.
#ifndef MOCHI_EMU_H
#define MOCHI_EMU_H

#include <stddef.h>

// emu_log writes a line; emu_fault one that begins with FAULT, which fails the
// test, and returns status.
void emu_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
int emu_fault(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

// emu_device says whether the bytes at p lie in one live block of device
// memory, at a multiple of align.
int emu_device(const void *p, size_t bytes, size_t align);

// emu_enqueue puts work into a stream: run(copy of argument) is called when
// something waits for it, not before. stream NULL is a fault.
int emu_enqueue(void *stream, void (*run)(void *), const void *argument, size_t bytes);

// emu_capturing says whether the stream records into a graph: emu_enqueue then
// keeps the work for launches of the graph, and runs none of it.
int emu_capturing(void *stream);

// One lock for all emulated libraries; recursive.
void emu_lock(void);
void emu_unlock(void);

// A kernel, as the compiled kernels' table lists it.
typedef struct {
    const char *name;
    int parameters;
    void (*run)(const unsigned long long *arguments, const unsigned *grid, const unsigned *block, unsigned shared);
} emu_kernel;

#endif
