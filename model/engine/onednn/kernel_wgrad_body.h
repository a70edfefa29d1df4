// Packing and the dot products of weight gradients at one level: panels of
// fp32 (full) at level 2, of bf16 (half) at level 3, both in plain C. Full ones
// are packed from fp32 or from bf16.

// Kinds of value: as it is, [ReLU of] its normal form.
enum { FN(AS_IS), FN(NORMAL), FN(NORMAL_RELU) };

#if MK_LEVEL == 0 || MK_LEVEL >= 2

INLINE vec FN(load)(int type, const void *p, size_t i) {
    return type == MK_BF16 ? V_LOADH((const uint16_t *)p + i) : V_LOAD((const float *)p + i);
}

// value is what W channels from at (channel c) become, not yet rounded.
INLINE vec FN(value)(int type, const pack_args *p, int kind, size_t at, size_t c) {
    vec s = FN(load)(type, p->src, at);
    if (kind == FN(AS_IS)) return s;
    vec v = V_FMA(s, V_LOAD(p->bn->scale + c), V_LOAD(p->bn->shift + c));
    return kind == FN(NORMAL) ? v : V_RELU(v);
}

INLINE void FN(ahead)(int type, const pack_args *p, size_t at) {
    V_AHEAD((const char *)p->src + at * (type == MK_BF16 ? 2 : 4));
}

// pack_single packs the channels [c0, c1) of one pixel into fp32.
INLINE void FN(pack_single)(int type, const pack_args *p, int kind, size_t a, size_t c0, size_t c1, float *dst) {
    for (size_t c = c0; c < c1; c += W) {
        FN(ahead)(type, p, a + c);
        vec v = FN(value)(type, p, kind, a + c, c);
        if (type == MK_BF16 && kind != FN(AS_IS)) v = V_ROUNDH(v);
        V_STORE(dst + c - c0, v);
    }
}

// pack_pair packs those of two pixels a and b (maybe NO_ROW: zeros), bf16.
#if MK_LEVEL == 0
INLINE void FN(pack_pair)(const pack_args *p, int kind, size_t a, size_t b, size_t c0, size_t c1, uint16_t *dst) {
    for (size_t c = c0; c < c1; c++) {
        uint16_t u = mk_to_bf16(FN(value)(MK_BF16, p, kind, a + c, c)), v = 0;
        if (b != NO_ROW) v = mk_to_bf16(FN(value)(MK_BF16, p, kind, b + c, c));
        dst[2 * (c - c0)] = u;
        dst[2 * (c - c0) + 1] = v;
    }
}
#elif MK_LEVEL == 3
INLINE void FN(pack_pair)(const pack_args *p, int kind, size_t a, size_t b, size_t c0, size_t c1, uint16_t *dst) {
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (size_t c = c0; c < c1; c += 16, dst += 32) {
        __m512i both;
        FN(ahead)(MK_BF16, p, a + c);
        FN(ahead)(MK_BF16, p, b + c);
        if (kind == FN(AS_IS)) {
            const uint16_t *src = p->src;
            __m256i u = _mm256_loadu_si256((const void *)(src + a + c)), v = _mm256_setzero_si256();
            if (b != NO_ROW) v = _mm256_loadu_si256((const void *)(src + b + c));
            both = _mm512_inserti64x4(_mm512_castsi256_si512(u), v, 1);
        } else {
            __m512 u = FN(value)(MK_BF16, p, kind, a + c, c), v = _mm512_setzero_ps();
            if (b != NO_ROW) v = FN(value)(MK_BF16, p, kind, b + c, c);
            both = (__m512i)_mm512_cvtne2ps_pbh(v, u);
        }
        _mm512_storeu_si512(dst, _mm512_permutexvar_epi16(zip, both));
    }
}
#endif

// pack_unit packs one unit of values of type into every panel, half or full.
INLINE void FN(pack_unit)(int type, int half, const pack_args *p, int kind, size_t a, size_t b, size_t unit) {
    for (size_t c = 0; c < p->channels; c += PANEL) {
        size_t width = panel_width(p->channels, c), end = p->channels - c < width ? p->channels : c + width;
        int32_t *dst = p->dst + p->units * c + unit * width;
#if MK_LEVEL == 2
        (void)b; // no panels of bf16 at this level
#else
        if (half) FN(pack_pair)(p, kind, a, b, c, end, (uint16_t *)dst);
#endif
        if (!half) FN(pack_single)(type, p, kind, a, c, end, (float *)dst);
        if (W == 1)
            for (size_t i = end - c; i < width; i++) dst[i] = 0;
    }
}

