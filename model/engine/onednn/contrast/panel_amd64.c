//go:build onednn

// One pass over a queue for a panel of 32 queries: engine.Panel for AVX-512.
//
// A block of keys [n][dim] meets the transposed queries [dim][32]: similarities
// and their exponentials are [n][32], the weighted sum of keys [dim][32]. All
// that belongs to a query stays in its lane, so no result depends on the other
// queries; keys are read where they lie; both products are 8 × 32 tiles of
// broadcast keys. Sums of a block start from zero and are added to the part, so
// that a long shard loses no digits.
//
// The slow twin, to read first, is plainLoss in model/loss/plain_test.go: one
// query at a time in float64, every synthetic point built.
#include "panel.h"

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,bmi,bmi2,popcnt")))
#define INLINE static inline __attribute__((always_inline)) AVX512

#ifdef MOCHI_TESTHOOKS
long ct_allocations = -1; // that succeed before one fails; negative: all do
static int refused(void) { return ct_allocations >= 0 && ct_allocations-- == 0; }
#else
static int refused(void) { return 0; }
#endif

// memory is n aligned values of size bytes, or NULL, with their bytes in *wanted.
static void *memory(size_t n, size_t size, size_t *wanted) {
    void *p = NULL;
    size_t bytes = (n * size + 63) & ~(size_t)63;
    if (!refused() && !posix_memalign(&p, 64, bytes)) return p;
    *wanted = bytes;
    return NULL;
}

// width is dim in whole vectors.
static size_t width_of(int dim) { return ((size_t)dim + 15) & ~(size_t)15; }

static int allocate(ct_panel *p, size_t rows, size_t points, size_t *wanted) {
    const size_t dim = (size_t)p->dim, room = (size_t)p->room;
#define NEW(field, n) (p->field = memory((n), sizeof *p->field, wanted))
    if (!NEW(q, dim * CT_LANES) || !NEW(sum, dim * CT_LANES) || !NEW(e, CT_ROWS * CT_LANES)) return -1;
    if (p->hard && (!NEW(candidates, CT_LANES * room) || !NEW(spare, 2 * room) || !NEW(picked, CT_ROWS * CT_LANES + 16)))
        return -1;
    if (points && (!NEW(rows, rows * width_of(p->dim)) || !NEW(weights, rows) || !NEW(point, points) ||
                   !NEW(wi, points) || !NEW(wj, points) || !NEW(dots, points)))
        return -1;
#undef NEW
    return 0;
}

ct_panel *ct_open(int dim, int hard, int rows, int points, size_t *wanted) {
    ct_panel *p = refused() ? NULL : calloc(1, sizeof *p);
    if (!p) {
        *wanted = sizeof *p;
        return NULL;
    }
    p->dim = dim, p->hard = hard;
    p->room = 2 * hard + CT_ROWS + 8; // and a vector's overhang
    if (allocate(p, (size_t)rows, (size_t)points, wanted) == 0) return p;
    ct_close(p);
    return NULL;
}

void ct_close(ct_panel *p) {
    free(p->q), free(p->sum), free(p->e), free(p->candidates), free(p->spare), free(p->picked), free(p->rows);
    free(p->weights), free(p->wi), free(p->wj), free(p->dots), free(p->point);
    free(p);
}

void ct_load(ct_panel *p, const float *q, int b, const int32_t *labels, float inv_t, int keep) {
    p->b = b, p->wide = b > 16, p->keep = keep, p->by_class = labels != NULL;
    p->per_two = (float)((double)inv_t / M_LN2);
    memset(p->q, 0, sizeof(float) * p->dim * CT_LANES);
    for (int i = 0; i < b; i++)
        for (int x = 0; x < p->dim; x++) p->q[x * CT_LANES + i] = q[i * p->dim + x];
    for (int i = 0; i < CT_LANES; i++) {
        p->labels[i] = labels && i < b ? labels[i] : -1;
        p->line[i] = keep > 0 && i < b ? CT_NONE : INFINITY;
        p->found[i] = 0;
    }
}

