// The steps of a view in AVX-512 with products of bytes (VNNI), compiled by
// view_vnni.c and, with byte tables (VBMI, BY_TABLE), by view_vbmi.c.

#include <immintrin.h>
#include <stdint.h>

#define FUSED_MULTIPLY_ADD
#define HORIZONTAL
#define PREPARE_X
#define VERTICAL
#define BLEND
#define SATURATE
#define SHIFT_HUE
#define BLUR
struct view;
struct taps;
struct along_x;
struct with_grey;
static void prepare_x(struct along_x *a, const struct taps *t, int n);
static void horizontal(const uint8_t *row, uint32_t *out, int n, const struct along_x *a);
static void vertical(const uint8_t *in, size_t stride, const int32_t *k, int count, uint8_t *out, int n);
static void blend_with(uint32_t *px, int n, const struct with_grey *b);
static void saturate(uint32_t *px, int n, float factor);
static void shift_hue(uint32_t *px, int n, int shift);
static void blur_along_x(const struct view *v, uint32_t *px, uint8_t *first, uint8_t *second);
static void blur_along_y(const struct view *v, uint32_t *view, uint32_t *other, uint8_t *first, uint8_t *second);
#include "view_body.h"

// left masks the lanes of the n pixels that are left.
static inline __mmask16 left(int n) { return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1); }

// ---- Colours, 16 pixels at a time ----

static inline __m512i luma_of(__m512i p) {
	const __m512i greens = _mm512_set4_epi32(0xff0dff0d, 0xff09ff09, 0xff05ff05, 0xff01ff01);
	__m512i rb = _mm512_and_si512(p, _mm512_set1_epi32(0x00ff00ff));
	__m512i gg = _mm512_maskz_shuffle_epi8(0x5555555555555555, p, greens);
	__m512i sum = _mm512_dpwssd_epi32(_mm512_set1_epi32(1 << 15), rb, _mm512_set1_epi32(7471 << 16 | 19595));
	sum = _mm512_dpwssd_epi32(sum, gg, _mm512_set1_epi32((38470 / 2) << 16 | 38470 / 2));
	return _mm512_srli_epi32(sum, 16);
}

// together makes pixels of three colours, cut to 0 … 255.
static inline __m512i together(__m512i r, __m512i g, __m512i b) {
	const __m512i order = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
	__m512i rg = _mm512_packs_epi32(r, g), b0 = _mm512_packs_epi32(b, _mm512_setzero_si512());
	return _mm512_shuffle_epi8(_mm512_packus_epi16(rg, b0), order);
}

// blended is a blend of 16 pixels with their greys.
static inline __m512i blended(__m512i p, __m512i grey, __m512 f) {
	const __m512i byte = _mm512_set1_epi32(255);
	__m512 a = _mm512_cvtepi32_ps(grey);
#define TO(c) _mm512_cvttps_epi32(_mm512_add_ps(a, _mm512_mul_ps(f, _mm512_cvtepi32_ps(_mm512_sub_epi32(c, grey)))))
	__m512i r = TO(_mm512_and_si512(p, byte));
	__m512i g = TO(_mm512_and_si512(_mm512_srli_epi32(p, 8), byte));
	__m512i b = TO(_mm512_srli_epi32(p, 16));
#undef TO
	return together(r, g, b);
}

static void saturate(pixel *px, int n, float factor) {
	const __m512 f = _mm512_set1_ps(factor);
	for (int i = 0; i < n; i += 16) {
		__m512i p = _mm512_maskz_loadu_epi32(left(n - i), px + i);
		_mm512_mask_storeu_epi32(px + i, left(n - i), blended(p, luma_of(p), f));
	}
}

#ifdef BY_TABLE
static void blend_with(pixel *px, int n, const struct with_grey *b) {
	const __m512i t0 = _mm512_loadu_si512(b->table), t1 = _mm512_loadu_si512(b->table + 64);
	const __m512i t2 = _mm512_loadu_si512(b->table + 128), t3 = _mm512_loadu_si512(b->table + 192);
	const __mmask64 colours = 0x7777777777777777;
	for (int i = 0; i < n; i += 16) {
		__m512i p = _mm512_maskz_loadu_epi32(left(n - i), px + i);
		__m512i low = _mm512_maskz_permutex2var_epi8(colours, t0, p, t1);
		__m512i high = _mm512_permutex2var_epi8(t2, p, t3);
		p = _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(p) & colours, high);
		_mm512_mask_storeu_epi32(px + i, left(n - i), p);
	}
}
#else
static void blend_with(pixel *px, int n, const struct with_grey *b) {
	const __m512 f = _mm512_set1_ps(b->factor);
	const __m512i grey = _mm512_set1_epi32(b->grey);
	for (int i = 0; i < n; i += 16) {
		__m512i p = _mm512_maskz_loadu_epi32(left(n - i), px + i);
		_mm512_mask_storeu_epi32(px + i, left(n - i), blended(p, grey, f));
	}
}
#endif

