// The steps of a view, compiled once for each level of instructions by
// view_LEVEL.c. Pixels are 32 bits: red, green, blue from the lowest byte up,
// the highest 0, so that one pixel is one lane and loops over pixels become
// vector code by themselves.
//
// Everything rounds as package augment does, to the bit: integer arithmetic is
// the same, and floating point is never contracted (-std=c11).

#include "view.h"

#include <math.h>
#include <string.h>

typedef uint32_t pixel;

#define RED(p) ((int)((p)&255))
#define GREEN(p) ((int)((p) >> 8 & 255))
#define BLUE(p) ((int)((p) >> 16 & 255))

static inline pixel rgb(int r, int g, int b) { return (pixel)r | (pixel)g << 8 | (pixel)b << 16; }

static inline int luma(int r, int g, int b) { return (r * 19595 + g * 38470 + b * 7471 + (1 << 15)) >> 16; }

static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

// blend is PIL's: cut to 8 bits, not rounded.
static inline int blend(int a, int b, float factor) {
	float v = (float)a + factor * (float)(b - a);
	v = v < 0 ? 0 : v;
	v = v > 255 ? 255 : v;
	return (int)v;
}

// with_grey is a blend with one grey level. Levels that look colours up have
// them all in table.
struct with_grey {
	int grey;
	float factor;
	uint8_t table[256];
};

#ifdef BY_TABLE
static void prepare(struct with_grey *b, int grey, float factor) {
	for (int i = 0; i < 256; i++) b->table[i] = blend(grey, i, factor);
}
#else
static void prepare(struct with_grey *b, int grey, float factor) { b->grey = grey, b->factor = factor; }
#endif

#ifndef BLEND
static void blend_with(pixel *restrict px, int n, const struct with_grey *b) {
	int grey = b->grey;
	float factor = b->factor;
	for (int i = 0; i < n; i++) {
		pixel p = px[i];
		px[i] = rgb(blend(grey, RED(p), factor), blend(grey, GREEN(p), factor), blend(grey, BLUE(p), factor));
	}
}
#endif

#ifndef SATURATE
static void saturate(pixel *restrict px, int n, float factor) {
	for (int i = 0; i < n; i++) {
		int r = RED(px[i]), g = GREEN(px[i]), b = BLUE(px[i]);
		int grey = luma(r, g, b);
		px[i] = rgb(blend(grey, r, factor), blend(grey, g, factor), blend(grey, b, factor));
	}
}
#endif

static void gray(pixel *restrict px, int n) {
	for (int i = 0; i < n; i++) {
		int grey = luma(RED(px[i]), GREEN(px[i]), BLUE(px[i]));
		px[i] = rgb(grey, grey, grey);
	}
}

static uint32_t luma_sum(const pixel *restrict px, int n) {
	uint32_t sum = 0;
	for (int i = 0; i < n; i++) sum += luma(RED(px[i]), GREEN(px[i]), BLUE(px[i]));
	return sum;
}

#ifndef SHIFT_HUE
// pick is which ? a : b for which of -1 or 0. (Conditions over several values
// become branches, which keep a loop from becoming vector code.)
static inline int pick(int which, int a, int b) { return b ^ ((a ^ b) & which); }

