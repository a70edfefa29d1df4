// BatchNorm's loops at one level. Rows have ld channels in memory, of which
// c0..c1 are done, a multiple of W. Row by row, so that memory is read in
// order; sums lie in a first-level-cache buffer and four rows are added to
// them at a time.

#ifndef MK_BN_BODY
#define MK_BN_BODY
enum {
    BN_PANEL = 512, // channels whose sums are kept at a time
    BN_CHUNK = 128, // rows summed in fp32 before they enter the double sums
};
typedef struct {
    size_t rows, ld, c0, c1;
} bn_span;
#endif

INLINE vec FN(load)(int type, const void *p, size_t i) {
    return type == MK_BF16 ? V_LOADH((const uint16_t *)p + i) : V_LOAD((const float *)p + i);
}

INLINE void FN(store)(int type, void *p, size_t i, vec v) {
    if (type == MK_BF16)
        V_STOREH((uint16_t *)p + i, v);
    else
        V_STORE((float *)p + i, v);
}

// flush adds a chunk's sums to the doubles.
INLINE void FN(flush)(const float *sum, size_t n, double *part) {
    for (size_t c = 0; c < n; c++) part[c] += sum[c];
}

INLINE void FN(stats_of)(int type, bn_span s, const void *x, double *part) {
    float shift[BN_PANEL] __attribute__((aligned(64)));
    float sum[BN_PANEL] __attribute__((aligned(64)));
    float square[BN_PANEL] __attribute__((aligned(64)));
    for (size_t p = s.c0; p < s.c1; p += BN_PANEL) {
        size_t n = s.c1 - p < BN_PANEL ? s.c1 - p : BN_PANEL;
        for (size_t c = 0; c < n; c++) shift[c] = (float)part[p + c];
        for (size_t r0 = 0; r0 < s.rows; r0 += BN_CHUNK) {
            size_t r1 = s.rows - r0 < BN_CHUNK ? s.rows : r0 + BN_CHUNK;
            memset(sum, 0, n * sizeof *sum);
            memset(square, 0, n * sizeof *square);
            size_t r = r0;
            for (; r + 4 <= r1; r += 4)
                for (size_t c = 0; c < n; c += W) {
                    size_t at = r * s.ld + p + c;
                    vec h = V_LOAD(shift + c), q = V_LOAD(square + c);
                    vec a = V_SUB(FN(load)(type, x, at), h);
                    vec b = V_SUB(FN(load)(type, x, at + s.ld), h);
                    vec d = V_SUB(FN(load)(type, x, at + 2 * s.ld), h);
                    vec e = V_SUB(FN(load)(type, x, at + 3 * s.ld), h);
                    V_STORE(sum + c, V_ADD(V_LOAD(sum + c), V_ADD(V_ADD(a, b), V_ADD(d, e))));
                    q = V_FMA(b, b, V_FMA(a, a, q));
                    V_STORE(square + c, V_FMA(e, e, V_FMA(d, d, q)));
                }
            for (; r < r1; r++)
                for (size_t c = 0; c < n; c += W) {
                    vec a = V_SUB(FN(load)(type, x, r * s.ld + p + c), V_LOAD(shift + c));
                    V_STORE(sum + c, V_ADD(V_LOAD(sum + c), a));
                    V_STORE(square + c, V_FMA(a, a, V_LOAD(square + c)));
                }
            FN(flush)(sum, n, part + s.ld + p);
            FN(flush)(square, n, part + 2 * s.ld + p);
        }
    }
}

static void FN(bn_stats)(mk_type type, bn_span s, const void *x, double *part) {
    if (type == MK_BF16)
        FN(stats_of)(MK_BF16, s, x, part);
    else
        FN(stats_of)(MK_F32, s, x, part);
}

// residual: 0 none, 1 as it is, 2 through its own BatchNorm.
INLINE void FN(apply_of)(int type, int residual, int relu, bn_span s, const void *x, const mk_bn *bn, const void *r,
                         const mk_bn *rbn, void *y) {
    const float *scale = bn->scale, *shift = bn->shift;
    for (size_t row = 0; row < s.rows; row++)
        for (size_t c = s.c0; c < s.c1; c += W) {
            size_t at = row * s.ld + c;
            vec v = V_FMA(FN(load)(type, x, at), V_LOAD(scale + c), V_LOAD(shift + c));
            if (residual == 1) v = V_ADD(v, FN(load)(type, r, at));
            if (residual == 2)
                v = V_ADD(v, V_FMA(FN(load)(type, r, at), V_LOAD(rbn->scale + c), V_LOAD(rbn->shift + c)));
            if (relu) v = V_RELU(v);
            FN(store)(type, y, at, v);
        }
}