void ct_begin(ct_panel *p) {
    memset(p->sum, 0, sizeof(float) * p->dim * CT_LANES);
    for (int i = 0; i < CT_LANES; i++) p->top[i] = CT_NONE, p->z[i] = p->sims[i] = 0, p->counted[i] = 0;
}

// exp2_below is 2^x for x ≤ 0, to 2e-7 (Moshier's Cephes, exp2f); 0 below 2^−126.
INLINE __m512 exp2_below(__m512 x) {
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, n);
    __m512 r = _mm512_set1_ps(1.535336188319500e-4f);
    r = _mm512_fmadd_ps(r, f, _mm512_set1_ps(1.339887440266574e-3f));
    r = _mm512_fmadd_ps(r, f, _mm512_set1_ps(9.618437357674640e-3f));
    r = _mm512_fmadd_ps(r, f, _mm512_set1_ps(5.550332471162809e-2f));
    r = _mm512_fmadd_ps(r, f, _mm512_set1_ps(2.402264791363012e-1f));
    r = _mm512_fmadd_ps(r, f, _mm512_set1_ps(6.931472028550421e-1f));
    r = _mm512_fmadd_ps(r, f, _mm512_set1_ps(1.0f));
    __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126), _CMP_GE_OQ);
    return _mm512_maskz_scalef_ps(normal, r, n);
}

// ordered maps similarities to numbers that fall as similarity rises: the
// upper half of a nearest.Key.
INLINE __m512i ordered(__m512 c) {
    __m512i bits = _mm512_castps_si512(_mm512_add_ps(c, _mm512_setzero_ps())); // −0 counts as 0
    __m512i sign = _mm512_srai_epi32(bits, 31);
    // negative: ~bits, else bits | sign bit; then all inverted
    __m512i up = _mm512_xor_si512(bits, _mm512_or_si512(sign, _mm512_set1_epi32((int)0x80000000)));
    return _mm512_xor_si512(up, _mm512_set1_epi32(-1));
}

static float similarity(uint64_t key) {
    uint32_t bits = ~(uint32_t)(key >> 32);
    bits = bits >> 31 ? bits & 0x7fffffff : ~bits;
    float c;
    memcpy(&c, &bits, 4);
    return c;
}

// first_of masks the first n of eight values.
INLINE __mmask8 first_of(int n) { return n >= 8 ? 0xff : (__mmask8)((1u << n) - 1); }

// keep moves the n smallest of a's `have` keys, which differ, to the front: a
// quickselect whose partition compresses vectors.
AVX512 static void keep(uint64_t *a, int have, int n, uint64_t *spare) {
    while (have > n && n > 0) {
        if (have <= 24) {
            for (int i = 1; i < have; i++) {
                uint64_t k = a[i];
                int j = i;
                for (; j > 0 && a[j - 1] > k; j--) a[j] = a[j - 1];
                a[j] = k;
            }
            return;
        }
        // The pivot's rank in an evenly spaced sample is the wanted one's in all.
        uint64_t sample[16];
        for (int i = 0; i < 16; i++) {
            uint64_t k = a[(size_t)i * (have - 1) / 15];
            int j = i;
            for (; j > 0 && sample[j - 1] > k; j--) sample[j] = sample[j - 1];
            sample[j] = k;
        }
        uint64_t pivot = sample[(int)((size_t)n * 15 / have)];
        if (pivot == sample[0]) pivot = sample[1]; // the smallest of all would part nothing
        __m512i p = _mm512_set1_epi64((long long)pivot);
        int left = 0, right = 0;
        for (int i = 0; i < have; i += 8) {
            const __mmask8 valid = first_of(have - i);
            __m512i v = _mm512_loadu_si512(a + i);
            __mmask8 less = _mm512_mask_cmplt_epu64_mask(valid, v, p), rest = valid & (__mmask8)~less;
            _mm512_storeu_si512(a + left, _mm512_maskz_compress_epi64(less, v)); // never past what was read
            _mm512_storeu_si512(spare + right, _mm512_maskz_compress_epi64(rest, v));
            left += __builtin_popcount(less), right += __builtin_popcount(rest);
        }
        if (left >= n) {
            have = left; // the others are out
        } else {
            a += left, n -= left, have = right;
            memcpy(a, spare, sizeof(uint64_t) * right);
        }
    }
}