// shift_hue is PIL's conversion to 8-bit HSV and back, in float where the
// result is the same as PIL's in float and double for all colours and shifts.
static void shift_hue(pixel *restrict px, int n, int shift) {
	for (int i = 0; i < n; i++) {
		int r = RED(px[i]), g = GREEN(px[i]), b = BLUE(px[i]);
		int high = max(r, max(g, b)), low = min(r, min(g, b));
		int span = max(high - low, 1);
		// The hue in sixths of a turn: base of the highest colour, less or more
		// by the place of the middle one, depending on which of the others that is.
		int is_red = -(r == high), is_green = -(g == high) & ~is_red;
		int base = pick(is_red, 0, pick(is_green, 2, 4));
		int next = pick(is_red, g, pick(is_green, b, r)), previous = r + g + b - high - next;
		int up = -(previous == low);
		int side = pick(up, 1, -1);
		float place = (float)(high - pick(up, next, previous)) / (float)span;
		float turn = ((float)(base + side) - (float)side * place) / 6;
		turn += (float)(turn < 0);
		int h = (int)((double)turn * 255);
		int s = (int)((float)(high - low) / (float)max(high, 1) * 255);

		int h6 = ((h + shift) & 255) * 6;
		int sextant = h6 * 257 >> 16; // h6 / 255 for all of them
		int rest = h6 - sextant * 255;
		int falls = -(sextant & 1); // the colour between highest and lowest
		float saturation = (float)s / 255, part = (float)pick(falls, rest, 255 - rest) / 255;
		int p = (int)((float)high * (1 - saturation) + 0.5f);
		int q = (int)((float)high * (1 - saturation * part) + 0.5f);
		sextant = pick(-(sextant == 6), 0, sextant);
		int highest_red = -(sextant == 0) | -(sextant == 5), middle_red = -(sextant == 1) | -(sextant == 4);
		int highest_green = -(sextant == 1) | -(sextant == 2), middle_green = -(sextant == 0) | -(sextant == 3);
		int highest_blue = -(sextant == 3) | -(sextant == 4), middle_blue = -(sextant == 2) | -(sextant == 5);
		pixel turned = rgb(pick(highest_red, high, pick(middle_red, q, p)),
		                   pick(highest_green, high, pick(middle_green, q, p)),
		                   pick(highest_blue, high, pick(middle_blue, q, p)));
		px[i] = pick(-(high == low), px[i], turned);
	}
}
#endif

// jitter_part is one part of the colour jitter; greys are those of brightness
// and contrast.
static void jitter_part(const struct view *v, int part, const struct with_grey *greys, pixel *px) {
	switch (part) {
	case 0:
	case 1: blend_with(px, v->size, &greys[part]); break;
	case 2: saturate(px, v->size, v->factor[2]); break;
	case 3: shift_hue(px, v->size, v->hue); break;
	}
}

enum { weight_bits = 22, weight_half = 1 << (weight_bits - 1) };

#ifndef HORIZONTAL
// horizontal resizes one row [*, 3].
static void horizontal(const uint8_t *restrict row, pixel *restrict out, int n, const struct taps *t) {
	for (int i = 0; i < n; i++) {
		const uint8_t *px = row + t->first[i] * 3;
		const int32_t *k = t->weight + i * t->width;
		int32_t r = weight_half, g = weight_half, b = weight_half;
		for (int j = 0; j < t->count[i]; j++, px += 3) {
			r += px[0] * k[j];
			g += px[1] * k[j];
			b += px[2] * k[j];
		}
		out[i] = rgb(min(r >> weight_bits, 255), min(g >> weight_bits, 255), min(b >> weight_bits, 255));
	}
}
#endif

#ifndef VERTICAL
// vertical writes the weighted sum of count rows of n bytes.
static inline void weigh(const uint8_t *restrict in, size_t stride, const int32_t *k, int count, uint8_t *restrict out, int n) {
	for (int i = 0; i < n; i++) {
		int32_t sum = weight_half;
		for (int j = 0; j < count; j++) sum += in[j * stride + i] * k[j];
		out[i] = min(sum >> weight_bits, 255);
	}
}

static void vertical(const uint8_t *restrict in, size_t stride, const int32_t *k, int count, uint8_t *restrict out, int n) {
	switch (count) { // constants, so that the inner loop is unrolled
	case 1: weigh(in, stride, k, 1, out, n); break;
	case 2: weigh(in, stride, k, 2, out, n); break;
	case 3: weigh(in, stride, k, 3, out, n); break;
	case 4: weigh(in, stride, k, 4, out, n); break;
	case 5: weigh(in, stride, k, 5, out, n); break;
	case 6: weigh(in, stride, k, 6, out, n); break;
	default: { // in pieces that stay in the first cache
		enum { piece = 256 };
		int32_t sums[piece];
		for (int at = 0; at < n; at += piece) {
			int m = min(piece, n - at);
			for (int i = 0; i < m; i++) sums[i] = weight_half;
			for (int j = 0; j < count; j++) {
				const uint8_t *row = in + j * stride + at;
				for (int i = 0; i < m; i++) sums[i] += row[i] * k[j];
			}
			for (int i = 0; i < m; i++) out[at + i] = min(sums[i] >> weight_bits, 255);
		}
	}
	}
}
#endif

