//go:build onednn

#define _GNU_SOURCE
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef MOCHI_TESTHOOKS
long ox_allocations = -1;
static int refused(void) { return ox_allocations >= 0 && ox_allocations-- == 0; }
#else
static int refused(void) { return 0; }
#endif

void *ox_no_memory(size_t bytes, const char *purpose, char *err) {
    snprintf(err, OX_ERR, "no memory for %s: %zu bytes", purpose, bytes);
    return NULL;
}

void *ox_new(size_t n, size_t size, const char *purpose, char *err) {
    void *p = refused() ? NULL : calloc(n ? n : 1, size);
    return p ? p : ox_no_memory(n * size, purpose, err);
}

void *ox_grow(void *p, size_t n, size_t size, const char *purpose, char *err) {
    void *q = refused() ? NULL : realloc(p, n * size);
    return q ? q : ox_no_memory(n * size, purpose, err);
}

void *ox_block(size_t bytes, const char *purpose, char *err) {
    bytes = ((bytes ? bytes : 1) + 63) / 64 * 64;
    void *p = refused() ? NULL : aligned_alloc(64, bytes);
    return p ? memset(p, 0, bytes) : ox_no_memory(bytes, purpose, err);
}

void *ox_pages(size_t bytes, const char *purpose, char *err) {
    bytes = bytes ? bytes : 1;
    void *p = refused() ? MAP_FAILED
                        : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? ox_no_memory(bytes, purpose, err) : p;
}

void ox_pages_free(void *p, size_t bytes) {
    if (p) munmap(p, bytes ? bytes : 1);
}
