// What view.c offers to Go.
#ifndef MOCHI_AUGMENT_VIEW_H
#define MOCHI_AUGMENT_VIEW_H

#include <stddef.h>
#include <stdint.h>

// Levels of instructions.
enum { level_plain, level_avx2, level_avx512, level_vnni, level_vbmi };

// Taps along x are taken four at a time.
enum { tap_group = 4 };

// What is done to one view, apart from memory; see package augment.
struct view {
	int size;              // of the view, pixels
	int crop_w, crop_h;    // of the source
	int from_x;            // first column of the crop, where it is not resized along x
	int resize_x, resize_y;
	int parts;             // of the colour jitter: 0 or 4
	uint8_t order[4];      // 0 brightness, 1 contrast, 2 saturation, 3 hue
	uint8_t hue;           // added to an 8-bit hue
	float factor[3];
	int gray, flip;
	int blur;              // 0: none
	int radius;            // of the box; inner and outer are its weights
	uint32_t inner, outer;
	float mean[3], std[3];
};

// A filter along one axis: output i is the sum over j < count[i] of
// weight[i*width+j] * input[first[i]+j].
struct taps {
	const int32_t *first, *count, *weight;
	int width;  // a multiple of tap_group; weights past count are 0
	int groups; // of tap_group taps, that hold those of every output
};

// mochi_view makes a view of the crop at src, of which src_len bytes may be
// read, rows stride bytes apart. norm [3, 256] is the value of each 8-bit
// colour in dst [3, S, S]. scratch has mochi_view_scratch bytes.
void mochi_view(int level, const struct view *v, const uint8_t *src, size_t src_len, size_t stride,
                const int32_t *x_first, const int32_t *x_count, const int32_t *x_weight, int x_width,
                const int32_t *y_first, const int32_t *y_count, const int32_t *y_weight, int y_width,
                const float *norm, uint8_t *scratch, float *dst);

// view_line_bytes is what a row of a view of n pixels takes while it is
// blurred, or eight columns.
static inline size_t view_line_bytes(size_t n, size_t pad) { return 64 * (n + 2 * pad + 2); }

// view_along_bytes is what the filter along x takes when it is laid out anew.
static inline size_t view_along_bytes(size_t n, size_t width) {
	size_t blocks = (n + 3) / 4, groups = width / tap_group;
	return 64 + 16 * (blocks + 3) + 192 * blocks * groups;
}

// mochi_view_scratch is for a view of size pixels from rows rows of the source.
size_t mochi_view_scratch(const struct view *v, int rows, int x_width);

int mochi_view_best_level(void);

#endif