// by is x/d, rounded as division rounds it (Markstein), d a constant.
static inline __m512 by(__m512 x, float d) {
	const __m512 inverse = _mm512_set1_ps(1 / d);
	__m512 q = _mm512_mul_ps(x, inverse);
	return _mm512_fmadd_ps(_mm512_fnmadd_ps(q, _mm512_set1_ps(d), x), inverse, q);
}

// to_hsv and from_hsv are the halves of view_body.h's shift_hue, with the same
// roundings in the same order. One loop of both would hold so many values that
// the processor could not overlap its rounds.

// to_hsv replaces colours by hue, saturation and value, bytes too.
static void to_hsv(pixel *px, int n) {
	const __m512i byte = _mm512_set1_epi32(255);
	const __m512 unit = _mm512_set1_ps(1), full = _mm512_set1_ps(255);
	for (int i = 0; i < n; i += 16) {
		__m512i rgb16 = _mm512_maskz_loadu_epi32(left(n - i), px + i);
		__m512i r = _mm512_and_si512(rgb16, byte), g = _mm512_and_si512(_mm512_srli_epi32(rgb16, 8), byte);
		__m512i b = _mm512_srli_epi32(rgb16, 16);
		__m512i high = _mm512_max_epi32(r, _mm512_max_epi32(g, b)), low = _mm512_min_epi32(r, _mm512_min_epi32(g, b));
		__mmask16 is_red = _mm512_cmpeq_epi32_mask(r, high), is_blue = _mm512_cmpgt_epi32_mask(b, g) & ~is_red;
		__m512 base = _mm512_mask_mov_ps(_mm512_set1_ps(2), is_blue, _mm512_set1_ps(4));
		base = _mm512_maskz_mov_ps((__mmask16)~is_red, base);
		__m512i next = _mm512_mask_mov_epi32(_mm512_mask_mov_epi32(b, is_blue, r), is_red, g);
		__m512i previous = _mm512_mask_mov_epi32(_mm512_mask_mov_epi32(r, is_blue, g), is_red, b);
		__mmask16 up = _mm512_cmpeq_epi32_mask(previous, low);
		__m512 place = _mm512_cvtepi32_ps(_mm512_sub_epi32(high, _mm512_mask_mov_epi32(previous, up, next)));
		__m512 span = _mm512_cvtepi32_ps(_mm512_sub_epi32(high, low)), highest = _mm512_cvtepi32_ps(high);
		place = _mm512_div_ps(place, _mm512_max_ps(span, unit));
		__m512 turn = _mm512_mask_sub_ps(_mm512_add_ps(_mm512_sub_ps(base, unit), place), up, _mm512_add_ps(base, unit), place);
		turn = by(turn, 6);
		turn = _mm512_mask_add_ps(turn, _mm512_movepi32_mask(_mm512_castps_si512(turn)), turn, unit);
		// Rounded towards 0, so that what is cut next is cut from the exact product.
		__m512i h = _mm512_cvttps_epi32(_mm512_mul_round_ps(turn, full, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
		__m512i s = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_div_ps(span, _mm512_max_ps(highest, unit)), full));
		_mm512_mask_storeu_epi32(px + i, left(n - i), together(h, s, high));
	}
}

