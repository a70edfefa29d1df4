//go:build ignore

// An emulated libcudnn.so.8: descriptors are checked when they are made and
// used, buffers against device memory, and convolutions computed by the
// definition, in double.
#include "emu.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, BAD_PARAM = 3, NOT_SUPPORTED = 9 };
enum { FORWARD, DATA, FILTER };

typedef struct { char kind; int set, type, n, c, h, w, pad[2], stride[2], math; } desc; // 't' tensor, 'f' filter, 'c' convolution
typedef struct { char kind; void *stream; } handle;

typedef struct { int algorithm, status; float time; size_t memory; int determinism, math, reserved[3]; } perf;

#ifndef EMU_VERSION
#define EMU_VERSION 8907
#endif
size_t cudnnGetVersion(void) { return EMU_VERSION; }
const char *cudnnGetErrorString(int s) { return s == OK ? "success" : s == BAD_PARAM ? "bad parameter" : "not supported"; }
int cudnnCreate(void **h) { handle *x = calloc(1, sizeof *x); x->kind = 'h'; *h = x; return OK; }
int cudnnDestroy(void *h) { ((handle *)h)->kind = 0; return OK; }
int cudnnSetStream(void *h, void *s) { ((handle *)h)->stream = s; return OK; }

static int create(void **d, char kind) { desc *x = calloc(1, sizeof *x); x->kind = kind; *d = x; return OK; }
static int destroy(desc *d, char kind) {
    if (!d || d->kind != kind) return emu_fault(BAD_PARAM, "cudnn: destroy of no '%c' descriptor", kind);
    d->kind = 0; // kept, so that a later use is seen
    return OK;
}
int cudnnCreateTensorDescriptor(void **d) { return create(d, 't'); }
int cudnnCreateFilterDescriptor(void **d) { return create(d, 'f'); }
int cudnnCreateConvolutionDescriptor(void **d) { return create(d, 'c'); }
int cudnnDestroyTensorDescriptor(desc *d) { return destroy(d, 't'); }
int cudnnDestroyFilterDescriptor(desc *d) { return destroy(d, 'f'); }
int cudnnDestroyConvolutionDescriptor(desc *d) { return destroy(d, 'c'); }

static int describe(desc *d, char kind, int layout, int type, int n, int c, int h, int w) {
    if (!d || d->kind != kind || layout != 1 || (type != 0 && type != 9) || n < 1 || c < 1 || h < 1 || w < 1)
        return emu_fault(BAD_PARAM, "cudnn: '%c' descriptor, layout %d, type %d, %d×%d×%d×%d", kind, layout, type, n, c, h, w);
    d->set = 1, d->type = type, d->n = n, d->c = c, d->h = h, d->w = w;
    return OK;
}
int cudnnSetTensor4dDescriptor(desc *d, int layout, int type, int n, int c, int h, int w) { return describe(d, 't', layout, type, n, c, h, w); }
int cudnnSetFilter4dDescriptor(desc *d, int type, int layout, int k, int c, int h, int w) { return describe(d, 'f', layout, type, k, c, h, w); }
int cudnnSetConvolution2dDescriptor(desc *d, int ph, int pw, int sh, int sw, int dh, int dw, int mode, int type) {
    if (!d || d->kind != 'c' || ph < 0 || pw < 0 || sh < 1 || sw < 1 || dh != 1 || dw != 1 || mode != 1 || type != 0)
        return emu_fault(BAD_PARAM, "cudnn: convolution, dilation %d×%d, mode %d, sums of type %d", dh, dw, mode, type);
    d->set = 1, d->pad[0] = ph, d->pad[1] = pw, d->stride[0] = sh, d->stride[1] = sw;
    return OK;
}
int cudnnSetConvolutionMathType(desc *d, int math) {
    if (!d || d->kind != 'c' || math < 0 || math > 3) return emu_fault(BAD_PARAM, "cudnn: math %d", math);
    d->math = math;
    return OK;
}