// cut keeps the best candidates of a lane, in their order, and raises its
// threshold.
AVX512 static void cut(ct_panel *p, int i) {
    uint64_t *a = p->candidates + (size_t)i * p->room, *copy = p->spare + p->room;
    const int have = p->found[i], n = p->keep;
    if (have < n || n == 0) return;
    memcpy(copy, a, sizeof(uint64_t) * have);
    keep(copy, have, n, p->spare);
    __m512i most = _mm512_setzero_si512();
    for (int j = 0; j < n; j += 8) most = _mm512_max_epu64(most, _mm512_maskz_loadu_epi64(first_of(n - j), copy + j));
    const uint64_t worst = _mm512_reduce_max_epu64(most);
    p->line[i] = similarity(worst);
    p->found[i] = n;
    if (have == n) return;
    const __m512i last = _mm512_set1_epi64((long long)worst);
    for (int j = 0, to = 0; j < have; j += 8) {
        __m512i v = _mm512_loadu_si512(a + j);
        __mmask8 stays = _mm512_mask_cmple_epu64_mask(first_of(have - j), v, last);
        _mm512_storeu_si512(a + to, _mm512_maskz_compress_epi64(stays, v)); // never past what was read
        to += __builtin_popcount(stays);
    }
}

// offer appends the similarities of a block above their query's threshold to
// its candidates. Which ones they are is written down without a branch: about
// every third vector has one, which no predictor learns.
INLINE void offer(const int W, ct_panel *p, int n, uint32_t number) {
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512 line[2];
    for (int w = 0; w < W; w++) line[w] = _mm512_loadu_ps(p->line + 16 * w);
    uint32_t *picked = p->picked; // places in p->e
    int found = 0;
    for (int at = 0; at < n * CT_LANES; at += CT_LANES)
        for (int w = 0; w < W; w++) {
            __mmask16 above = _mm512_cmp_ps_mask(_mm512_load_ps(p->e + at + 16 * w), line[w], _CMP_GT_OQ);
            __m512i place = _mm512_add_epi32(lanes, _mm512_set1_epi32(at + 16 * w));
            _mm512_storeu_si512(picked + found, _mm512_maskz_compress_epi32(above, place));
            found += __builtin_popcount(above);
        }
    for (int f = 0; f < found; f += 16) {
        __mmask16 valid = found - f >= 16 ? 0xffff : (__mmask16)((1u << (found - f)) - 1);
        __m512i place = _mm512_loadu_si512(picked + f);
        uint32_t high[16];
        _mm512_storeu_si512(high, ordered(_mm512_mask_i32gather_ps(_mm512_setzero_ps(), valid, place, p->e, 4)));
        for (int t = f; t < found && t < f + 16; t++) {
            int i = picked[t] % CT_LANES;
            p->candidates[(size_t)i * p->room + p->found[i]++] = (uint64_t)high[t - f] << 32 | (number + picked[t] / CT_LANES);
        }
    }
}

// What a block adds up, for 16 lanes.
typedef struct {
    __m512 top, sim;
} block;

