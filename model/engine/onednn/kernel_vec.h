// Vectors of one level, as macros: the body of a family is written in them
// once and compiled per level by kernel_each.h. No include guard: included
// once per level, with MK_LEVEL set to 0..3.
//
//	FN(name)       name of a function at this level
//	W, vec         lanes of a vector of floats
//	V_LOAD ...     fp32 in memory; V_LOADH, V_STOREH bf16 in memory
//	V_FMA(a,b,c)   a·b + c; V_RELU(v) max(v, 0), NaN stays
//	V_POSITIVE(m, v)  v where m > 0, else 0
//	V_ROUNDH(v)    v rounded to bf16
//	V_AHEAD(p)     asks for memory soon to be read: two rows read side by side
//	               are too much for the hardware's own guess
#undef FN
#undef W
#undef vec
#undef V_LOAD
#undef V_STORE
#undef V_LOADH
#undef V_STOREH
#undef V_SET
#undef V_ADD
#undef V_SUB
#undef V_MUL
#undef V_FMA
#undef V_RELU
#undef V_POSITIVE
#undef V_ROUNDH
#undef V_AHEAD

#define V_AHEAD(p) __builtin_prefetch((const char *)(p) + MK_AHEAD)
#ifndef MK_AHEAD
#define MK_AHEAD 2048 // bytes
#endif

#define INLINE static inline __attribute__((always_inline))

#if MK_LEVEL == 0

#define FN(name) name##_plain
#define W 1
#define vec float
#define V_LOAD(p) (*(const float *)(p))
#define V_STORE(p, v) (*(float *)(p) = (v))
#define V_LOADH(p) mk_from_bf16(*(const uint16_t *)(p))
#define V_STOREH(p, v) (*(uint16_t *)(p) = mk_to_bf16(v))
#define V_SET(x) ((float)(x))
#define V_ADD(a, b) ((a) + (b))
#define V_SUB(a, b) ((a) - (b))
#define V_MUL(a, b) ((a) * (b))
#define V_FMA(a, b, c) mk_fma(a, b, c)
#define V_RELU(v) ((v) < 0 ? 0.0f : (v))
#define V_POSITIVE(m, v) ((m) > 0 ? (v) : 0.0f)
#define V_ROUNDH(v) mk_from_bf16(mk_to_bf16(v))

#ifndef MK_VEC_PLAIN
#define MK_VEC_PLAIN
#include <string.h>

INLINE float mk_from_bf16(uint16_t h) {
    uint32_t b = (uint32_t)h << 16;
    float f;
    memcpy(&f, &b, 4);
    return f;
}

// Round to nearest, ties to even; NaN stays NaN.
INLINE uint16_t mk_to_bf16(float f) {
    uint32_t b;
    memcpy(&b, &f, 4);
    if ((b & 0x7fffffff) > 0x7f800000) return (uint16_t)(b >> 16 | 0x40);
    return (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

INLINE float mk_fma(float a, float b, float c) {
#ifdef __FP_FAST_FMAF
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}
#endif

#elif MK_LEVEL == 1

#define FN(name) name##_avx2
#define W 8
#define vec __m256
#define V_LOAD(p) _mm256_loadu_ps((const float *)(p))
#define V_STORE(p, v) _mm256_storeu_ps((float *)(p), v)
#define V_LOADH(p) mk_from_bf16_avx2(_mm_loadu_si128((const __m128i *)(p)))
#define V_STOREH(p, v) _mm_storeu_si128((__m128i *)(p), mk_to_bf16_avx2(v))
#define V_SET(x) _mm256_set1_ps(x)
#define V_ADD(a, b) _mm256_add_ps(a, b)
#define V_SUB(a, b) _mm256_sub_ps(a, b)
#define V_MUL(a, b) _mm256_mul_ps(a, b)
#define V_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define V_RELU(v) _mm256_max_ps(_mm256_setzero_ps(), v)
#define V_POSITIVE(m, v) _mm256_and_ps(_mm256_cmp_ps(m, _mm256_setzero_ps(), _CMP_GT_OQ), v)
#define V_ROUNDH(v) mk_from_bf16_avx2(mk_to_bf16_avx2(v))

INLINE __m256 mk_from_bf16_avx2(__m128i h) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE __m128i mk_to_bf16_avx2(__m256 v) {
    __m256i b = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(b, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_or_si256(b, _mm256_set1_epi32(0x400000));
    r = _mm256_blendv_epi8(r, nan, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
    r = _mm256_srli_epi32(r, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}

#else

#define W 16
#define vec __m512
#define V_LOAD(p) _mm512_loadu_ps(p)
#define V_STORE(p, v) _mm512_storeu_ps(p, v)
#define V_SET(x) _mm512_set1_ps(x)
#define V_ADD(a, b) _mm512_add_ps(a, b)
#define V_SUB(a, b) _mm512_sub_ps(a, b)
#define V_MUL(a, b) _mm512_mul_ps(a, b)
#define V_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define V_RELU(v) _mm512_max_ps(_mm512_setzero_ps(), v)
#define V_POSITIVE(m, v) _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(m, _mm512_setzero_ps(), _CMP_GT_OQ), v)
#define V_LOADH(p) mk_from_bf16_avx512(_mm256_loadu_si256((const __m256i *)(p)))
#define V_STOREH(p, v) _mm256_storeu_si256((__m256i *)(p), FN(mk_to_bf16)(v))
#define V_ROUNDH(v) mk_from_bf16_avx512(FN(mk_to_bf16)(v))

#if MK_LEVEL == 2

#define FN(name) name##_avx512

INLINE __m512 mk_from_bf16_avx512(__m256i h) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE __m256i FN(mk_to_bf16)(__m512 v) {
    __m512i b = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(b, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), b, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
}

#else

#define FN(name) name##_avx512bf16

// The instruction takes denormals for zero, whatever the control register says.
INLINE __m256i FN(mk_to_bf16)(__m512 v) { return (__m256i)_mm512_cvtneps_pbh(v); }

#endif

// transpose: r[i] lane j becomes r[j] lane i.
INLINE void FN(transpose)(__m512 r[16]) {
    __m512 t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = (__m512)_mm512_unpacklo_pd((__m512d)t[i + j], (__m512d)t[i + 2 + j]);
            r[i + 2 * j + 1] = (__m512)_mm512_unpackhi_pd((__m512d)t[i + j], (__m512d)t[i + 2 + j]);
        }
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

#endif
