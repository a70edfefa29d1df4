// Own kernels of the CPU engine: what oneDNN does not do, or does slower.
//
// Every function works on the calling thread, on one slice of a layer, and
// allocates nothing; threads, slices and barriers are the executor's. Tensors
// are nhwc: [rows][channels], rows = images·height·width, any number of rows
// and channels, no alignment needed. "Activations" are fp32 or bf16, per call
// (mk_type); statistics, coefficients, weights' masters and sums are fp32 or
// double.
//
// Each family has one body in plain vector macros (kernel_vec.h), compiled for
// several instruction sets; the best one that the CPU has is taken at run
// time. On one level the same call gives the same bits; levels differ in the
// last bits, where they fuse multiply and add or sum in another order.
#ifndef MOCHI_KERNELS_H
#define MOCHI_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    MK_F32 = 0,
    MK_BF16 = 1,
    MK_WIDE = 2, // fp32 that holds values of bf16: working copies of weights only
} mk_type;

// ---- Dispatch (kernel_level.c) ----

typedef enum {
    MK_PLAIN = 0,       // C
    MK_AVX2 = 1,        // AVX2, FMA
    MK_AVX512 = 2,      // AVX-512 F, BW, VL, DQ
    MK_AVX512_BF16 = 3, // and its bf16 dot products
} mk_level;

// mk_level_best is the highest level that this CPU and system have.
mk_level mk_level_best(void);
// mk_level_set caps the level (for tests); it returns the one now in force,
// at most the best. Not while kernels run.
mk_level mk_level_set(mk_level cap);
// mk_level_now is the level in force.
mk_level mk_level_now(void);
// mk_level_name is "plain C", "AVX2", "AVX-512" or "AVX-512 BF16".
const char *mk_level_name(mk_level level);
// mk_flush_denormals makes the calling thread treat denormals as zero.
void mk_flush_denormals(void);

// ---- BatchNorm in training (kernel_bn.c) ----
//
// A layer's forward: mk_bn_stats on every slice of the convolution's output,
// barrier, mk_bn_fold (each thread a part of the channels), barrier,
// mk_bn_apply wherever the normalised output is needed, as often as needed.
// Backward: mk_bn_grad_sums on every slice, barrier, mk_bn_grad_fold, barrier,
// mk_bn_grad_apply.

// mk_bn is one BatchNorm layer: vectors [channels], owned by the caller.
typedef struct {
    const float *gamma, *beta;
    float *mean, *invstd; // written by mk_bn_fold; invstd = 1/√(σ²+ε), σ² biased
    float *scale, *shift; // by mk_bn_fold: y = x·scale + shift
    float *a, *b, *k;     // by mk_bn_grad_fold: dx = a·g + b·x + k
} mk_bn;

// mk_bn_stats adds a slice x [rows][channels] to a partial sum, part
// [3][channels]: a shift (the first row's value), Σ(x−shift), Σ(x−shift)².
// begin starts the partial; rows ≥ 1 then. Different partials may have
// different shifts.
void mk_bn_stats(mk_type type, size_t rows, size_t channels, const void *x, int begin, double *part);

// mk_bn_fold combines n partials of rows[i] rows each, in that order, for the
// channels [c0, c1): writes mean, invstd, scale and shift of bn and, unless
// NULL, the statistics of the running averages: stat_mean, and stat_var with
// Bessel's correction. The rows together must be ≥ 2.
void mk_bn_fold(const mk_bn *bn, size_t channels, size_t c0, size_t c1, int n, const double *const *parts,
                const size_t *rows, float eps, float *stat_mean, float *stat_var);

// mk_bn_fold_eval sets scale and shift from running statistics.
void mk_bn_fold_eval(const mk_bn *bn, size_t channels, const float *mean, const float *var, float eps);

// mk_bn_apply computes y = f(x·scale + shift + r), where r is nothing
// (residual NULL), residual (rbn NULL) or residual·rscale + rshift, and f is
// ReLU or nothing. y may be x or residual.
void mk_bn_apply(mk_type type, size_t rows, size_t channels, const void *x, const mk_bn *bn, const void *residual,
                 const mk_bn *rbn, int relu, void *y);

// mk_mask says where a ReLU let values pass in forward.
typedef enum {
    MK_MASK_NONE = 0,
    MK_MASK_SELF = 1,   // x·scale + shift > 0, of the first branch: ReLU right after its BatchNorm
    MK_MASK_OUTPUT = 2, // y > 0, from the stored output of a residual join
} mk_mask;

