//go:build onednn

// Weight gradients, in bf16 by dot products (vdpbf16ps: every fp32 lane adds
// two products of neighbouring bf16 values), in fp32 by multiply-adds. AVX-512
// without dot products widens bf16 to fp32 as it packs.
//
// The sum runs over pixels, but nhwc has channels side by side, so operands
// are packed into panels of 64 channels, [channels/64][unit][64]. A unit is 4
// bytes a channel. In fp32 it is a pixel; in bf16 (half) it is a pair: two pixels of
// the output (1×1 kernels), or the same pixel of two images (larger kernels),
// so that all taps see aligned pairs, only shifted by whole pixels of an input
// with a border of zeros. One register tile is 6 input × 64 output channels; a
// block of about 128 units of output gradients (32 KB) stays in the first-level
// cache for all taps and tiles.
//
// About 92 % of a core's peak, where oneDNN 2.6 has 40 to 85 %; and sums grow
// over slices, which oneDNN cannot do.
//
// The slow twin, to read first, is wgradReference in kernel_wgrad_test.go.
#include "kernels.h"

#include <string.h>

enum {
    PANEL = 64,       // channels
    BLOCK_UNITS = 128,
    MAX_RUNS = 64,    // runs of a block
};

#define NO_ROW ((size_t)-1)

// panel_width is the channels that the panel from channel c has room for.
static inline size_t panel_width(size_t channels, size_t c) {
    size_t left = channels - c;
    return left >= PANEL ? PANEL : (left + 15) / 16 * 16;
}

static inline size_t padded(size_t channels) { return (channels + 15) / 16 * 16; }

typedef struct {
    const mk_conv *conv;
    int images, input; // input: x is packed, else dy
    int kind;
    size_t channels, units;
    const void *src; // values
    const mk_bn *bn;
    int32_t *dst; // units
} pack_args;

// tile_args is a block of units: runs of output pixels, whose first input
// pixels are at x_run from that of the first run.
typedef struct {
    size_t x_width, dy_width, x_step;
    int runs, run, begin;
    int32_t x_run[MAX_RUNS];
} tile_args;

// input_pixel is where output pixel i of a strided 1×1 kernel reads.
static inline size_t input_pixel(const mk_conv *g, size_t i) {
    size_t image = i / ((size_t)g->oh * g->ow), p = i % ((size_t)g->oh * g->ow);
    return (image * g->ih + p / g->ow * g->stride) * g->iw + p % g->ow * g->stride;
}

static void zero_units(const pack_args *p, size_t first, size_t n) {
    for (size_t c = 0; n && c < p->channels; c += PANEL) {
        size_t width = panel_width(p->channels, c);
        memset(p->dst + p->units * c + first * width, 0, n * width * sizeof *p->dst);
    }
}

#define MK_BODY "kernel_wgrad_body.h"
#include "kernel_each.h"

int mk_wgrad_accepts(const mk_conv *c) {
    if (c->kernel == 1) return c->pad == 0;
    return c->kernel % 2 == 1 && c->kernel <= 7 && c->pad == c->kernel / 2 && c->ow <= BLOCK_UNITS;
}

// A first layer of 3 channels would waste most of a panel.
int mk_wgrad_fits(const mk_conv *c) {
    return mk_level_now() >= MK_AVX512 && mk_wgrad_accepts(c) && c->in >= 16 && c->out >= 16;
}

// is_half says whether panels are of bf16.
static int is_half(const mk_conv *c) { return c->type == MK_BF16 && mk_level_now() != MK_AVX512; }

// grouped is how many units n values take.
static size_t grouped(const mk_conv *c, size_t n) { return is_half(c) ? (n + 1) / 2 : n; }

static size_t x_units(const mk_conv *c, int images) {
    if (c->kernel == 1) return grouped(c, (size_t)images * c->oh * c->ow);
    return grouped(c, images) * (c->ih + 2 * c->pad) * (c->iw + 2 * c->pad);
}

static size_t dy_units(const mk_conv *c, int images) {
    if (c->kernel == 1) return x_units(c, images);
    return grouped(c, images) * c->oh * c->ow;
}

size_t mk_wgrad_x_bytes(const mk_conv *c, int images) { return x_units(c, images) * padded(c->in) * 4; }

size_t mk_wgrad_dy_bytes(const mk_conv *c, int images) { return dy_units(c, images) * padded(c->out) * 4; }

size_t mk_wgrad_sum_bytes(const mk_conv *c) {
    return padded(c->in) * padded(c->out) * c->kernel * c->kernel * sizeof(float);
}

static void pack(const pack_args *p) {
    int half = is_half(p->conv), from_half = p->conv->type == MK_BF16;
#if defined(__x86_64__)
    // The vector forms do whole vectors of channels only.
    if (p->channels % 16 == 0 && half && mk_level_now() == MK_AVX512_BF16) {
        pack_half_avx512bf16(p);
        return;
    }
    if (p->channels % 16 == 0 && !half && mk_level_now() >= MK_AVX512) {
        (from_half ? pack_widened_avx512 : pack_full_avx512)(p);
        return;
    }
#endif
    (half ? pack_half_plain : from_half ? pack_widened_plain : pack_full_plain)(p);
}