// similarities computes R keys against 16·W lanes, keeps what the block adds
// up, and stores them.
INLINE void similarities(const int R, const int W, ct_panel *p, const float *keys, const int32_t *labels, int row,
                         block *b) {
    __m512 c[8][2];
    const int dim = p->dim;
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
        for (int w = 0; w < W; w++) c[r][w] = _mm512_setzero_ps();
    const float *q = p->q;
    for (int x = 0; x < dim; x++, q += CT_LANES) {
        __m512 q0 = _mm512_load_ps(q), q1 = W > 1 ? _mm512_load_ps(q + 16) : q0;
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            __m512 n = _mm512_set1_ps(keys[(size_t)r * dim + x]);
            c[r][0] = _mm512_fmadd_ps(n, q0, c[r][0]);
            if (W > 1) c[r][1] = _mm512_fmadd_ps(n, q1, c[r][1]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
        for (int w = 0; w < W; w++) {
            __m512 v = c[r][w];
            if (labels) {
                __mmask16 dropped = labels[r] < 0 ? 0
                    : _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(p->labels + 16 * w), _mm512_set1_epi32(labels[r]));
                b[w].sim = _mm512_mask_add_ps(b[w].sim, (__mmask16)~dropped, b[w].sim, v);
                __m512i *counted = (__m512i *)(p->counted + 16 * w);
                _mm512_storeu_si512(counted, _mm512_mask_add_epi32(_mm512_loadu_si512(counted), (__mmask16)~dropped,
                                                                   _mm512_loadu_si512(counted), _mm512_set1_epi32(1)));
                v = _mm512_mask_mov_ps(v, dropped, _mm512_set1_ps(-INFINITY));
            } else {
                b[w].sim = _mm512_add_ps(b[w].sim, v);
            }
            b[w].top = _mm512_max_ps(b[w].top, v);
            _mm512_store_ps(p->e + (size_t)(row + r) * CT_LANES + 16 * w, v);
        }
    }
}

// weighted adds Σ_j e_j·n_j of a block for R dimensions from x.
INLINE void weighted(const int R, const int W, ct_panel *p, const float *keys, int n, int x) {
    __m512 s[8][2];
    const int dim = p->dim;
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
        for (int w = 0; w < W; w++) s[r][w] = _mm512_setzero_ps();
    const float *e = p->e, *k = keys + x;
    for (int j = 0; j < n; j++, e += CT_LANES, k += dim) {
        __m512 e0 = _mm512_load_ps(e), e1 = W > 1 ? _mm512_load_ps(e + 16) : e0;
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            __m512 v = _mm512_set1_ps(k[r]);
            s[r][0] = _mm512_fmadd_ps(v, e0, s[r][0]);
            if (W > 1) s[r][1] = _mm512_fmadd_ps(v, e1, s[r][1]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int w = 0; w < W; w++) {
            float *to = p->sum + (size_t)(x + r) * CT_LANES + 16 * w;
            _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), s[r][w]));
        }
}

INLINE void scan(const int W, ct_panel *p, const float *keys, int n, const int32_t *labels, uint32_t number) {
    const int dim = p->dim;
    block b[2];
    for (int w = 0; w < W; w++) {
        b[w].top = _mm512_set1_ps(CT_NONE);
        b[w].sim = _mm512_setzero_ps();
    }
    int j = 0;
#define KEYS(R) similarities(R, W, p, keys + (size_t)j * dim, labels ? labels + j : NULL, j, b)
    for (; j + 8 <= n; j += 8) KEYS(8);
    if (n - j >= 4) KEYS(4), j += 4;
    for (; j < n; j++) KEYS(1);
#undef KEYS
    if (p->keep) offer(W, p, n, number);

    __m512 per_two = _mm512_set1_ps(p->per_two), top[2], z[2];
    for (int w = 0; w < W; w++) {
        __m512 old = _mm512_loadu_ps(p->top + 16 * w);
        top[w] = _mm512_max_ps(old, b[w].top);
        __mmask16 rises = _mm512_cmp_ps_mask(top[w], old, _CMP_GT_OQ);
        if (rises) {
            __m512 scale = exp2_below(_mm512_mul_ps(_mm512_sub_ps(old, top[w]), per_two));
            for (int x = 0; x < dim; x++) {
                float *s = p->sum + (size_t)x * CT_LANES + 16 * w;
                _mm512_store_ps(s, _mm512_mul_ps(_mm512_load_ps(s), scale));
            }
            float f[16];
            _mm512_storeu_ps(f, scale);
            for (int i = 0; i < 16; i++) p->z[16 * w + i] *= f[i];
            _mm512_storeu_ps(p->top + 16 * w, top[w]);
        }
        z[w] = _mm512_setzero_ps();
    }
    for (j = 0; j < n; j++)
        for (int w = 0; w < W; w++) {
            float *c = p->e + (size_t)j * CT_LANES + 16 * w;
            __m512 v = exp2_below(_mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(c), top[w]), per_two));
            _mm512_store_ps(c, v);
            z[w] = _mm512_add_ps(z[w], v);
        }
    for (int w = 0; w < W; w++) {
        float zs[16], sims[16];
        _mm512_storeu_ps(zs, z[w]), _mm512_storeu_ps(sims, b[w].sim);
        for (int i = 0; i < 16; i++) p->z[16 * w + i] += zs[i], p->sims[16 * w + i] += sims[i];
    }

    int x = 0;
    for (; x + 8 <= dim; x += 8) weighted(8, W, p, keys, n, x);
    if (dim - x >= 4) weighted(4, W, p, keys, n, x), x += 4;
    for (; x < dim; x++) weighted(1, W, p, keys, n, x);
}

