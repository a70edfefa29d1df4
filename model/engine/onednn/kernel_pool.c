//go:build onednn

// Max-pooling.
#include "kernels.h"

#define MK_BODY "kernel_pool_body.h"
#include "kernel_each.h"

// There is no AVX2 form.
#if defined(__x86_64__)
#define maxpool_avx2 maxpool_plain
#define maxpool_grad_avx2 maxpool_grad_plain
#endif

static size_t whole_vectors(const mk_pool *p) { return p->channels - p->channels % mk_lanes(); }

void mk_maxpool(mk_type type, const mk_pool *p, int images, const void *x, const mk_bn *bn, void *y, uint8_t *arg) {
    size_t whole = whole_vectors(p);
    if (whole) MK_PICK(maxpool)(type, p, images, 0, whole, x, bn, y, arg);
    maxpool_plain(type, p, images, whole, p->channels, x, bn, y, arg);
}

void mk_maxpool_grad(mk_type type, const mk_pool *p, int images, const void *dy, const uint8_t *arg, void *dx) {
    size_t whole = whole_vectors(p);
    if (whole) MK_PICK(maxpool_grad)(type, p, images, 0, whole, dy, arg, dx);
    maxpool_grad_plain(type, p, images, whole, p->channels, dy, arg, dx);
}