// A convolution with its descriptors in the order x, w, conv, y.
typedef struct { int direction; desc x, w, conv, y; } problem;

// gather puts a direction's descriptors into order and checks them.
static int gather(problem *p, int direction, handle *h, desc *a, desc *b, desc *conv, desc *to) {
    desc *x = direction == DATA ? to : a, *w = direction == FORWARD ? b : direction == DATA ? a : to,
         *y = direction == FORWARD ? to : b;
    if (!h || h->kind != 'h' || !h->stream) return emu_fault(BAD_PARAM, "cudnn: a handle without a stream");
    if (!x || !w || !y || !conv || x->kind != 't' || y->kind != 't' || w->kind != 'f' || conv->kind != 'c' || !x->set || !y->set || !w->set || !conv->set)
        return emu_fault(BAD_PARAM, "cudnn: direction %d: descriptors of the wrong kind, or not set", direction);
    int oh = (x->h + 2 * conv->pad[0] - w->h) / conv->stride[0] + 1, ow = (x->w + 2 * conv->pad[1] - w->w) / conv->stride[1] + 1;
    if (x->c != w->c || y->c != w->n || y->n != x->n || y->h != oh || y->w != ow || x->type != w->type || x->type != y->type)
        return emu_fault(BAD_PARAM, "cudnn: %d×%d×%d×%d * %d×%d×%d×%d is not %d×%d×%d×%d", x->n, x->h, x->w, x->c, w->n, w->h, w->w, w->c, y->n, y->h, y->w, y->c);
    *p = (problem){direction, *x, *w, *conv, *y};
    return OK;
}

// Numbers of the offers below: fast but different every time, with a large
// workspace, not implemented, for tensor cores only, and for fp32, which it
// reports as the default math though only FMA (3) is free of TF32. The last is
// good for both and ranked behind them, but the fastest when measured.
enum { RANDOM_BITS, LARGE, UNABLE, TENSOR, PLAIN, STEADY };
static size_t workspace_of(int algorithm, const problem *p) {
    return algorithm == LARGE ? (size_t)64 << 30 : algorithm == STEADY ? 5000 + 8 * (size_t)p->direction : algorithm == TENSOR || algorithm == PLAIN ? 1000 + 8 * (size_t)(p->w.n + p->direction) : 0;
}

static int offers(int direction, handle *h, desc *a, desc *b, desc *conv, desc *to, int room, int *count, perf *out) {
    problem p;
    int status = gather(&p, direction, h, a, b, conv, to);
    if (status) return status;
    perf all[] = {
        {RANDOM_BITS, OK, 1, 0, 0, 0, {0}},
        {LARGE, OK, 2, workspace_of(LARGE, &p), 1, 0, {0}},
        {UNABLE, NOT_SUPPORTED, -1, 0, 1, 0, {0}},
        {TENSOR, OK, 3, workspace_of(TENSOR, &p), 1, 1, {0}},
        {PLAIN, OK, 4, workspace_of(PLAIN, &p), 1, 0, {0}},
        {STEADY, OK, 5, workspace_of(STEADY, &p), 1, 1, {0}},
    };
    *count = 0;
    for (int i = 0; i < 6 && i < room; i++) out[(*count)++] = all[i];
    return OK;
}

