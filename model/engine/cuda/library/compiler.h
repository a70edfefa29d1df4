#ifndef MOCHI_COMPILER_H
#define MOCHI_COMPILER_H

#include <stddef.h>

typedef struct mn_library mn_library;

mn_library *mn_library_open(void *handle, const char **missing);
void mn_library_close(mn_library *);
int mn_version(mn_library *, int *major, int *minor);
const char *mn_text(mn_library *, int status);

// mn_archs writes up to room architectures (75 is 7.5) that can be compiled
// for, and their number to *n.
int mn_archs(mn_library *, int *archs, int room, int *n);

// mn_compile compiles for an architecture: a cubin for the device itself, or
// PTX, which the driver compiles on. *image and *log are malloc'ed, the log
// also after an error.
int mn_compile(mn_library *, const char *source, const char *const *options, int n, int ptx,
               char **image, size_t *bytes, char **log);

#endif