INLINE void FN(pack_of)(int type, int half, const pack_args *p, int kind) {
    const mk_conv *g = p->conv;
    size_t ld = p->channels;
    int group = half ? 2 : 1;
    if (g->kernel == 1) { // a unit is one or two pixels of the output
        size_t n = (size_t)p->images * g->oh * g->ow;
        int skip = p->input && g->stride > 1;
        for (size_t q = 0; q < p->units; q++) {
            size_t i = group * q, a = i, b = i + 1;
            if (skip) {
                a = input_pixel(g, i);
                b = input_pixel(g, i + 1);
            }
            FN(pack_unit)(type, half, p, kind, a * ld, i + 1 < n ? b * ld : NO_ROW, q);
        }
        return;
    }
    // A unit is one pixel of one or two images; the input has a border of zeros.
    int h = p->input ? g->ih : g->oh, w = p->input ? g->iw : g->ow, pad = p->input ? g->pad : 0;
    size_t image = (size_t)h * w * ld, q = 0;
    for (int i = 0; i < p->images; i += group) {
        size_t base = i * image;
        int single = i + 1 == p->images;
        for (int y = -pad; y < h + pad; y++) {
            if (y < 0 || y >= h) {
                zero_units(p, q, w + 2 * pad);
                q += w + 2 * pad;
                continue;
            }
            zero_units(p, q, pad);
            q += pad;
            for (int x = 0; x < w; x++, q++) {
                size_t at = base + ((size_t)y * w + x) * ld;
                FN(pack_unit)(type, half, p, kind, at, single ? NO_ROW : at + image, q);
            }
            zero_units(p, q, pad);
            q += pad;
        }
    }
}

#define PACK(T, half)                                              \
    switch (p->kind) {                                             \
    case AS_IS_plain: FN(pack_of)(T, half, p, FN(AS_IS)); break;   \
    case NORMAL_plain: FN(pack_of)(T, half, p, FN(NORMAL)); break; \
    default: FN(pack_of)(T, half, p, FN(NORMAL_RELU));             \
    }

#if MK_LEVEL != 2
static void FN(pack_half)(const pack_args *p) { PACK(MK_BF16, 1) }
#endif
#if MK_LEVEL != 3
static void FN(pack_full)(const pack_args *p) { PACK(MK_F32, 0) }
static void FN(pack_widened)(const pack_args *p) { PACK(MK_BF16, 0) }
#endif
#undef PACK

#endif

#if MK_LEVEL >= 2

#ifndef MK_TILE
#define MK_TILE
// A tile: I input channels × V vectors of 16 output channels, in registers.
// The broadcast goes through a register, since four operands from memory for
// every load of it would be more than the load ports take.
#define REP_1(M, i) M(i, 0)
#define REP_2(M, i) M(i, 0) M(i, 1)
#define REP_3(M, i) M(i, 0) M(i, 1) M(i, 2)
#define REP_4(M, i) M(i, 0) M(i, 1) M(i, 2) M(i, 3)
#define LOAD_SUM(i, v) \
    __m512 s##i##v = begin ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + (i) * width + (v) * 16);
#define STORE_SUM(i, v) _mm512_storeu_ps(sums + (i) * width + (v) * 16, s##i##v);
#define LOAD_DY(i, v) __m512i d##v = _mm512_loadu_si512(dy + (v) * 16);
#define STEP(i, V)                            \
    {                                         \
        __m512i b = _mm512_set1_epi32(x[i]);  \
        __asm__("" : "+v"(b));                \
        REP_##V(DOT, i)                       \
    }
#define EACH_2(M, V) M(0, V) M(1, V)
#define EACH_4(M, V) EACH_2(M, V) M(2, V) M(3, V)
#define EACH_6(M, V) EACH_4(M, V) M(4, V) M(5, V)
#define LOADS(i, V) REP_##V(LOAD_SUM, i)
#define STORES(i, V) REP_##V(STORE_SUM, i)
#define TILE(I, V)                                                                                      \
    static void FN(tile_##I##x##V)(const tile_args *t, const int32_t *x0, const int32_t *dy, float *sums) { \
        size_t width = t->dy_width, x_step = t->x_step;                                                 \
        int begin = t->begin;                                                                           \
        EACH_##I(LOADS, V)                                                                              \
        for (int r = 0; r < t->runs; r++) {                                                             \
            const int32_t *x = x0 + t->x_run[r];                                                        \
            for (int n = t->run; n > 0; n--, x += x_step, dy += width) {                                \
                REP_##V(LOAD_DY, 0)                                                                     \
                EACH_##I(STEP, V)                                                                       \
            }                                                                                           \
        }                                                                                               \
        EACH_##I(STORES, V)                                                                             \
    }
#define TILES(I) TILE(I, 1) TILE(I, 2) TILE(I, 3) TILE(I, 4)
#endif