#define DIRECTION(name, d)                                                                                                          \
    int cudnnGetConvolution##name##Algorithm_v7(handle *h, desc *a, desc *b, desc *c, desc *to, int room, int *n, perf *out) {     \
        return offers(d, h, a, b, c, to, room, n, out);                                                                             \
    }                                                                                                                               \
    int cudnnGetConvolution##name##WorkspaceSize(handle *h, desc *a, desc *b, desc *c, desc *to, int algorithm, size_t *bytes) {   \
        problem p;                                                                                                                  \
        int status = gather(&p, d, h, a, b, c, to);                                                                                 \
        if (!status && ((algorithm == TENSOR && p.conv.math == 3) || algorithm == UNABLE || algorithm > STEADY)) return NOT_SUPPORTED;                                               \
        if (!status) *bytes = workspace_of(algorithm, &p);                                                                          \
        return status;                                                                                                              \
    }                                                                                                                               \
    int cudnnFindConvolution##name##AlgorithmEx(handle *h, desc *a, const void *pa, desc *b, const void *pb, desc *c, desc *to,    \
                                                void *pto, int room, int *n, perf *out, void *space, size_t bytes) {                \
        return measure(d, h, a, pa, b, pb, c, to, pto, room, n, out, space, bytes);                                                 \
    }                                                                                                                               \
    int cudnnConvolution##name(handle *h, const float *alpha, desc *a, const void *pa, desc *b, const void *pb, desc *c,           \
                               int algorithm, void *space, size_t bytes, const float *beta, desc *to, void *pto) {                  \
        return run(d, h, alpha, a, pa, b, pb, c, algorithm, space, bytes, beta, to, pto);                                           \
    }

typedef struct { problem p; const void *a, *b; void *to, *space; size_t bytes; } work;

static double get(const void *v, size_t i, int type) {
    if (type == 0) return ((const float *)v)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)v)[i] << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static void put(void *v, size_t i, int type, double x) {
    float f = (float)x;
    if (type == 0) { ((float *)v)[i] = f; return; }
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) bits |= 1 << 22;
    else bits += 0x7fff + (bits >> 16 & 1);
    ((uint16_t *)v)[i] = (uint16_t)(bits >> 16);
}

static size_t count(const desc *d) { return (size_t)d->n * (size_t)d->c * (size_t)d->h * (size_t)d->w; }

static void compute(void *argument) {
    work *k = argument;
    problem *p = &k->p;
    if (!emu_device(k->space, k->bytes, 16)) { // a graph may be older than it
        emu_fault(BAD_PARAM, "cudnn: the workspace is gone when the convolution runs");
        return;
    }
    memset(k->space, 0xab, k->bytes);
    desc *out = p->direction == FORWARD ? &p->y : p->direction == DATA ? &p->x : &p->w;
    const void *x = p->direction == DATA ? NULL : k->a, *w = p->direction == FORWARD ? k->b : p->direction == DATA ? k->a : NULL,
               *dy = p->direction == FORWARD ? NULL : k->b;
    double *sum = calloc(count(out), sizeof *sum);
    for (int n = 0; n < p->x.n; n++)
        for (int oy = 0; oy < p->y.h; oy++)
            for (int ox = 0; ox < p->y.w; ox++)
                for (int r = 0; r < p->w.h; r++)
                    for (int s = 0; s < p->w.w; s++) {
                        int iy = oy * p->conv.stride[0] - p->conv.pad[0] + r, ix = ox * p->conv.stride[1] - p->conv.pad[1] + s;
                        if (iy < 0 || ix < 0 || iy >= p->x.h || ix >= p->x.w) continue;
                        size_t xi = (((size_t)n * p->x.h + iy) * p->x.w + ix) * p->x.c, yi = (((size_t)n * p->y.h + oy) * p->y.w + ox) * p->y.c;
                        for (int o = 0; o < p->w.n; o++) {
                            size_t wi = (((size_t)o * p->w.h + r) * p->w.w + s) * p->w.c;
                            for (int c = 0; c < p->w.c; c++) switch (p->direction) {
                                case FORWARD: sum[yi + o] += get(x, xi + c, p->x.type) * get(w, wi + c, p->x.type); break;
                                case DATA: sum[xi + c] += get(dy, yi + o, p->x.type) * get(w, wi + c, p->x.type); break;
                                case FILTER: sum[wi + c] += get(x, xi + c, p->x.type) * get(dy, yi + o, p->x.type); break;
                                }
                        }
                    }
    for (size_t i = 0; i < count(out); i++) put(k->to, i, out->type, sum[i]);
    free(sum);
}

