//go:build ignore

// An emulated libcublas.so.12: leading dimensions and buffers are checked, and
// products computed by the definition, in double.
#include "emu.h"

#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 7 };
typedef struct { void *stream; int math; void *space; size_t bytes; } handle;

int cublasCreate_v2(void **h) { *h = calloc(1, sizeof(handle)); return OK; }
int cublasDestroy_v2(void *h) { free(h); return OK; }
int cublasGetVersion_v2(void *h, int *v) { (void)h; *v = 120103; return OK; }
int cublasSetStream_v2(handle *h, void *s) { h->stream = s, h->space = NULL; return OK; } // the workspace goes
int cublasSetWorkspace_v2(handle *h, void *p, size_t bytes) {
    if (!emu_device(p, bytes, 256)) return emu_fault(INVALID_VALUE, "cublas: %zu bytes of workspace", bytes);
    h->space = p, h->bytes = bytes;
    return OK;
}
int cublasSetMathMode(handle *h, int m) { h->math = m; return OK; }

typedef struct { int ta, tb, m, n, k, lda, ldb, ldc; const float *a, *b; float *c; void *space; size_t bytes; } work;

static void compute(void *argument) {
    work *w = argument;
    if (w->space) memset(w->space, 0xab, w->bytes < 4096 ? w->bytes : 4096);
    for (int j = 0; j < w->n; j++)
        for (int i = 0; i < w->m; i++) {
            double sum = 0;
            for (int l = 0; l < w->k; l++)
                sum += (double)w->a[w->ta ? l + i * (size_t)w->lda : i + l * (size_t)w->lda] * w->b[w->tb ? j + l * (size_t)w->ldb : l + j * (size_t)w->ldb];
            w->c[i + j * (size_t)w->ldc] = (float)sum;
        }
}

int cublasSgemm_v2(handle *h, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb,
                   const float *beta, float *c, int ldc) {
    if (ta < 0 || ta > 1 || tb < 0 || tb > 1 || m < 1 || n < 1 || k < 1 || *alpha != 1 || *beta != 0 || lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m)
        return emu_fault(INVALID_VALUE, "sgemm %d %d: %d×%d×%d, leading dimensions %d %d %d", ta, tb, m, n, k, lda, ldb, ldc);
    size_t as = (size_t)lda * (size_t)((ta ? m : k) - 1) + (size_t)(ta ? k : m), bs = (size_t)ldb * (size_t)((tb ? k : n) - 1) + (size_t)(tb ? n : k),
           cs = (size_t)ldc * (size_t)(n - 1) + (size_t)m;
    if (!emu_device(a, 4 * as, 4) || !emu_device(b, 4 * bs, 4) || !emu_device(c, 4 * cs, 4))
        return emu_fault(INVALID_VALUE, "sgemm %d×%d×%d: an operand is not in device memory", m, n, k);
    if (!h->space && emu_capturing(h->stream)) return emu_fault(INVALID_VALUE, "sgemm in a capture without a workspace: it would allocate one for every graph");
    work w = {ta, tb, m, n, k, lda, ldb, ldc, a, b, c, h->space, h->bytes};
    emu_log("sgemm %d %d %d %d %d ld %d %d %d math %d", ta, tb, m, n, k, lda, ldb, ldc, h->math);
    return emu_enqueue(h->stream, compute, &w, sizeof w);
}