// from_hsv turns the hue and makes colours again.
static void from_hsv(pixel *px, int n, int shift) {
	const __m512i byte = _mm512_set1_epi32(255), one = _mm512_set1_epi32(1);
	const __m512 half = _mm512_set1_ps(0.5f), unit = _mm512_set1_ps(1);
	// By sextant, where the pixel's bytes come from: 0 the highest, 1 the middle,
	// 2 the lowest colour.
	const __m512i sources = _mm512_setr_epi32(0x03020100, 0x03020001, 0x03010002, 0x03000102, 0x03000201, 0x03010200,
	                                          0x03020100, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	const __m512i lane = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
	for (int i = 0; i < n; i += 16) {
		__m512i hsv = _mm512_maskz_loadu_epi32(left(n - i), px + i);
		__m512i h = _mm512_and_si512(_mm512_add_epi32(hsv, _mm512_set1_epi32(shift)), byte);
		__m512 s = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(hsv, 8), byte));
		__m512i high = _mm512_srli_epi32(hsv, 16);
		__m512 highest = _mm512_cvtepi32_ps(high);
		__m512i h6 = _mm512_add_epi32(_mm512_slli_epi32(h, 2), _mm512_slli_epi32(h, 1));
		__m512i sextant = _mm512_srli_epi32(_mm512_add_epi32(_mm512_slli_epi32(h6, 8), h6), 16); // h6 / 255 for all of them
		__m512i rest = _mm512_add_epi32(_mm512_sub_epi32(h6, _mm512_slli_epi32(sextant, 8)), sextant);
		rest = _mm512_mask_sub_epi32(rest, _mm512_testn_epi32_mask(sextant, one), byte, rest);
		__m512 saturation = by(s, 255), part = by(_mm512_cvtepi32_ps(rest), 255);
		__m512i p = _mm512_cvttps_epi32(_mm512_add_ps(_mm512_mul_ps(highest, _mm512_sub_ps(unit, saturation)), half));
		__m512i q = _mm512_cvttps_epi32(_mm512_add_ps(
			_mm512_mul_ps(highest, _mm512_sub_ps(unit, _mm512_mul_ps(saturation, part))), half));

		__m512i sorted = _mm512_or_si512(high, _mm512_or_si512(_mm512_slli_epi32(q, 8), _mm512_slli_epi32(p, 16)));
		__m512i from = _mm512_add_epi32(_mm512_permutexvar_epi32(sextant, sources), lane);
		_mm512_mask_storeu_epi32(px + i, left(n - i), _mm512_shuffle_epi8(sorted, from)); // a grey has no saturation, and stays
	}
}

static void shift_hue(pixel *px, int n, int shift) {
	to_hsv(px, n);
	from_hsv(px, n, shift);
}

// ---- The resize along x ----

// along_x is the filter for four outputs at a time: where each output's first
// tap is, bytes from the row's start, then for four outputs and every group of
// four taps the weights' lowest, middle and highest digits to base 256, signed
// bytes: [3][output][colour][tap].
struct along_x {
	int groups, blocks;
	const int8_t *digits;
	int32_t first[];
};

static void prepare_x(struct along_x *a, const struct taps *t, int n) {
	a->groups = t->groups;
	a->blocks = (n + 3) / 4;
	int8_t *digits = (int8_t *)(a->first + 4 * a->blocks);
	a->digits = digits;
	for (int i = 0; i < 4 * a->blocks; i++) a->first[i] = 3 * t->first[min(i, n - 1)];
	const __m128i bytes = _mm_setr_epi8(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, -1, -1, -1, -1);
	for (int i = 0; i < 4 * a->blocks; i++) {
		const int32_t *k = t->weight + (size_t)min(i, n - 1) * t->width;
		int8_t *to = digits + (size_t)(i / 4) * a->groups * 192 + i % 4 * 16;
		for (int j = 0; j < a->groups; j++, k += tap_group, to += 192) {
			__m128i w = _mm_loadu_si128((const __m128i *)k);
			for (int digit = 0; digit < 3; digit++) {
				_mm_storeu_si128((__m128i *)(to + 64 * digit), _mm_shuffle_epi8(w, bytes));
				__m128i lowest = _mm_srai_epi32(_mm_slli_epi32(w, 24), 24);
				w = _mm_srai_epi32(_mm_sub_epi32(w, lowest), 8);
			}
		}
	}
}

