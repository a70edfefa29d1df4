//go:build simd && amd64

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")

#include <immintrin.h>
#include <stdint.h>

#define VIEW mochi_view_avx512
#define FUSED_MULTIPLY_ADD
#define HORIZONTAL
struct taps;
static void horizontal(const uint8_t *restrict row, uint32_t *restrict out, int n, const struct taps *t);
#include "view_body.h"

// resize is horizontal with all outputs taking groups·4 taps: their counts
// differ by one or two, and a loop that ends here and there is mispredicted.
// A lane is a colour of one of four taps.
static inline void resize(const uint8_t *restrict row, pixel *restrict out, int n, const struct taps *t, int groups) {
	const __m128i low = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
	const __m512i each = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
	const int32_t *k = t->weight;
	for (int i = 0; i < n; i++, k += t->width) {
		const uint8_t *px = row + t->first[i] * 3;
		__m512i sum = _mm512_setzero_si512();
		for (int j = 0; j < groups; j++) {
			__m128i four = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(px + 3 * tap_group * j)), low);
			__m512i weights = _mm512_permutexvar_epi32(each, _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(k + tap_group * j))));
			sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(_mm512_cvtepu8_epi32(four), weights));
		}
		__m256i half = _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
		__m128i s = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
		s = _mm_srli_epi32(_mm_add_epi32(s, _mm_set1_epi32(weight_half)), weight_bits);
		s = _mm_packus_epi16(_mm_packus_epi32(s, s), s);
		out[i] = (pixel)_mm_cvtsi128_si32(s);
	}
}

static void horizontal(const uint8_t *restrict row, pixel *restrict out, int n, const struct taps *t) {
	switch (t->groups) {
	case 1: resize(row, out, n, t, 1); break;
	case 2: resize(row, out, n, t, 2); break;
	default: resize(row, out, n, t, t->groups);
	}
}