static int run(int direction, handle *h, const float *alpha, desc *a, const void *pa, desc *b, const void *pb, desc *c, int algorithm,
               void *space, size_t bytes, const float *beta, desc *to, void *pto) {
    problem p;
    int status = gather(&p, direction, h, a, b, c, to);
    if (status) return status;
    size_t size = p.x.type ? 2 : 4;
    if (*alpha != 1 || *beta != 0) return emu_fault(BAD_PARAM, "cudnn: alpha %g, beta %g", *alpha, *beta);
    if (algorithm != TENSOR && algorithm != PLAIN && algorithm != STEADY) return emu_fault(BAD_PARAM, "cudnn: algorithm %d was not to be chosen", algorithm);
    if (algorithm == TENSOR ? p.conv.math != 1 : algorithm == PLAIN ? p.conv.math != 3 : p.conv.math != 1 && p.conv.math != 3) return emu_fault(BAD_PARAM, "cudnn: algorithm %d with math %d", algorithm, p.conv.math);
    if (bytes < workspace_of(algorithm, &p) || !emu_device(space, bytes, 16)) return emu_fault(BAD_PARAM, "cudnn: %zu bytes of workspace", bytes);
    if (!emu_device(pa, size * count(a), 16) || !emu_device(pb, size * count(b), 16) || !emu_device(pto, size * count(to), 16))
        return emu_fault(BAD_PARAM, "cudnn: direction %d: an operand is not in device memory, or not at a multiple of 16 bytes", direction);
    work k = {p, pa, pb, pto, space, bytes};
    static const char *const name[] = {"forward", "data", "filter"};
    emu_log("conv %s x %d,%d,%d,%d w %d,%d,%d y %d,%d,%d,%d type %d algorithm %d math %d", name[direction], p.x.n, p.x.h, p.x.w, p.x.c, p.w.n, p.w.h, p.w.c, p.y.n, p.y.h, p.y.w, p.y.c, p.x.type, algorithm, p.conv.math);
    return emu_enqueue(h->stream, compute, &k, sizeof k);
}

typedef struct { void *to; size_t bytes; } scribble;
static void do_scribble(void *argument) { scribble *s = argument; memset(s->to, 0x7f, s->bytes); }

// measure offers the algorithms for which there is room, the fastest first, and
// leaves its traces in the output.
static int measure(int direction, handle *h, desc *a, const void *pa, desc *b, const void *pb, desc *c, desc *to, void *pto,
                   int room, int *found, perf *out, void *space, size_t bytes) {
    problem p;
    int status = gather(&p, direction, h, a, b, c, to);
    if (status) return status;
    size_t size = p.x.type ? 2 : 4;
    if (!emu_device(pa, size * count(a), 16) || !emu_device(pb, size * count(b), 16) || !emu_device(pto, size * count(to), 16) || !emu_device(space, bytes, 16))
        return emu_fault(BAD_PARAM, "cudnn: measuring direction %d: an operand or the workspace is not in device memory", direction);
    perf all[] = {
        {RANDOM_BITS, OK, 0.1f, 0, 0, 0, {0}},
        {STEADY, OK, 0.2f, workspace_of(STEADY, &p), 1, 1, {0}},
        {TENSOR, OK, 0.3f, workspace_of(TENSOR, &p), 1, 1, {0}},
        {PLAIN, OK, 0.4f, workspace_of(PLAIN, &p), 1, 0, {0}},
        {LARGE, NOT_SUPPORTED, -1, workspace_of(LARGE, &p), 1, 0, {0}},
    };
    *found = 0;
    for (int i = 0; i < 5 && *found < room; i++)
        if (all[i].memory <= bytes || all[i].status) out[(*found)++] = all[i];
    emu_log("measure direction %d x %d,%d,%d,%d w %d,%d,%d type %d", direction, p.x.n, p.x.h, p.x.w, p.x.c, p.w.n, p.w.h, p.w.c, p.x.type);
    scribble s = {pto, size * count(to)};
    return emu_enqueue(h->stream, do_scribble, &s, sizeof s);
}

DIRECTION(Forward, FORWARD)
DIRECTION(BackwardData, DATA)
DIRECTION(BackwardFilter, FILTER)