static inline size_t pad_of(const struct view *v) { return v->radius + 1; }

#ifndef BLUR
// box filters n bytes: in[i + step*j] is the neighbour j of output i.
static inline void box_of(const uint8_t *restrict in, ptrdiff_t step, int radius, uint32_t inner, uint32_t outer, uint8_t *restrict out, int n) {
	for (int i = 0; i < n; i++) {
		uint32_t near = 0;
		for (int j = -radius; j <= radius; j++) near += in[i + step * j];
		uint32_t far = in[i - step * (radius + 1)] + in[i + step * (radius + 1)];
		out[i] = (near * inner + far * outer + (1 << 23)) >> 24;
	}
}

static void box(const uint8_t *in, ptrdiff_t step, const struct view *v, uint8_t *out, int n) {
	switch (v->radius) {
	case 0: box_of(in, step, 0, v->inner, v->outer, out, n); break;
	case 1: box_of(in, step, 1, v->inner, v->outer, out, n); break;
	default: box_of(in, step, v->radius, v->inner, v->outer, out, n);
	}
}

// repeat_ends fills pad pixels on either side of n.
static void repeat_ends(pixel *line, int n, int pad) {
	for (int i = 1; i <= pad; i++) {
		line[-i] = line[0];
		line[n - 1 + i] = line[n - 1];
	}
}

// blur_along_x filters a row three times; first and second are scratch.
static void blur_along_x(const struct view *v, pixel *px, uint8_t *first, uint8_t *second) {
	int n = v->size, pad = pad_of(v);
	pixel *line = (pixel *)first + pad, *other = (pixel *)second + pad; // with a border
	memcpy(line, px, n * sizeof *px);
	repeat_ends(line, n, pad);
	box((uint8_t *)line, 4, v, (uint8_t *)other, 4 * n);
	repeat_ends(other, n, pad);
	box((uint8_t *)other, 4, v, (uint8_t *)line, 4 * n);
	repeat_ends(line, n, pad);
	box((uint8_t *)line, 4, v, (uint8_t *)px, 4 * n);
}

// blur_columns filters all columns once. from and to have pad rows more on
// either side, those of from yet to be filled.
static void blur_columns(const struct view *v, pixel *from, pixel *to) {
	int n = v->size, pad = pad_of(v);
	for (int i = 1; i <= pad; i++) {
		memcpy(from - i * n, from, n * sizeof *from);
		memcpy(from + (n - 1 + i) * n, from + (n - 1) * n, n * sizeof *from);
	}
	for (int y = 0; y < n; y++) box((uint8_t *)(from + y * n), 4 * n, v, (uint8_t *)(to + y * n), 4 * n);
}

// blur_along_y leaves what it makes of view in other; both have a border.
static void blur_along_y(const struct view *v, pixel *view, pixel *other, uint8_t *first, uint8_t *second) {
	blur_columns(v, view, other);
	blur_columns(v, other, view);
	blur_columns(v, view, other);
}
#endif

#ifdef FUSED_MULTIPLY_ADD
// quotient is x/d, rounded as division rounds it, from 1/d (Markstein).
static inline float quotient(float x, float d, float inverse) {
	float q = x * inverse;
	return fmaf(fmaf(-q, d, x), inverse, q);
}

static inline void normalize_channel(const pixel *restrict px, int shift, float *restrict out, int n, int flip, float mean, float std) {
	float inverse = 1 / std;
	for (int i = 0; i < n; i++) {
		float x = (int)(px[flip ? n - 1 - i : i] >> shift & 255);
		out[i] = quotient(quotient(x, 255, 1 / 255.0f) - mean, std, inverse);
	}
}
#endif

// normalize writes one row of each plane.
static void normalize(const struct view *v, const pixel *px, int y, const float *norm, float *dst) {
	int n = v->size;
	for (int c = 0; c < 3; c++) {
		float *out = dst + (size_t)c * n * n + (size_t)y * n;
#ifdef FUSED_MULTIPLY_ADD
		if (v->flip) {
			normalize_channel(px, 8 * c, out, n, 1, v->mean[c], v->std[c]);
		} else {
			normalize_channel(px, 8 * c, out, n, 0, v->mean[c], v->std[c]);
		}
#else
		const float *table = norm + 256 * c;
		for (int i = 0; i < n; i++) out[i] = table[px[v->flip ? n - 1 - i : i] >> 8 * c & 255];
#endif
	}
}