// mk_bn_branch is a BatchNorm that the gradient flows into.
typedef struct {
    const mk_bn *bn;
    const void *x; // forward's input of the BatchNorm
    double *part;  // mk_bn_grad_sums: [2][channels], Σg and Σg·(x−mean)
    void *dx;      // mk_bn_grad_apply: the gradient of x; may be the gradient read
} mk_bn_branch;

// mk_bn_grad_sums takes a slice's gradient dy (+ add, unless NULL), masks it:
// g = mask·(dy + add), writes g to gout unless NULL (gout may be dy or add),
// and adds to the sums of n (0, 1 or 2) branches. Sums are of the values as
// rounded to type. y is read only for MK_MASK_OUTPUT. begin starts the sums.
void mk_bn_grad_sums(mk_type type, size_t rows, size_t channels, const void *dy, const void *add, mk_mask mask,
                     const void *y, void *gout, int n, const mk_bn_branch *branches, int begin);

// mk_bn_grad_fold combines n partials of a branch, rows_total rows together,
// for the channels [c0, c1): dgamma and dbeta (overwritten) and bn's a, b, k.
void mk_bn_grad_fold(const mk_bn *bn, size_t channels, size_t c0, size_t c1, int n, const double *const *parts,
                     size_t rows_total, float *dgamma, float *dbeta);

// mk_bn_grad_apply computes dx = a·g + b·x + k of n (1 or 2) branches, where
// g = mask·dy. Where mk_bn_grad_sums wrote g out, mask is MK_MASK_NONE.
// = γ·invstd·(g − mean(g) − x̂·mean(g·x̂))
void mk_bn_grad_apply(mk_type type, size_t rows, size_t channels, const void *dy, mk_mask mask, const void *y, int n,
                      const mk_bn_branch *branches);

// ---- Weight gradients (kernel_wgrad.c) ----
//
//	dW[o][i][r][s] = Σ over images and output pixels of dy[o]·x[i] under tap (r, s)
//
// Both operands are first packed; then sums grow in fp32 over the slices of a thread, in an
// own layout, and are written out once, summed over threads.

// mk_conv is the geometry of a convolution on a slice: heights and widths are
// those of the slice, if that is less than an image (1×1 kernels only: rows of
// pixels).
typedef struct {
    int in, out;        // channels
    int kernel;         // square
    int stride, pad;    // pad is kernel/2
    int ih, iw, oh, ow; // pixels
    mk_type type;       // of x and dy
} mk_conv;

// mk_wgrad_fits says whether these kernels do this convolution, and faster
// than the library at the level in force, MK_AVX512 at least. All below works
// at every level where the geometry is accepted, mk_wgrad_accepts; the level
// must not change between packing and storing.
int mk_wgrad_fits(const mk_conv *c);
int mk_wgrad_accepts(const mk_conv *c);

// Sizes, in bytes, of the packed operands of a slice of images and of the sums.
size_t mk_wgrad_x_bytes(const mk_conv *c, int images);
size_t mk_wgrad_dy_bytes(const mk_conv *c, int images);
size_t mk_wgrad_sum_bytes(const mk_conv *c);

// mk_wgrad_pack_x packs x [images][ih][iw][in], as it is (bn NULL) or
// normalised on the way: [relu](x·scale + shift), rounded as mk_bn_apply
// does. In bf16 a slice of larger kernels should have an even number of images:
// they are summed in pairs.
void mk_wgrad_pack_x(const mk_conv *c, int images, const void *x, const mk_bn *bn, int relu, void *packed);

// mk_wgrad_pack_dy packs the gradient of the output, dy [images][oh][ow][out].
void mk_wgrad_pack_dy(const mk_conv *c, int images, const void *dy, void *packed);

// mk_wgrad_add adds a slice to sums; begin overwrites them.
void mk_wgrad_add(const mk_conv *c, int images, const void *x_packed, const void *dy_packed, int begin, float *sums);

// mk_wgrad_store writes the total of n sums as dw [out][in][kernel][kernel],
// output channels [o0, o1) only.
void mk_wgrad_store(const mk_conv *c, int o0, int o1, int n, const float *const *sums, float *dw);

// ---- Update (kernel_update.c) ----

// mk_sgd is engine.Update's scalars. rate is LARS's q of a tensor, 1 in SGD.
typedef struct {
    float lr, momentum, weight_decay, ema; // ema: m of the key encoder
    float rate;
} mk_sgd;

// mk_update is one step on n parameters, to the bit as engine.Update says:
// every operation rounded, none fused.
void mk_update(size_t n, const mk_sgd *s, const float *grad, float *velocity, float *query, float *key);

// mk_running is running ← (1−blend)·running + blend·statistic, unfused; keep
// is (1−blend) as the caller's language rounds it.
void mk_running(size_t n, float keep, float blend, const float *statistic, float *running);