static inline void resize(const uint8_t *row, pixel *out, int n, const struct along_x *a, int groups) {
	// Taps of a colour side by side.
	const __m512i colours = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1));
	const int8_t *digits = a->digits;
	for (int i = 0; i < n; i += 4) {
		__m512i s0 = _mm512_set1_epi32(weight_half), s1 = _mm512_setzero_si512(), s2 = s1;
		for (int j = 0; j < groups; j++, digits += 192) {
			const uint8_t *px = row + 3 * tap_group * j;
			__m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(px + a->first[i])));
			v = _mm512_mask_broadcast_i32x4(v, 0x00f0, _mm_loadu_si128((const __m128i *)(px + a->first[i + 1])));
			v = _mm512_mask_broadcast_i32x4(v, 0x0f00, _mm_loadu_si128((const __m128i *)(px + a->first[i + 2])));
			v = _mm512_mask_broadcast_i32x4(v, 0xf000, _mm_loadu_si128((const __m128i *)(px + a->first[i + 3])));
			v = _mm512_shuffle_epi8(v, colours);
			s0 = _mm512_dpbusd_epi32(s0, v, _mm512_loadu_si512(digits));
			s1 = _mm512_dpbusd_epi32(s1, v, _mm512_loadu_si512(digits + 64));
			s2 = _mm512_dpbusd_epi32(s2, v, _mm512_loadu_si512(digits + 128));
		}
		s0 = _mm512_add_epi32(s0, _mm512_slli_epi32(_mm512_add_epi32(s1, _mm512_slli_epi32(s2, 8)), 8));
		__m128i four = _mm512_cvtusepi32_epi8(_mm512_srli_epi32(s0, weight_bits));
		_mm_mask_storeu_epi32(out + i, (__mmask8)(left(n - i) & 0xf), four);
	}
}

static void horizontal(const uint8_t *row, pixel *out, int n, const struct along_x *a) {
	switch (a->groups) {
	case 1: resize(row, out, n, a, 1); break;
	case 2: resize(row, out, n, a, 2); break;
	default: resize(row, out, n, a, a->groups);
	}
}

// ---- The resize along y ----

// weigh takes rows two by two: words of both side by side, times their weights'
// higher and lower 11 bits.
static inline void weigh(const uint8_t *in, size_t stride, const int32_t *k, int count, uint8_t *out, int n) {
	const __m512i zero = _mm512_setzero_si512();
	for (int i = 0; i < n; i += 64) {
		const __mmask64 m = n - i >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n - i)) - 1;
		__m512i high[4], low[4];
		for (int l = 0; l < 4; l++) high[l] = _mm512_set1_epi32(weight_half >> 11), low[l] = zero;
		for (int j = 0; j < count; j += 2) {
			const int second = j + 1 < count ? k[j + 1] : 0;
			const __m512i kh = _mm512_set1_epi32((second >> 11) << 16 | k[j] >> 11);
			const __m512i kl = _mm512_set1_epi32((second & 2047) << 16 | (k[j] & 2047));
			__m512i a = _mm512_maskz_loadu_epi8(m, in + j * stride + i);
			__m512i b = j + 1 < count ? _mm512_maskz_loadu_epi8(m, in + (j + 1) * stride + i) : zero;
			__m512i lo = _mm512_unpacklo_epi8(a, b), hi = _mm512_unpackhi_epi8(a, b);
			__m512i w[4] = {_mm512_unpacklo_epi8(lo, zero), _mm512_unpackhi_epi8(lo, zero),
			                _mm512_unpacklo_epi8(hi, zero), _mm512_unpackhi_epi8(hi, zero)};
#pragma GCC unroll 4
			for (int l = 0; l < 4; l++) {
				high[l] = _mm512_dpwssd_epi32(high[l], w[l], kh);
				low[l] = _mm512_dpwssd_epi32(low[l], w[l], kl);
			}
		}
		for (int l = 0; l < 4; l++)
			low[l] = _mm512_srli_epi32(_mm512_add_epi32(low[l], _mm512_slli_epi32(high[l], 11)), weight_bits);
		__m512i words = _mm512_packus_epi32(low[0], low[1]), more = _mm512_packus_epi32(low[2], low[3]);
		_mm512_mask_storeu_epi8(out + i, m, _mm512_packus_epi16(words, more));
	}
}

static void vertical(const uint8_t *in, size_t stride, const int32_t *k, int count, uint8_t *out, int n) {
	switch (count) { // constants, so that the inner loop is unrolled
	case 1: weigh(in, stride, k, 1, out, n); break;
	case 2: weigh(in, stride, k, 2, out, n); break;
	case 3: weigh(in, stride, k, 3, out, n); break;
	case 4: weigh(in, stride, k, 4, out, n); break;
	default: weigh(in, stride, k, count, out, n);
	}
}

// ---- The blur, in words ----

// filter is a box: its weights' higher 12 and lower 12 bits, the inner in the
// lower word.
struct filter {
	int radius;
	__m512i high, low;
};

static inline struct filter filter_of(const struct view *v) {
	return (struct filter){v->radius, _mm512_set1_epi32((int)((v->outer >> 12) << 16 | v->inner >> 12)),
	                       _mm512_set1_epi32((int)((v->outer & 4095) << 16 | (v->inner & 4095)))};
}

