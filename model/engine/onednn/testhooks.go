//go:build onednn && testhooks

package onednn

// What tests need of the C side, which test files cannot call themselves: the
// kernels one by one, allocations that fail, convolutions without the rest. The
// tag testhooks keeps it out of every other build.
//
// Values of an activation are []float32 or, in bf16, []uint16; a BatchNorm is
// one slice of nine vectors [channels] in the order of the fields of mk_bn.

/*
#cgo CFLAGS: -DMOCHI_TESTHOOKS
#include "exec.h"
#include "kernels.h"

static mk_bn bn_of(float *v, size_t c) {
    mk_bn bn = {v, v + c, v + 2 * c, v + 3 * c, v + 4 * c, v + 5 * c, v + 6 * c, v + 7 * c, v + 8 * c};
    return bn;
}

static void bridge_fold(float *bn, size_t c, int n, const double *parts, const size_t *rows, float eps,
                        float *mean, float *var) {
    mk_bn b = bn_of(bn, c);
    const double *p[16];
    for (int i = 0; i < n; i++) p[i] = parts + 3 * c * i;
    mk_bn_fold(&b, c, 0, c / 2, n, p, rows, eps, mean, var);
    mk_bn_fold(&b, c, c / 2, c, n, p, rows, eps, mean, var);
}

static void bridge_fold_eval(float *bn, size_t c, const float *mean, const float *var, float eps) {
    mk_bn b = bn_of(bn, c);
    mk_bn_fold_eval(&b, c, mean, var, eps);
}

static void bridge_apply(mk_type t, size_t rows, size_t c, const void *x, float *bn, const void *r, float *rbn,
                         int relu, void *y) {
    mk_bn b = bn_of(bn, c), rb = bn_of(rbn, c);
    mk_bn_apply(t, rows, c, x, &b, r, rbn ? &rb : 0, relu, y);
}

static void bridge_grad(int apply, mk_type t, size_t rows, size_t c, const void *dy, const void *add, mk_mask mask,
                        const void *y, void *gout, int n, float *bn0, const void *x0, double *part0, void *dx0,
                        float *bn1, const void *x1, double *part1, void *dx1, int begin) {
    mk_bn b0 = bn_of(bn0, c), b1 = bn_of(bn1, c);
    mk_bn_branch branches[2] = {{&b0, x0, part0, dx0}, {&b1, x1, part1, dx1}};
    if (apply)
        mk_bn_grad_apply(t, rows, c, dy, mask, y, n, branches);
    else
        mk_bn_grad_sums(t, rows, c, dy, add, mask, y, gout, n, branches, begin);
}

static void bridge_grad_fold(float *bn, size_t c, int n, const double *parts, size_t rows, float *dgamma,
                             float *dbeta) {
    mk_bn b = bn_of(bn, c);
    const double *p[16];
    for (int i = 0; i < n; i++) p[i] = parts + 2 * c * i;
    mk_bn_grad_fold(&b, c, 0, c / 2, n, p, rows, dgamma, dbeta);
    mk_bn_grad_fold(&b, c, c / 2, c, n, p, rows, dgamma, dbeta);
}

static void bridge_pack_x(const mk_conv *g, int images, const void *x, float *bn, int relu, void *packed) {
    mk_bn b = bn_of(bn, g->in);
    mk_wgrad_pack_x(g, images, x, bn ? &b : 0, relu, packed);
}

static void bridge_store(const mk_conv *g, int n, const float *sums, float *dw) {
    const float *s[8];
    for (int i = 0; i < n; i++) s[i] = sums + mk_wgrad_sum_bytes(g) / 4 * i;
    mk_wgrad_store(g, 0, g->out / 3, n, s, dw);
    mk_wgrad_store(g, g->out / 3, g->out, n, s, dw);
}

static void bridge_update_copies(const mk_sgd *s, const float *g, float *v, float *q, float *k, mk_type type, int out,
                                 int in, int taps, const int32_t *fo, const int32_t *fi, const int32_t *ft,
                                 void *from_query, void *from_key) {
    mk_layout l = {type, out, in, taps, fo, fi, ft};
    mk_copy copies[2] = {{&l, 0, from_query}, {&l, 1, from_key}};
    int half = out / 2 / 16 * 16;
    mk_update_copies(0, half, s, g, v, q, k, 2, copies);
    mk_update_copies(half, out, s, g, v, q, k, 2, copies);
}

static void bridge_layout_copy(mk_type type, int out, int in, int taps, const int32_t *fo, const int32_t *fi,
                               const int32_t *ft, const float *w, void *dst) {
    mk_layout l = {type, out, in, taps, fo, fi, ft};
    mk_layout_copy(&l, 0, out, w, dst);
}

static void bridge_maxpool(mk_type t, const mk_pool *p, int images, const void *x, float *bn, void *y, uint8_t *arg) {
    mk_bn b = bn_of(bn, p->channels);
    mk_maxpool(t, p, images, x, bn ? &b : 0, y, arg);
}
*/
import "C"

