//go:build gpu

#include "compiler.h"
#include "open.h"

#include <stdlib.h>

enum { VERSION, TEXT, N_ARCHS, ARCHS, CREATE, COMPILE, DESTROY, LOG_SIZE, LOG, CUBIN_SIZE, CUBIN, PTX_SIZE, PTX, COUNT };

static const char *const names[] = {
    "nvrtcVersion", "nvrtcGetErrorString", "nvrtcGetNumSupportedArchs", "nvrtcGetSupportedArchs",
    "nvrtcCreateProgram", "nvrtcCompileProgram", "nvrtcDestroyProgram", "nvrtcGetProgramLogSize", "nvrtcGetProgramLog",
    "nvrtcGetCUBINSize", "nvrtcGetCUBIN", "nvrtcGetPTXSize", "nvrtcGetPTX",
};

struct mn_library {
    void *f[COUNT];
};

typedef int size_fn(void *, size_t *);
typedef int text_fn(void *, char *);

mn_library *mn_library_open(void *handle, const char **missing) {
    mn_library *l = calloc(1, sizeof *l);
    *missing = l ? ml_fill(handle, names, l->f, COUNT) : "memory";
    if (*missing) {
        free(l);
        return NULL;
    }
    return l;
}

void mn_library_close(mn_library *l) { free(l); }
int mn_version(mn_library *l, int *major, int *minor) { return ((int (*)(int *, int *))l->f[VERSION])(major, minor); }
const char *mn_text(mn_library *l, int status) { return ((const char *(*)(int))l->f[TEXT])(status); }

int mn_archs(mn_library *l, int *archs, int room, int *n) {
    int status = ((int (*)(int *))l->f[N_ARCHS])(n);
    if (status || *n > room) return status ? status : 1;
    return ((int (*)(int *))l->f[ARCHS])(archs);
}

static int fetch(mn_library *l, void *program, int size_index, char **out, size_t *bytes) {
    int status = ((size_fn *)l->f[size_index])(program, bytes);
    if (status) return status;
    *out = calloc(1, *bytes + 1);
    if (!*out) return 1; // OUT_OF_MEMORY
    return ((text_fn *)l->f[size_index + 1])(program, *out);
}

int mn_compile(mn_library *l, const char *source, const char *const *options, int n, int ptx,
               char **image, size_t *bytes, char **log) {
    typedef int create(void **, const char *, const char *, int, const char *const *, const char *const *);
    typedef int compile(void *, int, const char *const *);
    void *program = NULL;
    size_t log_bytes;
    *image = *log = NULL;
    int status = ((create *)l->f[CREATE])(&program, source, "mochi.cu", 0, NULL, NULL);
    if (status) return status;
    status = ((compile *)l->f[COMPILE])(program, n, options);
    fetch(l, program, LOG_SIZE, log, &log_bytes);
    if (!status) status = fetch(l, program, ptx ? PTX_SIZE : CUBIN_SIZE, image, bytes);
    ((int (*)(void **))l->f[DESTROY])(&program);
    return status;
}