AVX512 static void scan16(ct_panel *p, const float *keys, int n, const int32_t *labels, uint32_t number) {
    scan(1, p, keys, n, labels, number);
}

AVX512 static void scan32(ct_panel *p, const float *keys, int n, const int32_t *labels, uint32_t number) {
    scan(2, p, keys, n, labels, number);
}

void ct_scan(ct_panel *p, const float *keys, int n, const int32_t *labels, uint32_t first) {
    if (n == 0) return;
    if (p->keep)
        for (int i = 0; i < p->b; i++)
            if (p->found[i] >= 2 * p->keep) cut(p, i);
    if (!p->by_class) {
        labels = NULL;
        for (int i = 0; i < p->b; i++) p->counted[i] += n;
    }
    if (p->wide)
        scan32(p, keys, n, labels, first);
    else
        scan16(p, keys, n, labels, first);
}

void ct_end(const ct_panel *p, int i, float *dst) {
    for (int x = 0; x < p->dim; x++) dst[x] = p->sum[x * CT_LANES + i];
    float *s = dst + p->dim;
    memset(s, 0, sizeof(float) * CT_SCALARS);
    s[CT_TOP] = s[CT_REAL] = p->top[i];
    s[CT_POINT] = CT_NONE;
    s[CT_SUM] = (float)p->z[i];
    s[CT_SIM] = (float)p->sims[i];
    s[CT_COUNT] = (float)p->counted[i];
}

void ct_raise(ct_panel *p, int keep) {
    for (int i = 0; i < p->b; i++) cut(p, i);
    p->keep = keep;
}

int ct_hardest(ct_panel *p, int i, uint64_t *dst, int room) {
    cut(p, i);
    const int n = p->found[i] < room ? p->found[i] : room;
    memcpy(dst, p->candidates + (size_t)i * p->room, sizeof(uint64_t) * n);
    return n;
}

AVX512 void ct_widen(float *dst, const uint16_t *src, size_t n) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(dst + i, _mm512_castsi512_ps(_mm512_slli_epi32(
                                      _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(src + i))), 16)));
    for (; i < n; i++) {
        uint32_t bits = (uint32_t)src[i] << 16;
        memcpy(dst + i, &bits, 4);
    }
}

// ---- Mixing ----

static void fetch(const char *at, size_t bytes) {
    for (size_t b = 0; b < bytes; b += 64) _mm_prefetch(at + b, _MM_HINT_T0);
}

// row is where hard negative i lies.
static inline const float *row(const ct_panel *p, int32_t i) { return p->rows + (size_t)i * width_of(p->dim); }

void ct_pick(ct_panel *p, int at, const float *f32, const uint16_t *bf16, size_t stride, const int32_t *rows, int n) {
    enum { AHEAD = 6 };
    const size_t dim = p->dim, width = width_of(p->dim), bytes = dim * (bf16 ? 2 : 4);
    float *to = p->rows + at * width;
    for (int i = 0; i < n; i++, to += width) {
        if (i + AHEAD < n) {
            const size_t ahead = (size_t)rows[i + AHEAD] * stride * dim;
            fetch(bf16 ? (const char *)(bf16 + ahead) : (const char *)(f32 + ahead), bytes);
        }
        const size_t from = (size_t)rows[i] * stride * dim;
        if (bf16)
            ct_widen(to, bf16 + from, dim);
        else
            memcpy(to, f32 + from, sizeof(float) * dim);
        for (size_t x = dim; x < width; x++) to[x] = 0;
    }
}

