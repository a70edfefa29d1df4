//go:build gpu

#include "blas.h"
#include "open.h"

#include <stdlib.h>

// Numbers of cublas_api.h.
enum { MATH_DEFAULT = 0, MATH_TF32 = 3 };

enum { CREATE, DESTROY, VERSION, STREAM, MATH, WORKSPACE, SGEMM, COUNT };

static const char *const names[] = {"cublasCreate_v2", "cublasDestroy_v2", "cublasGetVersion_v2",
                                    "cublasSetStream_v2", "cublasSetMathMode", "cublasSetWorkspace_v2", "cublasSgemm_v2"};

struct mb_library {
    void *f[COUNT];
};

mb_library *mb_library_open(void *handle, const char **missing) {
    mb_library *l = calloc(1, sizeof *l);
    *missing = l ? ml_fill(handle, names, l->f, COUNT) : "memory";
    if (*missing) {
        free(l);
        return NULL;
    }
    return l;
}

void mb_library_close(mb_library *l) { free(l); }
int mb_create(mb_library *l, void **blas) { return ((int (*)(void **))l->f[CREATE])(blas); }
int mb_destroy(mb_library *l, void *blas) { return ((int (*)(void *))l->f[DESTROY])(blas); }
int mb_version(mb_library *l, void *blas, int *version) { return ((int (*)(void *, int *))l->f[VERSION])(blas, version); }

int mb_setup(mb_library *l, void *blas, void *stream, int tf32) {
    int status = ((int (*)(void *, void *))l->f[STREAM])(blas, stream);
    return status ? status : ((int (*)(void *, int))l->f[MATH])(blas, tf32 ? MATH_TF32 : MATH_DEFAULT);
}

int mb_workspace(mb_library *l, void *blas, void *space, size_t bytes) {
    return ((int (*)(void *, void *, size_t))l->f[WORKSPACE])(blas, space, bytes);
}

int mb_product(mb_library *l, void *blas, int transpose_a, int transpose_b, int m, int n, int k,
               const float *a, int lda, const float *b, int ldb, float *c, int ldc) {
    typedef int sgemm(void *, int, int, int, int, int, const float *, const float *, int, const float *, int, const float *, float *, int);
    static const float one = 1, zero = 0;
    return ((sgemm *)l->f[SGEMM])(blas, transpose_a, transpose_b, m, n, k, &one, a, lda, b, ldb, &zero, c, ldc);
}
