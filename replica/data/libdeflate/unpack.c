//go:build libdeflate

#include "unpack.h"

#include <libdeflate.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

int mochi_unpack(const uint8_t *in, size_t len, uint8_t *out, size_t size) {
	struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
	if (!d) return -1;
	size_t used, made;
	enum libdeflate_result r = libdeflate_deflate_decompress_ex(d, in, len, out, size, &used, &made);
	libdeflate_free_decompressor(d);
	if (r == LIBDEFLATE_SUCCESS && made != size) r = LIBDEFLATE_SHORT_OUTPUT;
	return r;
}

static inline int distance(int a, int b) { return a > b ? a - b : b - a; }

static inline uint8_t paeth(int a, int b, int c) {
	int p = a + b - c, pa = distance(p, a), pb = distance(p, b), pc = distance(p, c);
	return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

// row undoes the filter of one row; above is the row before it, where the pixel left
// of the first counts as zeros. bpp is a constant in each of its calls.
static inline __attribute__((always_inline)) int row(int filter, uint8_t *p, const uint8_t *above, size_t n, size_t bpp) {
	switch (filter) {
	case 0:
		return 0;
	case 1:
		for (size_t i = bpp; i < n; i++) p[i] += p[i - bpp];
		return 0;
	case 2:
		for (size_t i = 0; i < n; i++) p[i] += above[i];
		return 0;
	case 3:
		for (size_t i = 0; i < bpp; i++) p[i] += above[i] / 2;
		for (size_t i = bpp; i < n; i++) p[i] += (p[i - bpp] + above[i]) / 2;
		return 0;
	case 4:
		for (size_t i = 0; i < bpp; i++) p[i] += above[i];
		for (size_t i = bpp; i < n; i++) p[i] += paeth(p[i - bpp], above[i], above[i - bpp]);
		return 0;
	}
	return -1;
}

#ifdef __SSE2__
// Of the pixels of photos most have this filter, and each needs the one before it: so
// the colours of one are done at once, as libpng does.
static inline __attribute__((always_inline)) __m128i load(const uint8_t *p) { // 4 bytes, as 16 bits each
	int v;
	memcpy(&v, p, 4);
	return _mm_unpacklo_epi8(_mm_cvtsi32_si128(v), _mm_setzero_si128());
}

static inline __attribute__((always_inline)) __m128i absolute(__m128i v) { return _mm_max_epi16(v, _mm_sub_epi16(_mm_setzero_si128(), v)); }

static inline __attribute__((always_inline)) __m128i choose(__m128i mask, __m128i yes, __m128i no) {
	return _mm_or_si128(_mm_and_si128(mask, yes), _mm_andnot_si128(mask, no));
}

static inline __attribute__((always_inline)) void store(uint8_t *p, __m128i v, size_t bpp) {
	int out = _mm_cvtsi128_si32(_mm_packus_epi16(v, v));
	memcpy(p, &out, bpp);
}

static inline __attribute__((always_inline)) void paeth_row(uint8_t *p, const uint8_t *above, size_t n, size_t bpp) {
	__m128i zero = _mm_setzero_si128(), low = _mm_set1_epi16(255), a = zero, c = zero;
	for (size_t i = 0; i < n; i += bpp) {
		__m128i b = load(above + i);
		__m128i pa = _mm_sub_epi16(b, c), pb = _mm_sub_epi16(a, c);
		__m128i pc = absolute(_mm_add_epi16(pa, pb));
		pa = absolute(pa);
		pb = absolute(pb);
		__m128i least = _mm_min_epi16(pc, _mm_min_epi16(pa, pb));
		__m128i nearest = choose(_mm_cmpeq_epi16(least, pa), a, choose(_mm_cmpeq_epi16(least, pb), b, c));
		a = _mm_and_si128(_mm_add_epi16(load(p + i), nearest), low);
		c = b;
		store(p + i, a, bpp);
	}
}

static inline __attribute__((always_inline)) void mean_row(uint8_t *p, const uint8_t *above, size_t n, size_t bpp) {
	__m128i a = _mm_setzero_si128(), low = _mm_set1_epi16(255);
	for (size_t i = 0; i < n; i += bpp) {
		__m128i mean = _mm_srli_epi16(_mm_add_epi16(a, load(above + i)), 1);
		a = _mm_and_si128(_mm_add_epi16(load(p + i), mean), low);
		store(p + i, a, bpp);
	}
}

static inline __attribute__((always_inline)) void left_row(uint8_t *p, size_t n, size_t bpp) {
	__m128i a = _mm_setzero_si128(), low = _mm_set1_epi16(255);
	for (size_t i = 0; i < n; i += bpp) {
		a = _mm_and_si128(_mm_add_epi16(load(p + i), a), low);
		store(p + i, a, bpp);
	}
}

static inline __attribute__((always_inline)) int colours(int filter, uint8_t *p, const uint8_t *above, size_t n, size_t bpp) {
	switch (filter) {
	case 1:
		left_row(p, n, bpp);
		return 0;
	case 3:
		mean_row(p, above, n, bpp);
		return 0;
	case 4:
		paeth_row(p, above, n, bpp);
		return 0;
	}
	return row(filter, p, above, n, bpp);
}
#else
#define colours row
#endif

int mochi_unfilter(uint8_t *rows, size_t stride, size_t h, size_t bpp) {
	const uint8_t *above = rows;
	uint8_t *p = rows + stride;
	for (size_t y = 0; y < h; y++, p += stride + 1) {
		int bad;
		switch (bpp) {
		case 3:
			bad = colours(p[0], p + 1, above, stride, 3);
			break;
		case 4:
			bad = colours(p[0], p + 1, above, stride, 4);
			break;
		default:
			bad = row(p[0], p + 1, above, stride, bpp);
		}
		if (bad) return -1;
		above = p + 1;
	}
	return 0;
}
