//go:build onednn

// BatchNorm in training. The cost is memory traffic: each pass touches every
// value once, and joins what happens to it there.
#include "kernels.h"

#include <math.h>
#include <string.h>

#define MK_BODY "kernel_bn_body.h"
#include "kernel_each.h"

// SPLIT calls name(type, span, ...) for whole vectors at the level in force,
// then for the remaining channels in plain C.
#define SPLIT(name, ...)                                              \
    do {                                                              \
        size_t whole = channels - channels % mk_lanes();              \
        bn_span span = {rows, channels, 0, whole};                    \
        if (whole) MK_PICK(name)(type, span, __VA_ARGS__);            \
        span.c0 = whole;                                              \
        span.c1 = channels;                                           \
        if (whole < channels) name##_plain(type, span, __VA_ARGS__);  \
    } while (0)

void mk_bn_stats(mk_type type, size_t rows, size_t channels, const void *x, int begin, double *part) {
    if (begin) {
        for (size_t c = 0; c < channels; c++)
            part[c] = type == MK_BF16 ? mk_from_bf16(((const uint16_t *)x)[c]) : ((const float *)x)[c];
        memset(part + channels, 0, 2 * channels * sizeof *part);
    }
    SPLIT(bn_stats, x, part);
}

// The partials are combined as Chan, Golub and LeVeque 1979: means and sums of
// squares around them.
void mk_bn_fold(const mk_bn *bn, size_t channels, size_t c0, size_t c1, int n, const double *const *parts,
                const size_t *rows, float eps, float *stat_mean, float *stat_var) {
    for (size_t c = c0; c < c1; c++) {
        double count = 0, mean = 0, squares = 0;
        for (int i = 0; i < n; i++) {
            if (!rows[i]) continue;
            double m = (double)rows[i], sum = parts[i][channels + c];
            double part_mean = parts[i][c] + sum / m;
            double part_squares = parts[i][2 * channels + c] - sum * sum / m;
            double apart = part_mean - mean, total = count + m;
            mean += apart * m / total;
            squares += part_squares + apart * apart * count * m / total;
            count = total;
        }
        if (squares < 0) squares = 0; // rounding; NaN stays
        double invstd = 1 / sqrt(squares / count + eps);
        bn->mean[c] = (float)mean;
        bn->invstd[c] = (float)invstd;
        bn->scale[c] = (float)(bn->gamma[c] * invstd);
        bn->shift[c] = (float)(bn->beta[c] - mean * (bn->gamma[c] * invstd));
        if (stat_mean) stat_mean[c] = (float)mean;
        if (stat_var) stat_var[c] = (float)(squares / (count - 1));
    }
}

void mk_bn_fold_eval(const mk_bn *bn, size_t channels, const float *mean, const float *var, float eps) {
    for (size_t c = 0; c < channels; c++) {
        double scale = bn->gamma[c] / sqrt((double)var[c] + eps);
        bn->scale[c] = (float)scale;
        bn->shift[c] = (float)(bn->beta[c] - mean[c] * scale);
    }
}

void mk_bn_apply(mk_type type, size_t rows, size_t channels, const void *x, const mk_bn *bn, const void *residual,
                 const mk_bn *rbn, int relu, void *y) {
    SPLIT(bn_apply, x, bn, residual, rbn, relu, y);
}

void mk_bn_grad_sums(mk_type type, size_t rows, size_t channels, const void *dy, const void *add, mk_mask mask,
                     const void *y, void *gout, int n, const mk_bn_branch *branches, int begin) {
    if (begin)
        for (int i = 0; i < n; i++) memset(branches[i].part, 0, 2 * channels * sizeof(double));
    SPLIT(bn_grad_sums, dy, add, mask, y, gout, n, branches);
}

void mk_bn_grad_fold(const mk_bn *bn, size_t channels, size_t c0, size_t c1, int n, const double *const *parts,
                     size_t rows_total, float *dgamma, float *dbeta) {
    for (size_t c = c0; c < c1; c++) {
        double g = 0, gx = 0;
        for (int i = 0; i < n; i++) {
            g += parts[i][c];
            gx += parts[i][channels + c];
        }
        double invstd = bn->invstd[c], m = (double)rows_total;
        gx *= invstd; // Σ g·x̂
        dgamma[c] = (float)gx;
        dbeta[c] = (float)g;
        double a = bn->gamma[c] * invstd, b = -a * invstd * gx / m;
        bn->a[c] = (float)a;
        bn->b[c] = (float)b;
        bn->k[c] = (float)(-a * g / m - b * bn->mean[c]);
    }
}

void mk_bn_grad_apply(mk_type type, size_t rows, size_t channels, const void *dy, mk_mask mask, const void *y, int n,
                      const mk_bn_branch *branches) {
    SPLIT(bn_grad_apply, dy, mask, y, n, branches);
}