AVX512 static float dot(const float *x, const float *y, size_t width) {
    __m512 a = _mm512_setzero_ps(), b = a;
    size_t i = 0;
    for (; i + 32 <= width; i += 32) {
        a = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i), a);
        b = _mm512_fmadd_ps(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(y + i + 16), b);
    }
    if (i < width) a = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i), a);
    return _mm512_reduce_add_ps(_mm512_add_ps(a, b));
}

// cancelled is ρ² and ρ·similarity of a·x + (1−a)·y, element by element.
static void cancelled(double a, const float *q, const float *x, const float *y, int dim, double *rho2, double *sim) {
    *rho2 = *sim = 0;
    for (int i = 0; i < dim; i++) {
        double h = a * x[i] + (1 - a) * y[i];
        *rho2 += h * h;
        *sim += q[i] * h;
    }
}

// points computes the similarity and the coefficients of s pairs, or of points
// with the query (first NULL), from index `to` on.
AVX512 static void points(ct_panel *p, const float *query, const float *sims, const int32_t *first,
                          const int32_t *second, const float *weight, const float *dots, int s, int to) {
    const __m512d one = _mm512_set1_pd(1);
    for (int t = 0; t < s; t += 8) {
        __mmask8 m = s - t >= 8 ? 0xff : (__mmask8)((1u << (s - t)) - 1);
        __m256i j = _mm256_maskz_loadu_epi32(m, second + t);
        __m512d cj = _mm512_cvtps_pd(_mm256_mmask_i32gather_ps(_mm256_setzero_ps(), m, j, sims, 4));
        __m512d ci = one, xy = cj;
        if (first) {
            __m256i i = _mm256_maskz_loadu_epi32(m, first + t);
            ci = _mm512_cvtps_pd(_mm256_mmask_i32gather_ps(_mm256_setzero_ps(), m, i, sims, 4));
            xy = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(m, dots + t));
        }
        __m512d a = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(m, weight + t)), b = _mm512_sub_pd(one, a);
        __m512d rho2 = _mm512_add_pd(_mm512_add_pd(_mm512_mul_pd(a, a), _mm512_mul_pd(b, b)),
                                     _mm512_mul_pd(_mm512_mul_pd(_mm512_add_pd(a, a), b), xy));
        __m512d sim = _mm512_add_pd(_mm512_mul_pd(a, ci), _mm512_mul_pd(b, cj));
        __mmask8 cancels = _mm512_mask_cmp_pd_mask(m, rho2, _mm512_set1_pd(0.25), _CMP_LT_OQ); // engine.Cancels
        if (cancels) {
            double r[8], c[8];
            _mm512_storeu_pd(r, rho2), _mm512_storeu_pd(c, sim);
            for (int l = 0; l < 8; l++)
                if (cancels >> l & 1)
                    cancelled(weight[t + l], query, first ? row(p, first[t + l]) : query, row(p, second[t + l]), p->dim,
                              r + l, c + l);
            rho2 = _mm512_loadu_pd(r), sim = _mm512_loadu_pd(c);
        }
        __m512d rho = _mm512_max_pd(_mm512_sqrt_pd(rho2), _mm512_set1_pd(1e-3)); // engine.MinNorm
        __m512d inverse = _mm512_div_pd(one, rho);
        _mm512_mask_storeu_pd(p->point + to + t, m, _mm512_mul_pd(sim, inverse));
        _mm256_mask_storeu_ps(p->wi + to + t, m, _mm512_cvtpd_ps(_mm512_mul_pd(a, inverse)));
        _mm256_mask_storeu_ps(p->wj + to + t, m, _mm512_cvtpd_ps(_mm512_mul_pd(b, inverse)));
    }
}

