//go:build simd && amd64

#pragma GCC target("avx2,fma")

#include <immintrin.h>
#include <stdint.h>

#define VIEW mochi_view_avx2
#define FUSED_MULTIPLY_ADD
#define HORIZONTAL
struct taps;
static void horizontal(const uint8_t *restrict row, uint32_t *restrict out, int n, const struct taps *t);
#include "view_body.h"

// resize is horizontal with all outputs taking groups·4 taps: their counts
// differ by one or two, and a loop that ends here and there is mispredicted.
// A lane is a colour of one of two taps.
static inline void resize(const uint8_t *restrict row, pixel *restrict out, int n, const struct taps *t, int groups) {
	const __m128i low = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
	const __m256i first = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1), second = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);
	const int32_t *k = t->weight;
	for (int i = 0; i < n; i++, k += t->width) {
		const uint8_t *px = row + t->first[i] * 3;
		__m256i sum = _mm256_setzero_si256();
		for (int j = 0; j < groups; j++) {
			__m128i four = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(px + 3 * tap_group * j)), low);
			__m256i weights = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(k + tap_group * j)));
			sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(four), _mm256_permutevar8x32_epi32(weights, first)));
			four = _mm_srli_si128(four, 8);
			sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(four), _mm256_permutevar8x32_epi32(weights, second)));
		}
		__m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
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