static void FN(bn_apply)(mk_type type, bn_span s, const void *x, const mk_bn *bn, const void *r, const mk_bn *rbn,
                         int relu, void *y) {
    int residual = !r ? 0 : !rbn ? 1 : 2;
#define CASE(T, R, F)                                  \
    if (type == T && residual == R && !relu == !F) {   \
        FN(apply_of)(T, R, F, s, x, bn, r, rbn, y);    \
        return;                                        \
    }
#define CASES(T) CASE(T, 0, 0) CASE(T, 0, 1) CASE(T, 1, 0) CASE(T, 1, 1) CASE(T, 2, 0) CASE(T, 2, 1)
    CASES(MK_F32)
    CASES(MK_BF16)
#undef CASES
#undef CASE_0
#undef CASE
}

// masked is mask·g; x0 and bn are the first branch's.
INLINE vec FN(masked)(int type, int mask, vec g, vec x0, const mk_bn *bn, const void *y, size_t at, size_t c) {
    if (mask == MK_MASK_SELF) return V_POSITIVE(V_FMA(x0, V_LOAD(bn->scale + c), V_LOAD(bn->shift + c)), g);
    if (mask == MK_MASK_OUTPUT) return V_POSITIVE(FN(load)(type, y, at), g);
    return g;
}

typedef struct {
    const void *dy, *add, *y;
    void *gout;
    const mk_bn_branch *branches;
} FN(sums_args);

// one_row adds channels c.. of a row to the sums of the panel that begins at p.
INLINE void FN(one_row)(int type, int mask, int n, const FN(sums_args) * a, size_t at, size_t c, vec *sg, vec *s0, vec *s1) {
    size_t bytes = at * (type == MK_BF16 ? 2 : 4);
    vec g = FN(load)(type, a->dy, at);
    V_AHEAD((const char *)a->dy + bytes);
    if (n > 0) V_AHEAD((const char *)a->branches[0].x + bytes);
    if (n > 1) V_AHEAD((const char *)a->branches[1].x + bytes);
    if (mask == MK_MASK_OUTPUT) V_AHEAD((const char *)a->y + bytes);
    if (a->add) {
        g = V_ADD(g, FN(load)(type, a->add, at));
        if (type == MK_BF16) g = V_ROUNDH(g);
    }
    vec x0 = g;
    if (n > 0) x0 = FN(load)(type, a->branches[0].x, at);
    g = FN(masked)(type, mask, g, x0, n > 0 ? a->branches[0].bn : 0, a->y, at, c);
    if (a->gout) FN(store)(type, a->gout, at, g);
    if (n > 0) {
        *sg = V_ADD(*sg, g);
        *s0 = V_FMA(g, V_SUB(x0, V_LOAD(a->branches[0].bn->mean + c)), *s0);
    }
    if (n > 1) *s1 = V_FMA(g, V_SUB(FN(load)(type, a->branches[1].x, at), V_LOAD(a->branches[1].bn->mean + c)), *s1);
}

INLINE void FN(sums_of)(int type, int mask, int n, bn_span s, const FN(sums_args) * a) {
    float sums[3][BN_PANEL] __attribute__((aligned(64)));
    for (size_t p = s.c0; p < s.c1; p += BN_PANEL) {
        size_t m = s.c1 - p < BN_PANEL ? s.c1 - p : BN_PANEL;
        for (size_t r0 = 0; r0 < s.rows; r0 += BN_CHUNK) {
            size_t r1 = s.rows - r0 < BN_CHUNK ? s.rows : r0 + BN_CHUNK;
            for (int i = 0; i <= n; i++) memset(sums[i], 0, m * sizeof(float));
            size_t r = r0;
            for (; r + 2 <= r1; r += 2)
                for (size_t c = 0; c < m; c += W) {
                    vec sg = V_LOAD(sums[0] + c), s0 = V_LOAD(sums[1] + c), s1 = sg;
                    if (n > 1) s1 = V_LOAD(sums[2] + c);
                    FN(one_row)(type, mask, n, a, r * s.ld + p + c, p + c, &sg, &s0, &s1);
                    FN(one_row)(type, mask, n, a, (r + 1) * s.ld + p + c, p + c, &sg, &s0, &s1);
                    V_STORE(sums[0] + c, sg);
                    V_STORE(sums[1] + c, s0);
                    if (n > 1) V_STORE(sums[2] + c, s1);
                }
            for (; r < r1; r++)
                for (size_t c = 0; c < m; c += W) {
                    vec sg = V_LOAD(sums[0] + c), s0 = V_LOAD(sums[1] + c), s1 = sg;
                    if (n > 1) s1 = V_LOAD(sums[2] + c);
                    FN(one_row)(type, mask, n, a, r * s.ld + p + c, p + c, &sg, &s0, &s1);
                    V_STORE(sums[0] + c, sg);
                    V_STORE(sums[1] + c, s0);
                    if (n > 1) V_STORE(sums[2] + c, s1);
                }
            for (int i = 0; i < n; i++) {
                FN(flush)(sums[0], m, a->branches[i].part + p);
                FN(flush)(sums[1 + i], m, a->branches[i].part + s.ld + p);
            }
        }
    }
}

