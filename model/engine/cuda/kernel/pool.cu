// Pooling. A thread has one vector of channels of one pixel; neighbouring
// threads have neighbouring channels.

// window is a thread's place in a launch of Pool: image blockIdx.y, pixel
// (r, s) of h×w, channels from c on.
template <typename T> struct window {
    enum { n = lanes<T>::n };
    int r, s, c, left;
    bool whole, there;

    __device__ window(int h, int w, int channels) {
        const int vectors = (channels + n - 1) / n;
        const long long id = blockIdx.x * (long long)blockDim.x + threadIdx.x, pixel = id / vectors;
        there = pixel < (long long)h * w;
        c = (int)(id % vectors) * n;
        r = (int)(pixel / w);
        s = (int)(pixel % w);
        left = channels - c;
        whole = channels % n == 0;
    }
};

__device__ inline void store_bytes(unsigned char *p, int left, bool whole, const int (&v)[4]) {
    if (whole) {
        *(u32 *)p = v[0] | v[1] << 8 | v[2] << 16 | v[3] << 24;
        return;
    }
    for (int i = 0; i < 4; i++)
        if (i < left) p[i] = (unsigned char)v[i];
}

__device__ inline void store_bytes(unsigned char *p, int left, bool whole, const int (&v)[8]) {
    const int low[4] = {v[0], v[1], v[2], v[3]}, high[4] = {v[4], v[5], v[6], v[7]};
    store_bytes(p, left, whole, low);
    store_bytes(p + 4, left - 4, whole, high);
}

template <typename T>
__device__ void maxpool_of(const T *x, const float *scale, const float *shift, int group_images, int channels, int ih,
                           int iw, int oh, int ow, int kernel, int stride, int pad, T *y, unsigned char *arg) {
    const window<T> t(oh, ow, channels);
    if (!t.there) return;
    float a[t.n], b[t.n], best[t.n];
    int tap[t.n];
    if (scale) {
        const long long group = blockIdx.y / group_images * (long long)channels + t.c;
        coefficients(scale + group, t.left, a);
        coefficients(shift + group, t.left, b);
    }
    const int top = t.r * stride - pad, left = t.s * stride - pad;
    const int y0 = top < 0 ? 0 : top, y1 = top + kernel < ih ? top + kernel : ih;
    const int x0 = left < 0 ? 0 : left, x1 = left + kernel < iw ? left + kernel : iw;
    for (int i = 0; i < t.n; i++) {
        best[i] = -INF;
        tap[i] = (y0 - top) * kernel + x0 - left;
    }
    const T *image = x + blockIdx.y * (long long)ih * iw * channels + t.c;
    for (int r = y0; r < y1; r++)
        for (int s = x0; s < x1; s++) {
            float v[t.n];
            load(image + ((long long)r * iw + s) * channels, t.left, t.whole, v);
            for (int i = 0; i < t.n; i++) {
                if (scale) v[i] = rounded<T>(relu_of(fmaf(v[i], a[i], b[i])));
                // Greater or NaN; a NaN once found stays.
                if (!(v[i] <= best[i]) && best[i] == best[i]) {
                    best[i] = v[i];
                    tap[i] = (r - top) * kernel + s - left;
                }
            }
        }
    const long long to = ((blockIdx.y * (long long)oh + t.r) * ow + t.s) * channels + t.c;
    store(y + to, t.left, t.whole, best);
    if (arg) store_bytes(arg + to, t.left, t.whole, tap);
}

#define P(T)                                                                                                       \
    (const T *x, const float *scale, const float *shift, int group_images, int channels, int ih, int iw, int oh,   \
     int ow, int kernel, int stride, int pad, T *y, unsigned char *arg)
BOTH_TYPES(maxpool, P, (x, scale, shift, group_images, channels, ih, iw, oh, ow, kernel, stride, pad, y, arg))
#undef P

// Every input pixel gathers from the windows that cover it, so that its sum is
// rounded once and no two threads write one value.
template <typename T>
__device__ void maxpool_grad_of(const T *dy, const unsigned char *arg, int channels, int ih, int iw, int oh, int ow,
                                int kernel, int stride, int pad, T *dx) {
    const window<T> t(ih, iw, channels);
    if (!t.there) return;
    int r1 = (t.r + pad) / stride, s1 = (t.s + pad) / stride;
    int r0 = t.r + pad - kernel + 1, s0 = t.s + pad - kernel + 1;
    r0 = r0 <= 0 ? 0 : (r0 + stride - 1) / stride;
    s0 = s0 <= 0 ? 0 : (s0 + stride - 1) / stride;
    if (r1 >= oh) r1 = oh - 1;
    if (s1 >= ow) s1 = ow - 1;
    float sum[t.n] = {};
    for (int a = r0; a <= r1; a++)
        for (int b = s0; b <= s1; b++) {
            const int tap = (t.r - a * stride + pad) * kernel + t.s - b * stride + pad;
            const long long at = ((blockIdx.y * (long long)oh + a) * ow + b) * channels + t.c;
            float g[t.n];
            load(dy + at, t.left, t.whole, g);
            for (int i = 0; i < t.n; i++)
                if (i < t.left && arg[at + i] == tap) sum[i] += g[i];
        }
    store(dx + ((blockIdx.y * (long long)ih + t.r) * iw + t.s) * channels + t.c, t.left, t.whole, sum);
}

#define P(T)                                                                                                       \
    (const T *dy, const unsigned char *arg, int channels, int ih, int iw, int oh, int ow, int kernel, int stride,  \
     int pad, T *dx)
BOTH_TYPES(maxpool_grad, P, (dy, arg, channels, ih, iw, oh, ow, kernel, stride, pad, dx))
#undef P

// sum_rows writes the sums over all rows of group blockIdx.z, times factor.
template <typename T> __device__ void sum_rows(const T *x, int rows, int channels, float factor, float *y) {
    const tile<T> t(rows, channels, rows);
    float sums[1][t.n] = {};
    for (long long r = t.from; r < t.to; r += blockDim.y) {
        float v[t.n];
        load(x + t.at + r * channels, t.left, t.whole, v);
        for (int i = 0; i < t.n; i++) sums[0][i] += v[i];
    }
    column_sums<1, t.n>(sums, factor, channels, y + blockIdx.z * (long long)channels);
}

template <typename T> __device__ void avgpool_of(const T *x, int pixels, int channels, float *y) {
    sum_rows(x, pixels, channels, 1.0f / pixels, y);
}

#define P(T) (const T *x, int pixels, int channels, float *y)
BOTH_TYPES(avgpool, P, (x, pixels, channels, y))
#undef P

template <typename T>
__device__ void avgpool_grad_of(const float *dy, long long rows, int channels, int chunk, T *dx) {
    const tile<T> t(rows, channels, chunk);
    if (t.left <= 0) return;
    float g[t.n];
    coefficients(dy + blockIdx.z * (long long)channels + t.c, t.left, g);
    for (int i = 0; i < t.n; i++) g[i] *= 1.0f / rows;
    for (long long r = t.from; r < t.to; r += blockDim.y) store(dx + t.at + r * channels, t.left, t.whole, g);
}

#define P(T) (const float *dy, long long rows, int channels, int chunk, T *dx)
BOTH_TYPES(avgpool_grad, P, (dy, rows, channels, chunk, dx))
#undef P
