// Packing and the dot products of weight gradients at one level. The packing
// of levels without bf16 instructions, and every tile that is not full, is the
// plain one.

// pack_of packs n values of two rows a, b (b may be NULL: zeros) into
// n pairs at dst. Kinds of value:
enum { FN(AS_IS), FN(NORMAL), FN(NORMAL_RELU), FN(GRADIENT) };

#if MK_LEVEL == 0

// value is what a source value becomes, rounded to bf16.
INLINE uint16_t FN(value)(const pack_args *p, int kind, size_t at, size_t c) {
    uint16_t h = p->src[at];
    if (kind == AS_IS_plain) return h;
    const mk_bn *bn = p->bn;
    float x = mk_from_bf16(kind == GRADIENT_plain ? p->x[at] : h);
    float v = mk_fma(x, bn->scale[c], bn->shift[c]);
    if (kind == GRADIENT_plain) {
        float g = mk_from_bf16(h);
        if (p->mask == MK_MASK_SELF && !(v > 0)) g = 0;
        if (p->mask == MK_MASK_OUTPUT && !(mk_from_bf16(p->y[at]) > 0)) g = 0;
        uint16_t d = mk_to_bf16(mk_fma(bn->a[c], g, mk_fma(bn->b[c], x, bn->k[c])));
        if (p->dx) p->dx[at] = d;
        return d;
    }
    return mk_to_bf16(kind == NORMAL_RELU_plain ? V_RELU(v) : v);
}

INLINE void FN(pack_block)(const pack_args *p, int kind, size_t a, size_t b, size_t c0, size_t c1, uint16_t *dst) {
    for (size_t c = c0; c < c1; c++) {
        dst[2 * (c - c0)] = FN(value)(p, kind, a + c, c);
        dst[2 * (c - c0) + 1] = b == NO_ROW ? 0 : FN(value)(p, kind, b + c, c);
    }
}

#elif MK_LEVEL == 3

INLINE __m512 FN(value)(const pack_args *p, int kind, size_t at, size_t c) {
    const mk_bn *bn = p->bn;
    __m512 x = V_LOADH((kind == FN(GRADIENT) ? p->x : p->src) + at);
    if (kind != FN(GRADIENT)) {
        __m512 v = V_FMA(x, V_LOAD(bn->scale + c), V_LOAD(bn->shift + c));
        return kind == FN(NORMAL_RELU) ? V_RELU(v) : v;
    }
    __m512 g = V_LOADH(p->src + at);
    if (p->mask == MK_MASK_SELF) g = V_POSITIVE(V_FMA(x, V_LOAD(bn->scale + c), V_LOAD(bn->shift + c)), g);
    if (p->mask == MK_MASK_OUTPUT) g = V_POSITIVE(V_LOADH(p->y + at), g);
    return V_FMA(V_LOAD(bn->a + c), g, V_FMA(V_LOAD(bn->b + c), x, V_LOAD(bn->k + c)));
}

INLINE void FN(pack_block)(const pack_args *p, int kind, size_t a, size_t b, size_t c0, size_t c1, uint16_t *dst) {
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (size_t c = c0; c < c1; c += 16, dst += 32) {
        __m512i both;
        if (kind == FN(AS_IS)) {
            __m256i u = _mm256_loadu_si256((const void *)(p->src + a + c)), v = _mm256_setzero_si256();
            if (b != NO_ROW) v = _mm256_loadu_si256((const void *)(p->src + b + c));
            both = _mm512_inserti64x4(_mm512_castsi256_si512(u), v, 1);
        } else {
            __m512 u = FN(value)(p, kind, a + c, c), v = _mm512_setzero_ps();
            if (b != NO_ROW) v = FN(value)(p, kind, b + c, c);
            both = (__m512i)_mm512_cvtne2ps_pbh(v, u);
            if (kind == FN(GRADIENT) && p->dx) {
                _mm256_storeu_si256((void *)(p->dx + a + c), _mm512_castsi512_si256(both));
                if (b != NO_ROW) _mm256_storeu_si256((void *)(p->dx + b + c), _mm512_extracti64x4_epi64(both, 1));
            }
        }
        _mm512_storeu_si512(dst, _mm512_permutexvar_epi16(zip, both));
    }
}

#endif

#if MK_LEVEL == 0 || MK_LEVEL == 3

// pack_pair packs one pair of rows into every panel.
INLINE void FN(pack_pair)(const pack_args *p, int kind, size_t a, size_t b, size_t pair) {
    for (size_t c = 0; c < p->channels; c += PANEL) {
        size_t width = panel_width(p->channels, c);
        uint16_t *dst = p->dst + 2 * (p->pairs * c + pair * width);
#if MK_LEVEL == 3
        FN(pack_block)(p, kind, a, b, c, c + width, dst);
#else
        size_t end = p->channels - c < width ? p->channels : c + width;
        FN(pack_block)(p, kind, a, b, c, end, dst);
        for (size_t i = end - c; i < width; i++) dst[2 * i] = dst[2 * i + 1] = 0;
#endif
    }
}

