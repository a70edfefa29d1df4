// What the engine needs of cuBLAS, as C sees it. Functions return cuBLAS's
// status, 0 for success.
#ifndef MOCHI_BLAS_H
#define MOCHI_BLAS_H

#include <stddef.h>

typedef struct mb_library mb_library;

mb_library *mb_library_open(void *handle, const char **missing);
void mb_library_close(mb_library *);

int mb_create(mb_library *, void **blas);
int mb_destroy(mb_library *, void *blas);
int mb_version(mb_library *, void *blas, int *version);
int mb_setup(mb_library *, void *blas, void *stream, int tf32);

// mb_workspace gives the handle device memory, after mb_setup.
int mb_workspace(mb_library *, void *blas, void *space, size_t bytes);

// mb_product is a column-major product c [m×n, ldc] = op(a)·op(b), inner
// dimension k, alpha 1, beta 0.
int mb_product(mb_library *, void *blas, int transpose_a, int transpose_b, int m, int n, int k,
               const float *a, int lda, const float *b, int ldb, float *c, int ldc);

#endif
