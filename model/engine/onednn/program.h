// A compiled program, shared between program.c, which makes it, and exec.c,
// which runs it.
#ifndef MOCHI_PROGRAM_H
#define MOCHI_PROGRAM_H

#include "internal.h"

// A primitive for one size of slice, bound to every thread.
typedef struct {
    int n; // units
    ox_prim *prim;
    ox_call **call; // by thread
} ox_variant;

// What an op needs of the library.
typedef struct {
    int variants;
    ox_variant *variant;
} ox_bound;

// A weight gradient in the library's format: where its elements lie.
typedef struct {
    ox_format *format;
    int32_t *fo, *fi, *ft;
    size_t bytes;
} ox_stored;

// Buffers of one thread.
typedef struct {
    char *scratch;           // tensors of a slice
    void *library;           // the library's scratchpad
    void *x_packed, *dy_packed;
    void *wide[2];           // a slice's input and output in fp32, see ox_engine_open
    float *part;             // a slice's weight gradient, where the library cannot add up
} ox_room;

struct ox_program {
    ox_plan plan;
    ox_state *state;
    ox_engine *e;
    char *arena, *kept;
    ox_room *room;  // by thread
    ox_bound *bound; // by op
    ox_stored *stored; // by layer
    mk_bn *bn;      // by norm
    float *bn_values;
    double **stats, **sums; // by norm·lanes + lane
    double *partials;
    float **weight_sums; // by turn·lanes + lane: phases take turns, so that
    float **bias_sums;   // a store may still read while the next phase adds
    float *statistics;
    int live, *lane; // lanes that hold samples
    int status, status_op;
    int kernels_only; // a benchmark: convolutions and their gradients, nothing between them
};

// ox_from and ox_to are the samples of a lane.
static inline int ox_from(const ox_plan *p, int lane) { return (int)((int64_t)lane * p->batch / p->lanes); }
static inline int ox_to(const ox_plan *p, int lane) { return (int)((int64_t)(lane + 1) * p->batch / p->lanes); }

// ox_conv is a layer's geometry on a part of a sample.
static inline mk_conv ox_conv(const ox_layer *l, int split) {
    return (mk_conv){.in = l->in, .out = l->out, .kernel = l->kernel, .stride = l->stride, .pad = l->pad,
                     .ih = l->ih / split, .iw = l->iw, .oh = l->oh / split, .ow = l->ow,
                     .type = (mk_type)l->type};
}

// ox_wide says whether a layer of bf16 is computed in fp32.
static inline int ox_wide(const ox_program *p, const ox_layer *l) { return p->e->wide && l->type == MK_BF16; }

// Kinds, tails and spaces of package schedule, modes of package engine: mirror.go
// compares them.
enum {
    OX_IMAGES, OX_CONV, OX_STATS, OX_APPLY, OX_MAXPOOL, OX_AVGPOOL, OX_ADD, OX_RELU, OX_BIAS, OX_NORMALIZE,
    OX_GRADIENT, OX_SUMS, OX_GRAD_APPLY, OX_WEIGHT_GRAD, OX_DATA_GRAD, OX_MAXPOOL_GRAD, OX_AVGPOOL_GRAD,
    OX_RELU_GRAD, OX_BIAS_GRAD, OX_NORMALIZE_GRAD, OX_KINDS
};
enum { OX_FOLD, OX_GRAD_FOLD, OX_STORE_WEIGHTS, OX_STORE_BIAS, OX_TAILS };
enum { OX_ARENA, OX_KEPT, OX_SCRATCH };
enum { OX_TRAIN, OX_FORWARD_ONLY, OX_EVAL };

#endif