#if MK_LEVEL == 2
#define DOT(i, v) s##i##v = _mm512_fmadd_ps((__m512)b, (__m512)d##v, s##i##v);
#else
#define DOT(i, v) s##i##v = _mm512_dpbf16_ps(s##i##v, (__m512bh)b, (__m512bh)d##v);
#endif
TILES(2)
TILES(4)
TILES(6)
#undef DOT

// tiles does all input channels of a panel against all output channels of one.
// Panels are of fp32 at level 2, of bf16 at level 3.
static void FN(tiles)(const tile_args *t, const int32_t *x, const int32_t *dy, float *sums) {
    typedef void tile(const tile_args *, const int32_t *, const int32_t *, float *);
    static tile *const all[3][4] = {
        {FN(tile_2x1), FN(tile_2x2), FN(tile_2x3), FN(tile_2x4)},
        {FN(tile_4x1), FN(tile_4x2), FN(tile_4x3), FN(tile_4x4)},
        {FN(tile_6x1), FN(tile_6x2), FN(tile_6x3), FN(tile_6x4)},
    };
    size_t v = t->dy_width / 16 - 1;
    for (size_t i = 0; i < t->x_width;) {
        size_t left = t->x_width - i, k = left >= 6 ? 6 : left >= 4 ? 4 : 2;
        all[k / 2 - 1][v](t, x + i, dy, sums + i * t->dy_width);
        i += k;
    }
}

#elif MK_LEVEL == 0

static void FN(tiles)(const tile_args *t, const int32_t *x0, const int32_t *dy0, float *sums) {
    if (t->begin) memset(sums, 0, t->x_width * t->dy_width * sizeof *sums);
    const uint16_t *dy = (const uint16_t *)dy0;
    for (int r = 0; r < t->runs; r++) {
        const uint16_t *x = (const uint16_t *)(x0 + t->x_run[r]);
        for (int n = 0; n < t->run; n++, x += 2 * t->x_step, dy += 2 * t->dy_width)
            for (size_t i = 0; i < t->x_width; i++) {
                float even = mk_from_bf16(x[2 * i]), odd = mk_from_bf16(x[2 * i + 1]);
                float *s = sums + i * t->dy_width;
                for (size_t o = 0; o < t->dy_width; o++)
                    s[o] += even * mk_from_bf16(dy[2 * o]) + odd * mk_from_bf16(dy[2 * o + 1]);
            }
    }
}

static void FN(tiles_full)(const tile_args *t, const int32_t *x0, const int32_t *dy0, float *sums) {
    if (t->begin) memset(sums, 0, t->x_width * t->dy_width * sizeof *sums);
    const float *dy = (const float *)dy0;
    for (int r = 0; r < t->runs; r++) {
        const float *x = (const float *)(x0 + t->x_run[r]);
        for (int n = 0; n < t->run; n++, x += t->x_step, dy += t->dy_width)
            for (size_t i = 0; i < t->x_width; i++)
                for (size_t o = 0; o < t->dy_width; o++) sums[i * t->dy_width + o] += x[i] * dy[o];
    }
}

#endif

#if MK_LEVEL >= 2

// store_panels writes output channels [o0, o1), multiples of 16. In a block of
// 16 output × all input channels of a panel, elements of a row of dw follow
// each other as (input channel, tap): 16 of those by 16 outputs are transposed
// at a time.
static void FN(store_panels)(const mk_conv *c, size_t o0, size_t o1, int n, const float *const *sums, float *dw) {
    size_t taps = c->kernel * c->kernel, row = c->in * taps;
    for (size_t o = o0; o < o1; o += 16) {
        size_t op = o / PANEL * PANEL, wide = panel_width(c->out, op);
        for (size_t ip = 0; ip < (size_t)c->in; ip += PANEL) {
            size_t deep = panel_width(c->in, ip), first = taps * (op * c->in + ip * wide) + o - op;
            size_t i = 0, tap = 0;
            for (size_t f = 0; f < deep * taps; f += 16) {
                __m512 r[16];
                for (int j = 0; j < 16; j++) {
                    size_t at = first + (tap * deep + i) * wide;
                    __m512 total = _mm512_loadu_ps(sums[0] + at);
                    for (int s = 1; s < n; s++) total = _mm512_add_ps(total, _mm512_loadu_ps(sums[s] + at));
                    r[j] = total;
                    if (++tap == taps) {
                        tap = 0;
                        i++;
                    }
                }
                FN(transpose)(r);
#pragma GCC unroll 16
                for (int j = 0; j < 16; j++) _mm512_storeu_ps(dw + (o + j) * row + ip * taps + f, r[j]);
            }
        }
    }
}

#endif