// add_rows is part·scale + Σ weight·row in R vectors of dimensions from x, the
// last of which may be part of one.
INLINE void add_rows(const int R, const ct_panel *p, int n, __m512 scale, float *part, size_t x) {
    __m512 v[8];
    const size_t left = p->dim - x, width = width_of(p->dim);
    const __mmask16 m = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
#pragma GCC unroll 8
    for (int c = 0; c < R; c++) v[c] = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, part + x + 16 * c), scale);
    for (size_t i = 0; i < (size_t)n; i++) {
        const float *r = p->rows + i * width + x;
        __m512 k = _mm512_set1_ps(p->weights[i]);
#pragma GCC unroll 8
        for (int c = 0; c < R; c++) v[c] = _mm512_fmadd_ps(k, _mm512_loadu_ps(r + 16 * c), v[c]);
    }
#pragma GCC unroll 8
    for (int c = 0; c < R; c++) _mm512_mask_storeu_ps(part + x + 16 * c, m, v[c]);
}

AVX512 void ct_mix(ct_panel *p, const float *query, const float *sims, int n, const int32_t *first, const int32_t *second,
                   const float *alpha, int s, const int32_t *partner, const float *beta, int s2, float inv_t, float *part) {
    const int dim = p->dim, all = s + s2;
    const size_t width = width_of(dim);
    float *scalar = part + dim, hard = 0;
    for (int i = 0; i < n; i++) hard += sims[i];
    scalar[CT_HARD_SIM] += hard;
    scalar[CT_HARD] += (float)n;
    if (all == 0) return;
    for (int t = 0; t < s; t++) p->dots[t] = dot(row(p, first[t]), row(p, second[t]), width);
    points(p, query, sims, first, second, alpha, p->dots, s, 0);
    points(p, query, sims, NULL, partner, beta, NULL, s2, s);

    double hardest = CT_NONE;
    for (int t = 0; t < all; t++) hardest = p->point[t] > hardest ? p->point[t] : hardest;
    scalar[CT_POINT] = (float)hardest;

    // Exponentials relative to the new top.
    const double per_two = (double)inv_t / M_LN2;
    const float old = scalar[CT_TOP], top = (float)hardest > old ? (float)hardest : old;
    float lowered[16];
    _mm512_storeu_ps(lowered, exp2_below(_mm512_set1_ps((float)((old - top) * per_two))));
    scalar[CT_TOP] = top;
    float *e = p->dots; // no longer needed
    __m512 total = _mm512_setzero_ps();
    for (int t = 0; t < all; t += 16) {
        __mmask16 m = all - t >= 16 ? 0xffff : (__mmask16)((1u << (all - t)) - 1);
        __m512d lo = _mm512_maskz_loadu_pd((__mmask8)m, p->point + t);
        __m512d hi = _mm512_maskz_loadu_pd((__mmask8)(m >> 8), p->point + t + 8);
        __m512d tops = _mm512_set1_pd(top), by = _mm512_set1_pd(per_two);
        __m256 x0 = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_sub_pd(lo, tops), by));
        __m256 x1 = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_sub_pd(hi, tops), by));
        __m512 x = _mm512_insertf32x8(_mm512_castps256_ps512(x0), x1, 1);
        __m512 v = _mm512_maskz_mov_ps(m, exp2_below(_mm512_min_ps(x, _mm512_setzero_ps())));
        _mm512_mask_storeu_ps(e + t, m, v);
        total = _mm512_add_ps(total, v);
    }
    scalar[CT_SUM] = scalar[CT_SUM] * lowered[0] + _mm512_reduce_add_ps(total);

    float *w = p->weights, on_query = 0;
    memset(w, 0, sizeof(float) * n);
    for (int t = 0; t < s; t++) {
        w[first[t]] += e[t] * p->wi[t];
        w[second[t]] += e[t] * p->wj[t];
    }
    for (int t = 0; t < s2; t++) {
        on_query += e[s + t] * p->wi[s + t];
        w[partner[t]] += e[s + t] * p->wj[s + t];
    }
    scalar[CT_QUERY] = on_query;

    // part·lowered + Σ w·row
    __m512 scale = _mm512_set1_ps(lowered[0]);
    size_t x = 0;
    for (; x + 128 <= (size_t)dim; x += 128) add_rows(8, p, n, scale, part, x);
    for (; x + 64 <= (size_t)dim; x += 64) add_rows(4, p, n, scale, part, x);
    for (; x < (size_t)dim; x += 16) add_rows(1, p, n, scale, part, x);
}
