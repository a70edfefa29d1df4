//go:build gpu

// Definitions of the driver's functions, so that a program with gorgonia.org/cu
// starts on a machine without a driver: libcuda.so.1 is opened at run time
// here, not by the system's linker before main. Each function is one jump
// through a slot. A slot that the library does not fill leads to an error.

#include "symbols.h"
#include "trampoline.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
#define NAME(f) #f,
    MOCHI_DRIVER_SYMBOLS(NAME)
#undef NAME
};
enum { COUNT = sizeof names / sizeof *names };

// 34 is CUDA_ERROR_STUB_LIBRARY: there is no driver behind the call.
static int absent(void) { return 34; }

// gorgonia.org/cu calls cuInit before main and ends the program when it fails.
// It is told that all is well; md_status knows better.
static int init_absent(void) { return 0; }

__attribute__((visibility("hidden"))) void *mochi_driver_slot[COUNT];

static void *library;
static char looked_for[1024];
static int init_status;

static int (*real_init)(unsigned);
static int init_present(unsigned flags) {
    init_status = real_init(flags);
    return 0;
}

static void *open_in(const char *folder) {
    char path[600];
    snprintf(path, sizeof path, "%s%slibcuda.so.1", folder, *folder ? "/" : "");
    size_t n = strlen(looked_for);
    snprintf(looked_for + n, sizeof looked_for - n, "%s%s", n ? ", " : "", path);
    return dlopen(path, RTLD_NOW | RTLD_GLOBAL);
}

// Runs before any Go code, cu's init among it.
__attribute__((constructor)) static void fill(void) {
    const char *folder = getenv("MOCHI_CUDA_LIBRARIES");
    if (folder && *folder) library = open_in(folder);
    if (!library) library = open_in("");
    for (int i = 0; i < COUNT; i++) {
        void *f = library ? dlsym(library, names[i]) : NULL;
        if (!strcmp(names[i], "cuInit")) {
            real_init = (int (*)(unsigned))f;
            f = f ? (void *)init_present : (void *)init_absent;
        }
        mochi_driver_slot[i] = f ? f : (void *)absent;
    }
}

int md_status(void) { return library ? init_status : -1; }
const char *md_looked_for(void) { return looked_for; }
void *md_symbol(const char *name) { return library ? dlsym(library, name) : NULL; }

// ---- The jumps ----

#if defined(__x86_64__)
#define JUMP(f, i) ".globl " #f "\n.type " #f ",@function\n" #f ":\n jmp *mochi_driver_slot+8*(" i ")(%rip)\n.size " #f ",.-" #f "\n"
#elif defined(__aarch64__)
#define JUMP(f, i)                                                                                             \
    ".globl " #f "\n.type " #f ",%function\n" #f ":\n adrp x16, mochi_driver_slot+8*(" i ")\n"                 \
    " ldr x16, [x16, :lo12:mochi_driver_slot+8*(" i ")]\n br x16\n.size " #f ",.-" #f "\n"
#else
#error "the CUDA engine is for amd64 and arm64"
#endif

// The index of a name is its place in the list: counted by the assembler.
#define ONE(f) JUMP(f, "slot_number") ".set slot_number, slot_number+1\n"
__asm__(".text\n.set slot_number, 0\n" MOCHI_DRIVER_SYMBOLS(ONE));