// mk_layout is where oneDNN wants the elements of a weight: element
// (o, i, tap) of [out][in][taps] lies at fo[o] + fi[i] + ft[tap] elements.
// Every blocked format of oneDNN without padding tricks is of that form.
// Tables are the caller's.
typedef struct {
    mk_type type;
    int out, in, taps;
    const int32_t *fo, *fi, *ft;
} mk_layout;

// mk_layout_axis fills a table f [size] of one dimension of a blocked format,
// from the fields of oneDNN's blocking descriptor: strides[dim], and the inner
// blocks (outermost first) with the dimension each belongs to.
void mk_layout_axis(int dim, int size, int64_t stride, int inner, const int64_t *blocks, const int64_t *dims,
                    int32_t *f);

// mk_layout_copy writes output channels [o0, o1) of w [out][in][taps] fp32 to
// dst in the layout. Elements of dst that no weight maps to are not touched.
void mk_layout_copy(const mk_layout *l, int o0, int o1, const float *w, void *dst);

// mk_copy is a working copy: of the query's or the key's weights.
typedef struct {
    const mk_layout *layout;
    int key;
    void *dst;
} mk_copy;

// mk_update_copies does mk_update on output channels [o0, o1) of one weight
// (pointers to its first element) and refreshes n working copies, a few
// channels at a time, so that masters are read once.
void mk_update_copies(int o0, int o1, const mk_sgd *s, const float *grad, float *velocity, float *query, float *key,
                      int n, const mk_copy *copies);

// ---- Everything else (kernel_move.c, kernel_pool.c) ----

// mk_images turns x [images][channels][pixels] fp32 into y
// [images][pixels][padded] of type; channels from channels to padded are zero.
void mk_images(mk_type type, int images, int channels, int padded, size_t pixels, const float *x, void *y);

// mk_cast converts n values; to bf16 it rounds to nearest, ties to even, and
// NaN stays NaN. dst may be src only when the types are equal.
void mk_cast(size_t n, mk_type from, const void *src, mk_type to, void *dst);

// mk_pool is the geometry of a maximum over square windows; padding is −∞.
typedef struct {
    int channels, ih, iw, oh, ow;
    int kernel, stride, pad; // kernel ≤ 15
} mk_pool;

// mk_maxpool computes y [images][oh][ow][channels] and, unless arg is NULL,
// in arg (as many bytes as y has values) which tap of its window each maximum
// came from: the first in row order, or the first NaN. With bn it pools
// ReLU(x·scale + shift), rounded to type, without storing that.
void mk_maxpool(mk_type type, const mk_pool *p, int images, const void *x, const mk_bn *bn, void *y, uint8_t *arg);
// mk_maxpool_grad computes dx from dy and arg.
void mk_maxpool_grad(mk_type type, const mk_pool *p, int images, const void *dy, const uint8_t *arg, void *dx);

// mk_avgpool computes y [images][channels], the mean over pixels of
// x [images][pixels][channels], in fp32 or (to) bf16; mk_avgpool_grad its
// gradient, dy / pixels everywhere.
void mk_avgpool(mk_type type, int images, size_t pixels, size_t channels, const void *x, mk_type to, void *y);
void mk_avgpool_grad(mk_type type, int images, size_t pixels, size_t channels, mk_type from, const void *dy, void *dx);

// mk_add computes y = a + b; mk_relu y = max(x, 0), NaN stays;
// mk_relu_grad dx = dy where y > 0, else 0. n values; outputs may be inputs.
void mk_add(mk_type type, size_t n, const void *a, const void *b, void *y);
void mk_relu(mk_type type, size_t n, const void *x, void *y);
void mk_relu_grad(mk_type type, size_t n, const void *y, const void *dy, void *dx);

// mk_bias computes y = f(x + bias), bias [channels] fp32, f ReLU or nothing;
// mk_bias_grad the column sums of dy, overwritten or (begin 0) added to.
void mk_bias(mk_type type, size_t rows, size_t channels, const void *x, const float *bias, int relu, void *y);
void mk_bias_grad(mk_type type, size_t rows, size_t channels, const void *dy, int begin, float *db);

// mk_l2norm computes y = x / max(‖x‖₂, 1e-12) for every row, fp32, and keeps
// the divisors in norms; mk_l2norm_grad dx = (dy − y·(y·dy)) / ‖x‖ (dy / 1e-12
// where the norm was cut off). dx may be dy.
void mk_l2norm(size_t rows, size_t channels, const float *x, float *y, float *norms);
void mk_l2norm_grad(size_t rows, size_t channels, const float *y, const float *norms, const float *dy, float *dx);

#ifdef __cplusplus
}
#endif
#endif
