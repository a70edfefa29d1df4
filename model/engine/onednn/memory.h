// Memory of the executor: what does not come is an error that names its size
// and its purpose, never a NULL that nobody looks at.
#ifndef MOCHI_MEMORY_H
#define MOCHI_MEMORY_H

#include <stddef.h>

enum { OX_ERR = 512 }; // size of an err buffer

// All return NULL when there is no memory, with a message in err.

// ox_new is n zeroed values of size bytes; free it with free.
void *ox_new(size_t n, size_t size, const char *purpose, char *err);
// ox_grow makes room for n values at p, as realloc does; p stays when it fails.
void *ox_grow(void *p, size_t n, size_t size, const char *purpose, char *err);
// ox_block is zeroed and starts at a cache line, also for 0 bytes; free it
// with free.
void *ox_block(size_t bytes, const char *purpose, char *err);
// ox_pages is zeroed and takes memory only where it is used; free it with
// ox_pages_free.
void *ox_pages(size_t bytes, const char *purpose, char *err);
void ox_pages_free(void *p, size_t bytes);

// ox_no_memory writes the message; it returns NULL.
void *ox_no_memory(size_t bytes, const char *purpose, char *err);

#ifdef MOCHI_TESTHOOKS
// Allocations that succeed before one fails; negative: all do.
extern long ox_allocations;
#endif

#endif
