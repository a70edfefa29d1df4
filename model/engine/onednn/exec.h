// The executor: engine, state and programs in C. Go plans (package schedule),
// fills an ox_plan, and then needs one call for a whole forward or backward.
//
// Functions that can fail return 0 for success, or NULL for no result, and a
// message in err.
#ifndef MOCHI_EXEC_H
#define MOCHI_EXEC_H

#include "kernels.h"
#include "memory.h"

#include <stddef.h>
#include <stdint.h>

// ---- Engine: threads and the library (engine.c) ----

typedef struct ox_engine ox_engine;

// ox_engine_open starts threads. wide says that convolutions of bf16 are done
// in fp32, on widened slices and copies of weights, and rounded.
ox_engine *ox_engine_open(int threads, int wide, char *err);
void ox_engine_close(ox_engine *e);
void ox_library_version(int *major, int *minor, int *patch);
int ox_library_isa(void); // the instruction sets that the library uses, as a number
// Nanoseconds in convolutions and matrix products, mean over threads.
int64_t ox_engine_kernel_ns(const ox_engine *e);

// c[m,n] = a[m,k]·b[n,k]ᵀ (nt) or a[m,k]·b[k,n], row-major.
int ox_product(ox_engine *e, int nt, int m, int n, int k, const float *a, const float *b, float *c);

// ---- State: parameters and their working copies (state.c) ----

typedef struct ox_state ox_state;

enum { OX_QUERY, OX_KEY, OX_MOMENTUM, OX_QUERY_BUFFERS, OX_KEY_BUFFERS, OX_VECTORS }; // engine.Vector

// ox_state_open allocates zeroed vectors.
ox_state *ox_state_open(ox_engine *e, size_t params, size_t buffers, char *err);
void ox_state_close(ox_state *s);
float *ox_state_vector(ox_state *s, int vector);
// ox_state_refresh renews all working copies after parameters were set.
void ox_state_refresh(ox_state *s);
// ox_rate is what the tensor before end (in the flat parameters) has of its own.
typedef struct {
    size_t end;
    float decay, rate;
} ox_rate;
// ox_state_update is engine.Update, with rates of all tensors in their order.
void ox_state_update(ox_state *s, const mk_sgd *sgd, const ox_rate *rates, int n, const float *grads, float keep, float blend,
                     const float *query_statistics, const float *key_statistics);

// ---- Program (program.c, exec.c) ----

// The structures below mirror package schedule; see there.
typedef struct {
    int32_t space, type, h, w, c;
    int64_t offset;
} ox_tensor;

typedef struct {
    int32_t kind, in[5], out[2], norm[2], layer, relu, mask;
} ox_op;

typedef struct {
    int32_t in, out, ih, iw, oh, ow, kernel, stride, pad, linear, pool, type, own;
    int64_t weight, bias; // offsets in the parameters; −1 where there is none
} ox_layer;

typedef struct {
    int32_t channels, pixels;
    int64_t gamma, beta; // offsets in the parameters
    int64_t mean, var;   // offsets in the buffers
} ox_norm;

typedef struct {
    int32_t kind, index;
} ox_tail;

typedef struct {
    int32_t first, n;
} ox_slice;

typedef struct {
    int32_t op, ops, tail, tails; // first and number
    int32_t split;
    int32_t slice; // its slices: those of lane l are slice_lane[slice+l] … [slice+l+1]
} ox_phase;

// ox_plan is filled by the caller; arrays are as long as the counts say.
typedef struct {
    int32_t batch, lanes, encoder, mode, type;
    int32_t tensors, ops, layers, norms, tails, phases, forward; // forward: number of forward phases
    int32_t slices;
    ox_tensor *tensor;
    ox_op *op;
    ox_layer *layer;
    ox_norm *norm;
    ox_tail *tail;
    ox_phase *phase;
    ox_slice *slice;
    int32_t *lane_slice; // phases·(lanes+1)
    int64_t arena, kept, scratch;
    int64_t params, buffers;
    int64_t pixels; // of an image, one channel
    int32_t channels;
    float epsilon;
} ox_plan;

// ox_plan_new allocates the arrays for the counts set in p.
int ox_plan_new(ox_plan *p, char *err);
void ox_plan_free(ox_plan *p);

typedef struct ox_program ox_program;

// ox_program_open makes primitives and buffers. It takes the plan's arrays
// over, also when it fails.
ox_program *ox_program_open(ox_state *s, const ox_plan *plan, char *err);
void ox_program_close(ox_program *p);

// ox_program_run runs phases [from, to). images is read by forward phases,
// gradient and grads (written) are used by backward ones. arena lends another
// program's memory; NULL for its own.
int ox_program_run(ox_program *p, ox_program *arena, int from, int to, const float *images, const float *gradient,
                   float *grads, char *err);

// ox_program_kernels_only makes runs leave out everything but convolutions and
// their gradients, for a benchmark: what they compute is then meaningless.
void ox_program_kernels_only(ox_program *p, int on);

const float *ox_program_kept(const ox_program *p, int tensor);
const float *ox_program_statistics(const ox_program *p);

#endif
