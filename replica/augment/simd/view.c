//go:build simd

#include "view.h"

typedef void view_at(const struct view *v, const uint8_t *src, size_t src_len, size_t stride,
                     const struct taps *x, const struct taps *y, const float *norm, uint8_t *scratch, float *dst);

view_at mochi_view_plain;
#ifdef __x86_64__
view_at mochi_view_avx2, mochi_view_avx512, mochi_view_vnni, mochi_view_vbmi;
#endif

int mochi_view_best_level(void) {
#ifdef __x86_64__
	__builtin_cpu_init();
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return level_plain;
	if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
	    !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) return level_avx2;
	if (!__builtin_cpu_supports("avx512vnni")) return level_avx512;
	return __builtin_cpu_supports("avx512vbmi") ? level_vbmi : level_vnni;
#else
	return level_plain;
#endif
}

size_t mochi_view_scratch(const struct view *v, int rows, int x_width) {
	size_t n = v->size, pad = v->radius + 1;
	size_t views = 2 * (n * n + 2 * pad * n);
	size_t copy = 3 * ((size_t)v->crop_w + x_width) + 16;
	return 2 * view_line_bytes(n, pad) + 4 * (views + (size_t)rows * n) + copy + view_along_bytes(n, x_width) + 128;
}

void mochi_view(int level, const struct view *v, const uint8_t *src, size_t src_len, size_t stride,
                const int32_t *x_first, const int32_t *x_count, const int32_t *x_weight, int x_width,
                const int32_t *y_first, const int32_t *y_count, const int32_t *y_weight, int y_width,
                const float *norm, uint8_t *scratch, float *dst) {
	struct taps x = {x_first, x_count, x_weight, x_width, 0};
	struct taps y = {y_first, y_count, y_weight, y_width, 0};
	for (int i = 0; v->resize_x && i < v->size; i++) {
		int groups = (x_count[i] + tap_group - 1) / tap_group;
		if (groups > x.groups) x.groups = groups;
	}
	view_at *at = mochi_view_plain;
#ifdef __x86_64__
	if (level == level_avx2) at = mochi_view_avx2;
	if (level >= level_avx512) at = mochi_view_avx512;
	if (level > level_avx512 && v->radius <= 60) // sums of their boxes have 15 bits
		at = level == level_vbmi ? mochi_view_vbmi : mochi_view_vnni;
#endif
	at(v, src, src_len, stride, &x, &y, norm, scratch, dst);
}