// grad_of is the apply pass.
INLINE void FN(grad_of)(int type, int mask, int n, bn_span s, const void *dy, const void *y,
                        const mk_bn_branch *branches) {
    const mk_bn *bn = branches[0].bn;
    for (size_t r = 0; r < s.rows; r++)
        for (size_t c = s.c0; c < s.c1; c += W) {
            size_t at = r * s.ld + c;
            vec x0 = FN(load)(type, branches[0].x, at);
            vec g = FN(masked)(type, mask, FN(load)(type, dy, at), x0, bn, y, at, c);
            vec d = V_FMA(V_LOAD(bn->a + c), g, V_FMA(V_LOAD(bn->b + c), x0, V_LOAD(bn->k + c)));
            vec e = d;
            if (n > 1) {
                const mk_bn *b1 = branches[1].bn;
                e = V_FMA(V_LOAD(b1->b + c), FN(load)(type, branches[1].x, at), V_LOAD(b1->k + c));
                e = V_FMA(V_LOAD(b1->a + c), g, e);
            }
            FN(store)(type, branches[0].dx, at, d);
            if (n > 1) FN(store)(type, branches[1].dx, at, e);
        }
}

// At the levels that are there for a type (fp32 AVX-512, bf16 with its own
// instructions) each mask and number of branches has a loop of its own; others
// decide inside. fp32 needs nothing of level 3.
#define CASE(T, M, N) \
    if (type == T && mask == M && n == N) { RUN(T, M, N); return; }
#define GENERAL(T) \
    if (type == T) { RUN(T, mask, n); return; }
#if MK_LEVEL < 2
#define CASES(T) GENERAL(T)
#else
#define CASES(T)                                                                           \
    CASE_0(T, MK_MASK_NONE) CASE_0(T, MK_MASK_OUTPUT)                                      \
    CASE(T, MK_MASK_NONE, 1) CASE(T, MK_MASK_SELF, 1) CASE(T, MK_MASK_OUTPUT, 1)           \
    CASE(T, MK_MASK_NONE, 2) CASE(T, MK_MASK_SELF, 2) CASE(T, MK_MASK_OUTPUT, 2)
#endif

static void FN(bn_grad_sums)(mk_type type, bn_span s, const void *dy, const void *add, mk_mask mask, const void *y,
                             void *gout, int n, const mk_bn_branch *branches) {
    FN(sums_args) a = {dy, add, y, gout, branches};
#define CASE_0(T, M) CASE(T, M, 0)
#define RUN(T, M, N) FN(sums_of)(T, M, N, s, &a)
#if MK_LEVEL == 3
    if (type == MK_F32) {
        bn_grad_sums_avx512(type, s, dy, add, mask, y, gout, n, branches);
        return;
    }
#else
    CASES(MK_F32)
#endif
#if MK_LEVEL == 2
    GENERAL(MK_BF16)
#else
    CASES(MK_BF16)
#endif
#undef RUN
#undef CASE_0
#define CASE_0(T, M)
}

static void FN(bn_grad_apply)(mk_type type, bn_span s, const void *dy, mk_mask mask, const void *y, int n,
                              const mk_bn_branch *branches) {
#define RUN(T, M, N) FN(grad_of)(T, M, N, s, dy, y, branches)
#if MK_LEVEL == 3
    if (type == MK_F32) {
        bn_grad_apply_avx512(type, s, dy, mask, y, n, branches);
        return;
    }
#else
    CASES(MK_F32)
#endif
#if MK_LEVEL == 2
    GENERAL(MK_BF16)
#else
    CASES(MK_BF16)
#endif
#undef RUN
}
#undef CASES
#undef CASE_0
#undef CASE
#undef GENERAL