INLINE void FN(pack_kind)(const pack_args *p, int kind) {
    const mk_conv *g = p->conv;
    size_t ld = p->channels;
    if (g->kernel == 1) { // a pair is two pixels of the output
        size_t n = (size_t)p->images * g->oh * g->ow;
        size_t r0 = 0, r1 = 0;
        for (size_t q = 0; q < p->pairs; q++) {
            size_t i = 2 * q;
            r0 = i * ld;
            r1 = i + 1 < n ? r0 + ld : NO_ROW;
            if (p->input && g->stride > 1) {
                r0 = input_pixel(g, i) * ld;
                if (r1 != NO_ROW) r1 = input_pixel(g, i + 1) * ld;
            }
            FN(pack_pair)(p, kind, r0, r1, q);
        }
        return;
    }
    // A pair is one pixel of two images; the input has a border of zeros.
    int h = p->input ? g->ih : g->oh, w = p->input ? g->iw : g->ow, pad = p->input ? g->pad : 0;
    size_t image = (size_t)h * w * ld, q = 0;
    for (int i = 0; i < p->images; i += 2) {
        size_t base = i * image;
        int single = i + 1 == p->images;
        for (int y = -pad; y < h + pad; y++) {
            if (y < 0 || y >= h) {
                zero_pairs(p, q, w + 2 * pad);
                q += w + 2 * pad;
                continue;
            }
            zero_pairs(p, q, pad);
            q += pad;
            for (int x = 0; x < w; x++, q++) {
                size_t at = base + ((size_t)y * w + x) * ld;
                FN(pack_pair)(p, kind, at, single ? NO_ROW : at + image, q);
            }
            zero_pairs(p, q, pad);
            q += pad;
        }
    }
}

static void FN(pack)(const pack_args *p) {
    switch (p->kind) {
    case AS_IS_plain: FN(pack_kind)(p, FN(AS_IS)); break;
    case NORMAL_plain: FN(pack_kind)(p, FN(NORMAL)); break;
    case NORMAL_RELU_plain: FN(pack_kind)(p, FN(NORMAL_RELU)); break;
    default: FN(pack_kind)(p, FN(GRADIENT));
    }
}

#endif

#if MK_LEVEL == 3

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
#define LOAD_DY(i, v) __m512bh d##v = (__m512bh)_mm512_loadu_si512(dy + (v) * 16);
#define DOT(i, v) s##i##v = _mm512_dpbf16_ps(s##i##v, (__m512bh)b, d##v);
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
    static void tile_##I##x##V(const tile_args *t, const int32_t *x0, const int32_t *dy, float *sums) { \
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
TILES(2)
TILES(4)
TILES(6)

// tiles does all input channels of a panel against all output channels of one.
static void FN(tiles)(const tile_args *t, const int32_t *x, const int32_t *dy, float *sums) {
    typedef void tile(const tile_args *, const int32_t *, const int32_t *, float *);
    static tile *const all[3][4] = {
        {tile_2x1, tile_2x2, tile_2x3, tile_2x4},
        {tile_4x1, tile_4x2, tile_4x3, tile_4x4},
        {tile_6x1, tile_6x2, tile_6x3, tile_6x4},
    };
    size_t v = t->dy_width / 16 - 1;
    for (size_t i = 0; i < t->x_width;) {
        size_t left = t->x_width - i, k = left >= 6 ? 6 : left >= 4 ? 4 : 2;
        all[k / 2 - 1][v](t, x + i, dy, sums + i * t->dy_width);
        i += k;
    }
}

#elif MK_LEVEL == 0

static void FN(tiles)(const tile_args *t, const int32_t *x0, const int32_t *dy, float *sums) {
    if (t->begin) memset(sums, 0, t->x_width * t->dy_width * sizeof *sums);
    for (int r = 0; r < t->runs; r++) {
        const int32_t *x = x0 + t->x_run[r];
        for (int n = 0; n < t->run; n++, x += t->x_step, dy += t->dy_width)
            for (size_t i = 0; i < t->x_width; i++) {
                float x_even = mk_from_bf16((uint16_t)x[i]), x_odd = mk_from_bf16((uint16_t)((uint32_t)x[i] >> 16));
                float *s = sums + i * t->dy_width;
                for (size_t o = 0; o < t->dy_width; o++)
                    s[o] += x_even * mk_from_bf16((uint16_t)dy[o]) +
                            x_odd * mk_from_bf16((uint16_t)((uint32_t)dy[o] >> 16));
            }
    }
}

#endif
