//go:build onednn

// The optimiser and the working copies of weights.

// Before all else, intrinsics included: a product and a sum are two roundings.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")
#else
#pragma STDC FP_CONTRACT OFF
#endif

#include "kernels.h"

#include <string.h>

enum {
    COLUMNS = 512,    // vectors of 16 output channels between two transpositions
    OUT_AT_A_TIME = 16,
};

// mk_lanes_of says which dimension lies in 16 consecutive (step 1) elements, or
// in every other one (step 2) with pairs of the other dimension between.
typedef struct {
    enum { LANES_NONE, LANES_OUT, LANES_IN } axis;
    int step;
} mk_lanes_of;

// step_of is 1 or 2 where f rises by that within every aligned 16, else 0.
static int step_of(const int32_t *f, int from, int size) {
    int step = f[from + 1] - f[from];
    for (int i = from; i < size; i += 16)
        for (int j = 1; j < 16; j++)
            if (f[i + j] != f[i] + j * step) return 0;
    return step == 1 || step == 2 ? step : 0;
}

static int pairs(const int32_t *f, int from, int size) {
    for (int i = from; i < size; i += 2)
        if (f[i + 1] != f[i] + 1) return 0;
    return 1;
}

static mk_lanes_of lanes_of(const mk_layout *l, int o0) {
    mk_lanes_of none = {LANES_NONE, 0};
    if (l->in % 16 || l->out % 16 || o0 % 16 || l->taps > COLUMNS / 16) return none;
    int out = step_of(l->fo, 0, l->out), in = step_of(l->fi, 0, l->in);
    if (out == 1 || (out == 2 && l->type == MK_BF16 && pairs(l->fi, 0, l->in)))
        return (mk_lanes_of){LANES_OUT, out};
    if (in == 1 || (in == 2 && l->type == MK_BF16 && pairs(l->fo, 0, l->out))) return (mk_lanes_of){LANES_IN, in};
    return none;
}

#define MK_BODY "kernel_update_body.h"
#include "kernel_each.h"

void mk_update(size_t n, const mk_sgd *s, const float *grad, float *velocity, float *query, float *key) {
    size_t whole = n - n % mk_lanes();
    if (whole) MK_PICK(update)(whole, s, grad, velocity, query, key);
    update_plain(n - whole, s, grad + whole, velocity + whole, query + whole, key + whole);
}

void mk_running(size_t n, float keep, float blend, const float *statistic, float *running) {
    size_t whole = n - n % mk_lanes();
    if (whole) MK_PICK(running)(whole, keep, blend, statistic, running);
    running_plain(n - whole, keep, blend, statistic + whole, running + whole);
}

void mk_layout_axis(int dim, int size, int64_t stride, int inner, const int64_t *blocks, const int64_t *dims,
                    int32_t *f) {
    for (int x = 0; x < size; x++) {
        int64_t at = 0, step = 1, rest = x;
        for (int b = inner - 1; b >= 0; b--) { // innermost first
            if (dims[b] == dim) {
                at += rest % blocks[b] * step;
                rest /= blocks[b];
            }
            step *= blocks[b];
        }
        f[x] = (int32_t)(at + rest * stride);
    }
}

void mk_layout_copy(const mk_layout *l, int o0, int o1, const float *w, void *dst) {
    MK_PICK(layout_copy)(l, o0, o1, w, dst);
}

void mk_update_copies(int o0, int o1, const mk_sgd *s, const float *grad, float *velocity, float *query, float *key,
                      int n, const mk_copy *copies) {
    if (o0 >= o1) return;
    size_t row = n ? (size_t)copies[0].layout->in * copies[0].layout->taps : 0;
    for (int o = o0, next; o < o1; o = next) {
        next = o - o % OUT_AT_A_TIME + OUT_AT_A_TIME;
        if (next > o1) next = o1;
        size_t at = o * row;
        mk_update((next - o) * row, s, grad + at, velocity + at, query + at, key + at);
        for (int c = 0; c < n; c++) mk_layout_copy(copies[c].layout, o, next, copies[c].key ? key : query, copies[c].dst);
    }
}