void mk_wgrad_pack_x(const mk_conv *c, int images, const void *x, const mk_bn *bn, int relu, void *packed) {
    pack_args p = {.conv = c, .images = images, .input = 1, .channels = c->in, .units = x_units(c, images)};
    p.kind = !bn ? AS_IS_plain : relu ? NORMAL_RELU_plain : NORMAL_plain;
    p.src = x;
    p.bn = bn;
    p.dst = packed;
    pack(&p);
}

void mk_wgrad_pack_dy(const mk_conv *c, int images, const void *dy, void *packed) {
    pack_args p = {.conv = c, .images = images, .channels = c->out, .units = dy_units(c, images)};
    p.kind = AS_IS_plain;
    p.src = dy;
    p.dst = packed;
    pack(&p);
}

// next_block fills in the runs from output row (or, for 1×1, unit) at, and
// returns the row or unit after them. rows are counted through all images.
static size_t next_block(const mk_conv *c, size_t at, size_t end, tile_args *t) {
    if (c->kernel == 1) {
        size_t n = end - at < BLOCK_UNITS ? end - at : BLOCK_UNITS;
        t->runs = 1;
        t->run = (int)n;
        t->x_run[0] = 0;
        return at + n;
    }
    size_t rows = BLOCK_UNITS / c->ow, line = (c->iw + 2 * c->pad) * t->x_width;
    if (rows > MAX_RUNS) rows = MAX_RUNS;
    if (rows > end - at) rows = end - at;
    t->runs = (int)rows;
    t->run = c->ow;
    size_t first = 0;
    for (size_t r = 0; r < rows; r++) {
        size_t image = (at + r) / c->oh, row = (at + r) % c->oh;
        size_t x = (image * (c->ih + 2 * c->pad) + row * c->stride) * line;
        if (r == 0) first = x;
        t->x_run[r] = (int32_t)(x - first);
    }
    return at + rows;
}

// sums are [out panels][in panels][taps][in width][out width].
void mk_wgrad_add(const mk_conv *c, int images, const void *x_packed, const void *dy_packed, int begin, float *sums) {
    size_t xp = x_units(c, images), dp = dy_units(c, images), taps = c->kernel * c->kernel;
    size_t end = c->kernel == 1 ? dp : grouped(c, images) * c->oh;
    int half = is_half(c);
    void (*tiles)(const tile_args *, const int32_t *, const int32_t *, float *) = half ? tiles_plain : tiles_full_plain;
#if defined(__x86_64__)
    if (half && mk_level_now() == MK_AVX512_BF16) tiles = tiles_avx512bf16;
    if (!half && mk_level_now() >= MK_AVX512) tiles = tiles_avx512;
#endif
    tile_args t;
    for (size_t o = 0; o < (size_t)c->out; o += PANEL)
        for (size_t i = 0; i < (size_t)c->in; i += PANEL) {
            t.dy_width = panel_width(c->out, o);
            t.x_width = panel_width(c->in, i);
            t.x_step = c->kernel == 1 ? t.x_width : c->stride * t.x_width;
            const int32_t *x = (const int32_t *)x_packed + xp * i;
            const int32_t *dy = (const int32_t *)dy_packed + dp * o;
            for (size_t at = 0, next; at < end; at = next) {
                next = next_block(c, at, end, &t);
                t.begin = begin && at == 0;
                const int32_t *x_at = x + at * t.x_width, *dy_at = dy + at * t.dy_width;
                size_t line = (c->iw + 2 * c->pad) * t.x_width;
                if (c->kernel > 1) {
                    x_at = x + (at / c->oh * (c->ih + 2 * c->pad) + at % c->oh * c->stride) * line;
                    dy_at = dy + at * c->ow * t.dy_width;
                }
                for (size_t tap = 0; tap < taps; tap++)
                    tiles(&t, x_at + tap / c->kernel * line + tap % c->kernel * t.x_width, dy_at,
                          sums + tap * t.x_width * t.dy_width);
            }
            sums += taps * t.x_width * t.dy_width;
        }
}

// store_plain writes output channels [o0, o1), any.
static void store_plain(const mk_conv *c, size_t o0, size_t o1, int n, const float *const *sums, float *dw) {
    size_t taps = c->kernel * c->kernel;
    for (size_t o = o0; o < o1; o++) {
        size_t op = o / PANEL * PANEL, wide = panel_width(c->out, op);
        for (size_t i = 0; i < (size_t)c->in; i++) {
            size_t ip = i / PANEL * PANEL, deep = panel_width(c->in, ip);
            size_t at = taps * (op * padded(c->in) + ip * wide) + (i - ip) * wide + o - op;
            for (size_t tap = 0; tap < taps; tap++) {
                float total = sums[0][at + tap * deep * wide];
                for (int s = 1; s < n; s++) total += sums[s][at + tap * deep * wide];
                dw[(o * c->in + i) * taps + tap] = total;
            }
        }
    }
}

void mk_wgrad_store(const mk_conv *c, int o0, int o1, int n, const float *const *sums, float *dw) {
    size_t from = o0, to = o1;
#if defined(__x86_64__)
    size_t first = padded(from), last = to / 16 * 16;
    if (mk_level_now() >= MK_AVX512 && c->in % 16 == 0 && first < last) {
        store_plain(c, from, first, n, sums, dw);
        if (mk_level_now() == MK_AVX512)
            store_panels_avx512(c, first, last, n, sums, dw);
        else
            store_panels_avx512bf16(c, first, last, n, sums, dw);
        from = last;
    }
#endif
    store_plain(c, from, to, n, sums, dw);
}