// boxed filters 32 words: in[step·j] are the neighbours j.
static inline __m512i boxed(const uint16_t *in, ptrdiff_t step, int radius, struct filter f) {
	__m512i near = _mm512_loadu_si512(in);
	for (int j = 1; j <= radius; j++) {
		near = _mm512_add_epi16(near, _mm512_loadu_si512(in + j * step));
		near = _mm512_add_epi16(near, _mm512_loadu_si512(in - j * step));
	}
	__m512i far = _mm512_add_epi16(_mm512_loadu_si512(in + (radius + 1) * step), _mm512_loadu_si512(in - (radius + 1) * step));
	const __m512i half = _mm512_set1_epi32(1 << 11); // of 2^24, before the shift
	__m512i a = _mm512_unpacklo_epi16(near, far), b = _mm512_unpackhi_epi16(near, far);
	__m512i x = _mm512_slli_epi32(_mm512_dpwssd_epi32(half, a, f.high), 12);
	__m512i y = _mm512_slli_epi32(_mm512_dpwssd_epi32(half, b, f.high), 12);
	x = _mm512_srli_epi32(_mm512_dpwssd_epi32(x, a, f.low), 24);
	y = _mm512_srli_epi32(_mm512_dpwssd_epi32(y, b, f.low), 24);
	return _mm512_packus_epi32(x, y);
}

static inline void boxes_of(const uint16_t *in, ptrdiff_t step, int radius, struct filter f, uint16_t *out, int n) {
	for (int i = 0; i < n; i += 32) _mm512_storeu_si512(out + i, boxed(in + i, step, radius, f));
}

// boxes filters n words, and up to 31 more.
static void boxes(const uint16_t *in, ptrdiff_t step, struct filter f, uint16_t *out, int n) {
	switch (f.radius) {
	case 0: boxes_of(in, step, 0, f, out, n); break;
	case 1: boxes_of(in, step, 1, f, out, n); break;
	default: boxes_of(in, step, f.radius, f, out, n);
	}
}

// surround repeats the first and last step words of n on either side.
static void surround(uint16_t *words, int step, int n, int pad) {
	for (int i = 1; i <= pad; i++) {
		memcpy(words - i * step, words, step * sizeof *words);
		memcpy(words + n + (i - 1) * step, words + n - step, step * sizeof *words);
	}
}

static void blur_along_x(const struct view *v, pixel *px, uint8_t *first, uint8_t *second) {
	const struct filter f = filter_of(v);
	const int n = 4 * v->size, pad = pad_of(v);
	uint16_t *a = (uint16_t *)first + 4 * pad, *b = (uint16_t *)second + 4 * pad;
	for (int i = 0; i < n; i += 32)
		_mm512_storeu_si512(a + i, _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi32((__mmask8)left((n - i) / 4), px + i / 4)));
	surround(a, 4, n, pad);
	boxes(a, 4, f, b, n);
	surround(b, 4, n, pad);
	boxes(b, 4, f, a, n);
	surround(a, 4, n, pad);
	boxes(a, 4, f, b, n);
	for (int i = 0; i < n; i += 32)
		_mm256_mask_storeu_epi32(px + i / 4, (__mmask8)left((n - i) / 4), _mm512_cvtepi16_epi8(_mm512_loadu_si512(b + i)));
}

// blur_along_y takes eight columns at a time, which stay in the first cache.
static void blur_along_y(const struct view *v, pixel *view, pixel *other, uint8_t *first, uint8_t *second) {
	const struct filter f = filter_of(v);
	const int n = v->size, pad = pad_of(v);
	uint16_t *a = (uint16_t *)first + 32 * pad, *b = (uint16_t *)second + 32 * pad;
	for (int x = 0; x < n; x += 8) {
		const __mmask8 m = (__mmask8)left(n - x);
		for (int y = 0; y < n; y++)
			_mm512_storeu_si512(a + 32 * y, _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi32(m, view + (size_t)y * n + x)));
		surround(a, 32, 32 * n, pad);
		boxes(a, 32, f, b, 32 * n);
		surround(b, 32, 32 * n, pad);
		boxes(b, 32, f, a, 32 * n);
		surround(a, 32, 32 * n, pad);
		boxes(a, 32, f, b, 32 * n);
		for (int y = 0; y < n; y++)
			_mm256_mask_storeu_epi32(other + (size_t)y * n + x, m, _mm512_cvtepi16_epi8(_mm512_loadu_si512(b + 32 * y)));
	}
}