import "unsafe"

// Levels, as mk_level.
const (
	mkPlain = iota
	mkAVX2
	mkAVX512
	mkAVX512BF16
)

// Masks, as mk_mask.
const (
	mkMaskNone = iota
	mkMaskSelf
	mkMaskOutput
)

func mkSetLevel(cap int) int { return int(C.mk_level_set(C.mk_level(cap))) }
func mkBestLevel() int       { return int(C.mk_level_best()) }
func mkLevelName(l int) string {
	return C.GoString(C.mk_level_name(C.mk_level(l)))
}

// mkActivation is []float32 or []uint16 (bf16); of copies of weights, []mkWide too.
type mkActivation interface{ ~float32 | ~uint16 }

// mkWide is a float32 with a value of bf16.
type mkWide float32

func mkTypeOf[T mkActivation]() C.mk_type {
	switch any(*new(T)).(type) {
	case uint16:
		return C.MK_BF16
	case mkWide:
		return C.MK_WIDE
	}
	return C.MK_F32
}

func mkAt[T any](s []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }

func mkFloats(s []float32) *C.float   { return (*C.float)(mkAt(s)) }
func mkDoubles(s []float64) *C.double { return (*C.double)(mkAt(s)) }

func mkTruth(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

func mkBNStats[T mkActivation](rows, channels int, x []T, begin bool, part []float64) {
	C.mk_bn_stats(mkTypeOf[T](), C.size_t(rows), C.size_t(channels), mkAt(x), mkTruth(begin), mkDoubles(part))
}

func mkBNFold(bn []float32, channels int, parts []float64, rows []uint64, eps float32, mean, variance []float32) {
	C.bridge_fold(mkFloats(bn), C.size_t(channels), C.int(len(rows)), mkDoubles(parts), (*C.size_t)(mkAt(rows)), C.float(eps),
		mkFloats(mean), mkFloats(variance))
}

func mkBNFoldEval(bn []float32, channels int, mean, variance []float32, eps float32) {
	C.bridge_fold_eval(mkFloats(bn), C.size_t(channels), mkFloats(mean), mkFloats(variance), C.float(eps))
}

func mkBNApply[T mkActivation](rows, channels int, x []T, bn []float32, residual []T, rbn []float32, relu bool, y []T) {
	C.bridge_apply(mkTypeOf[T](), C.size_t(rows), C.size_t(channels), mkAt(x), mkFloats(bn), mkAt(residual), mkFloats(rbn),
		mkTruth(relu), mkAt(y))
}

// mkBranch is mk_bn_branch.
type mkBranch[T mkActivation] struct {
	bn    []float32
	x, dx []T
	part  []float64
}

func mkBNGrad[T mkActivation](apply bool, rows, channels int, dy, add []T, mask int, y, gout []T, branches []mkBranch[T], begin bool) {
	var b [2]mkBranch[T]
	copy(b[:], branches)
	C.bridge_grad(mkTruth(apply), mkTypeOf[T](), C.size_t(rows), C.size_t(channels), mkAt(dy), mkAt(add), C.mk_mask(mask), mkAt(y),
		mkAt(gout), C.int(len(branches)),
		mkFloats(b[0].bn), mkAt(b[0].x), mkDoubles(b[0].part), mkAt(b[0].dx),
		mkFloats(b[1].bn), mkAt(b[1].x), mkDoubles(b[1].part), mkAt(b[1].dx), mkTruth(begin))
}

func mkBNGradFold(bn []float32, channels int, parts []float64, n, rows int, dgamma, dbeta []float32) {
	C.bridge_grad_fold(mkFloats(bn), C.size_t(channels), C.int(n), mkDoubles(parts), C.size_t(rows), mkFloats(dgamma), mkFloats(dbeta))
}

// mkConv is mk_conv.
type mkConv struct {
	in, out, kernel, stride, pad, ih, iw, oh, ow int
	bf16                                         bool
}

func (s mkConv) c() *C.mk_conv {
	t := C.mk_type(C.MK_F32)
	if s.bf16 {
		t = C.MK_BF16
	}
	return &C.mk_conv{C.int(s.in), C.int(s.out), C.int(s.kernel), C.int(s.stride), C.int(s.pad),
		C.int(s.ih), C.int(s.iw), C.int(s.oh), C.int(s.ow), t}
}

func mkWgradFits(s mkConv) bool    { return C.mk_wgrad_fits(s.c()) != 0 }
func mkWgradAccepts(s mkConv) bool { return C.mk_wgrad_accepts(s.c()) != 0 }

// mkWgradSizes are the sizes of the packed operands, in elements of the
// activations' type whatever is packed, and the elements of the sums.
func mkWgradSizes(s mkConv, images int) (x, dy, sums int) {
	c := s.c()
	size := 4
	if s.bf16 {
		size = 2
	}
	return int(C.mk_wgrad_x_bytes(c, C.int(images))) / size, int(C.mk_wgrad_dy_bytes(c, C.int(images))) / size,
		int(C.mk_wgrad_sum_bytes(c)) / 4
}

func mkWgradPackX[T mkActivation](s mkConv, images int, x []T, bn []float32, relu bool, packed []T) {
	C.bridge_pack_x(s.c(), C.int(images), mkAt(x), mkFloats(bn), mkTruth(relu), mkAt(packed))
}

func mkWgradPackDY[T mkActivation](s mkConv, images int, dy, packed []T) {
	C.mk_wgrad_pack_dy(s.c(), C.int(images), mkAt(dy), mkAt(packed))
}

func mkWgradAdd[T mkActivation](s mkConv, images int, x, dy []T, begin bool, sums []float32) {
	C.mk_wgrad_add(s.c(), C.int(images), mkAt(x), mkAt(dy), mkTruth(begin), mkFloats(sums))
}

func mkWgradStore(s mkConv, n int, sums, dw []float32) {
	C.bridge_store(s.c(), C.int(n), mkFloats(sums), mkFloats(dw))
}

// mkSGD is mk_sgd.
type mkSGD struct{ lr, momentum, weightDecay, ema, rate float32 }

func (s mkSGD) c() *C.mk_sgd {
	return &C.mk_sgd{C.float(s.lr), C.float(s.momentum), C.float(s.weightDecay), C.float(s.ema), C.float(s.rate)}
}

func mkUpdate(s mkSGD, grad, velocity, query, key []float32) {
	C.mk_update(C.size_t(len(grad)), s.c(), mkFloats(grad), mkFloats(velocity), mkFloats(query), mkFloats(key))
}

func mkRunning(keep, blend float32, statistic, buffers []float32) {
	C.mk_running(C.size_t(len(buffers)), C.float(keep), C.float(blend), mkFloats(statistic), mkFloats(buffers))
}

func mkLayoutAxis(dim int, stride int64, blocks, dims []int64, f []int32) {
	C.mk_layout_axis(C.int(dim), C.int(len(f)), C.int64_t(stride), C.int(len(blocks)), (*C.int64_t)(mkAt(blocks)),
		(*C.int64_t)(mkAt(dims)), (*C.int32_t)(mkAt(f)))
}

func mkLayoutCopy[T mkActivation](fo, fi, ft []int32, w []float32, dst []T) {
	C.bridge_layout_copy(mkTypeOf[T](), C.int(len(fo)), C.int(len(fi)), C.int(len(ft)),
		(*C.int32_t)(mkAt(fo)), (*C.int32_t)(mkAt(fi)), (*C.int32_t)(mkAt(ft)), mkFloats(w), mkAt(dst))
}

func mkUpdateCopies[T mkActivation](s mkSGD, grad, velocity, query, key []float32, fo, fi, ft []int32, fromQuery, fromKey []T) {
	C.bridge_update_copies(s.c(), mkFloats(grad), mkFloats(velocity), mkFloats(query), mkFloats(key), mkTypeOf[T](),
		C.int(len(fo)), C.int(len(fi)), C.int(len(ft)), (*C.int32_t)(mkAt(fo)), (*C.int32_t)(mkAt(fi)), (*C.int32_t)(mkAt(ft)),
		mkAt(fromQuery), mkAt(fromKey))
}

func mkImages[T mkActivation](n, channels, padded, pixels int, x []float32, y []T) {
	C.mk_images(mkTypeOf[T](), C.int(n), C.int(channels), C.int(padded), C.size_t(pixels), mkFloats(x), mkAt(y))
}

func mkCast[F, T mkActivation](src []F, dst []T) {
	C.mk_cast(C.size_t(len(src)), mkTypeOf[F](), mkAt(src), mkTypeOf[T](), mkAt(dst))
}

// mkPool is mk_pool.
type mkPool struct{ channels, ih, iw, oh, ow, kernel, stride, pad int }

func (p mkPool) c() *C.mk_pool {
	return &C.mk_pool{C.int(p.channels), C.int(p.ih), C.int(p.iw), C.int(p.oh), C.int(p.ow),
		C.int(p.kernel), C.int(p.stride), C.int(p.pad)}
}

func mkMaxPool[T mkActivation](p mkPool, n int, x []T, bn []float32, y []T, arg []uint8) {
	C.bridge_maxpool(mkTypeOf[T](), p.c(), C.int(n), mkAt(x), mkFloats(bn), mkAt(y), (*C.uint8_t)(mkAt(arg)))
}

func mkMaxPoolGrad[T mkActivation](p mkPool, n int, dy []T, arg []uint8, dx []T) {
	C.mk_maxpool_grad(mkTypeOf[T](), p.c(), C.int(n), mkAt(dy), (*C.uint8_t)(mkAt(arg)), mkAt(dx))
}

func mkAvgPool[T, O mkActivation](n, pixels, channels int, x []T, y []O) {
	C.mk_avgpool(mkTypeOf[T](), C.int(n), C.size_t(pixels), C.size_t(channels), mkAt(x), mkTypeOf[O](), mkAt(y))
}

func mkAvgPoolGrad[T, O mkActivation](n, pixels, channels int, dy []O, dx []T) {
	C.mk_avgpool_grad(mkTypeOf[T](), C.int(n), C.size_t(pixels), C.size_t(channels), mkTypeOf[O](), mkAt(dy), mkAt(dx))
}

func mkAdd[T mkActivation](a, b, y []T) {
	C.mk_add(mkTypeOf[T](), C.size_t(len(y)), mkAt(a), mkAt(b), mkAt(y))
}
func mkReLU[T mkActivation](x, y []T) { C.mk_relu(mkTypeOf[T](), C.size_t(len(y)), mkAt(x), mkAt(y)) }
func mkReLUGrad[T mkActivation](y, dy, dx []T) {
	C.mk_relu_grad(mkTypeOf[T](), C.size_t(len(y)), mkAt(y), mkAt(dy), mkAt(dx))
}

func mkBias[T mkActivation](rows int, x []T, b []float32, relu bool, y []T) {
	C.mk_bias(mkTypeOf[T](), C.size_t(rows), C.size_t(len(b)), mkAt(x), mkFloats(b), mkTruth(relu), mkAt(y))
}

func mkBiasGrad[T mkActivation](rows int, dy []T, begin bool, db []float32) {
	C.mk_bias_grad(mkTypeOf[T](), C.size_t(rows), C.size_t(len(db)), mkAt(dy), mkTruth(begin), mkFloats(db))
}

func mkL2Norm(rows, channels int, x, y, norms []float32) {
	C.mk_l2norm(C.size_t(rows), C.size_t(channels), mkFloats(x), mkFloats(y), mkFloats(norms))
}

func mkL2NormGrad(rows, channels int, y, norms, dy, dx []float32) {
	C.mk_l2norm_grad(C.size_t(rows), C.size_t(channels), mkFloats(y), mkFloats(norms), mkFloats(dy), mkFloats(dx))
}

// allocations lets the next n allocations of the executor succeed and the one
// after them fail; n < 0: all succeed.
func allocations(n int) { C.ox_allocations = C.long(n) }

// kernelsOnly makes p time its convolutions alone: see BenchmarkKernelsAlone.
func (p *program) kernelsOnly(on bool) {
	C.ox_program_kernels_only(p.c, mkTruth(on))
}
