//go:build onednn

// Formats, element-wise loops, averages, rows of length 1.
#include "kernels.h"

#include <math.h>
#include <string.h>

#define MK_BODY "kernel_move_body.h"
#include "kernel_each.h"

// RANGE calls name(from, to, ...) for whole vectors at the level in force,
// then for the rest in plain C.
#define RANGE(name, n, ...)                                \
    do {                                                   \
        size_t whole = (n) - (n) % mk_lanes();             \
        if (whole) MK_PICK(name)(0, whole, __VA_ARGS__);   \
        name##_plain(whole, n, __VA_ARGS__);               \
    } while (0)

static inline size_t size_of(mk_type type) { return type == MK_BF16 ? 2 : 4; }

static inline const void *at(mk_type type, const void *p, size_t i) { return (const char *)p + i * size_of(type); }

void mk_images(mk_type type, int images, int channels, int padded, size_t pixels, const float *x, void *y) {
    for (int n = 0; n < images; n++, x += channels * pixels) {
        size_t first = n * pixels * padded;
        for (size_t p = 0; p < pixels; p++)
            for (int c = 0; c < padded; c++) {
                float v = c < channels ? x[c * pixels + p] : 0;
                size_t to = first + p * padded + c;
                if (type == MK_BF16)
                    ((uint16_t *)y)[to] = mk_to_bf16(v);
                else
                    ((float *)y)[to] = v;
            }
    }
}

void mk_cast(size_t n, mk_type from, const void *src, mk_type to, void *dst) {
    if (from == to) {
        memmove(dst, src, n * size_of(from));
        return;
    }
    RANGE(cast, n, to, src, dst);
}

void mk_add(mk_type type, size_t n, const void *a, const void *b, void *y) { RANGE(add, n, type, a, b, y); }

void mk_relu(mk_type type, size_t n, const void *x, void *y) { RANGE(relu, n, type, x, y); }

void mk_relu_grad(mk_type type, size_t n, const void *y, const void *dy, void *dx) {
    RANGE(relu_grad, n, type, y, dy, dx);
}

void mk_bias(mk_type type, size_t rows, size_t channels, const void *x, const float *bias, int relu, void *y) {
    RANGE(bias, channels, type, rows, channels, x, bias, relu, y);
}

void mk_bias_grad(mk_type type, size_t rows, size_t channels, const void *dy, int begin, float *db) {
    if (begin) memset(db, 0, channels * sizeof *db);
    RANGE(bias_grad, channels, type, rows, channels, dy, db);
}

void mk_avgpool(mk_type type, int images, size_t pixels, size_t channels, const void *x, mk_type to, void *y) {
    for (int n = 0; n < images; n++)
        RANGE(avgpool, channels, type, pixels, channels, at(type, x, n * pixels * channels), to,
              (void *)at(to, y, n * channels));
}

void mk_avgpool_grad(mk_type type, int images, size_t pixels, size_t channels, mk_type from, const void *dy, void *dx) {
    for (int n = 0; n < images; n++)
        RANGE(avgpool_grad, channels, type, pixels, channels, from, at(from, dy, n * channels),
              (void *)at(type, dx, n * pixels * channels));
}

static const double smallest_norm = 1e-12;

void mk_l2norm(size_t rows, size_t channels, const float *x, float *y, float *norms) {
    for (size_t r = 0; r < rows; r++, x += channels, y += channels) {
        double squares = 0;
        for (size_t c = 0; c < channels; c++) squares += (double)x[c] * x[c];
        double norm = sqrt(squares);
        if (norm < smallest_norm) norm = smallest_norm;
        for (size_t c = 0; c < channels; c++) y[c] = (float)(x[c] / norm);
        norms[r] = (float)norm;
    }
}

void mk_l2norm_grad(size_t rows, size_t channels, const float *y, const float *norms, const float *dy, float *dx) {
    for (size_t r = 0; r < rows; r++, y += channels, dy += channels, dx += channels) {
        double along = 0;
        if (norms[r] > (float)smallest_norm)
            for (size_t c = 0; c < channels; c++) along += (double)y[c] * dy[c];
        for (size_t c = 0; c < channels; c++) dx[c] = (float)((dy[c] - y[c] * along) / norms[r]);
    }
}