// widen converts a row [*, 3] that is not resized.
static void widen(const uint8_t *restrict row, pixel *restrict out, int n) {
	for (int i = 0; i < n; i++) out[i] = rgb(row[3 * i], row[3 * i + 1], row[3 * i + 2]);
}

void VIEW(const struct view *v, const uint8_t *src, size_t src_len, size_t stride,
          const struct taps *x, const struct taps *y, const float *norm, uint8_t *scratch, float *dst);

// The order of memory: two lines to blur with, the view twice with its border,
// the source's rows resized along x, the copy of a source row, where to resize
// along x.
void VIEW(const struct view *v, const uint8_t *src, size_t src_len, size_t stride,
          const struct taps *x, const struct taps *y, const float *norm, uint8_t *scratch, float *dst) {
	int n = v->size, pad = pad_of(v);
	uint8_t *line = scratch, *other_line = line + view_line_bytes(n, pad);
	pixel *view = (pixel *)(other_line + view_line_bytes(n, pad)) + (size_t)pad * n;
	pixel *other = view + (size_t)n * n + 2 * (size_t)pad * n;
	pixel *rows = other + (size_t)n * n + (size_t)pad * n;
	int last = n - 1;
	int top = y->first[0], count = y->first[last] + y->count[last] - top;
	uint8_t *copy = (uint8_t *)(rows + (size_t)count * n);

	// 1. Along x. What is read past a row's taps is weighed with 0, but must
	// be there.
	size_t reach = 3 * ((size_t)v->crop_w + x->width) + 16;
#ifdef PREPARE_X
	struct along_x *along = (struct along_x *)(((uintptr_t)(copy + reach) + 63) & ~(uintptr_t)63);
	if (v->resize_x) prepare_x(along, x, n);
#else
	const struct taps *along = x;
#endif
	for (int i = 0; i < count; i++) {
		size_t at = (size_t)(top + i) * stride;
		const uint8_t *row = src + at;
		if (!v->resize_x) {
			widen(row + 3 * v->from_x, rows + (size_t)i * n, n);
			continue;
		}
		if (at + reach > src_len) {
			memcpy(copy, row, 3 * v->crop_w);
			memset(copy + 3 * v->crop_w, 0, reach - 3 * v->crop_w);
			row = copy;
		}
		horizontal(row, rows + (size_t)i * n, n, along);
	}

	// 2. Along y, and the colour jitter up to contrast, which needs the mean of
	// what comes before it.
	struct with_grey greys[2];
	if (v->parts) prepare(&greys[0], 0, v->factor[0]);
	int before = 0;
	while (before < v->parts && v->order[before] != 1) before++;
	uint64_t sum = 0;
	for (int i = 0; i < n; i++) {
		pixel *px = view + (size_t)i * n;
		const pixel *from = rows + (size_t)(y->first[i] - top) * n;
		if (v->resize_y) {
			vertical((const uint8_t *)from, 4 * n, y->weight + (size_t)i * y->width, y->count[i], (uint8_t *)px, 4 * n);
		} else {
			memcpy(px, from, n * sizeof *px);
		}
		for (int p = 0; p < before; p++) jitter_part(v, v->order[p], greys, px);
		if (before < v->parts) sum += luma_sum(px, n);
	}
	if (before < v->parts) prepare(&greys[1], (int)((double)sum / ((double)n * n) + 0.5), v->factor[1]);

	// 3. The rest of the colours, and the blur along x.
	for (int i = 0; i < n; i++) {
		pixel *px = view + (size_t)i * n;
		for (int p = before; p < v->parts; p++) jitter_part(v, v->order[p], greys, px);
		if (v->gray) gray(px, n);
		if (v->blur) {
			blur_along_x(v, px, line, other_line);
		} else {
			normalize(v, px, i, norm, dst);
		}
	}
	if (!v->blur) return;

	// 4. The blur along y.
	blur_along_y(v, view, other, line, other_line);
	for (int i = 0; i < n; i++) normalize(v, other + (size_t)i * n, i, norm, dst);
}
