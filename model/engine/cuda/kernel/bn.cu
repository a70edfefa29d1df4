// BatchNorm in training, [groups][rows][channels], every group with its own
// statistics. The cost is memory traffic: each pass touches every value once
// and joins what happens to it there.
//
// Forward: bn_stats, bn_fold, bn_apply wherever the normalised value is
// needed. Backward: bn_grad_sums, bn_grad_fold for each branch, bn_grad_apply.

// A chunk's mean and Σ(x−mean)². Every thread sums relative to the first of
// its rows, so that one value far off the others costs its own thread's digits
// only; threads are combined (Chan, Golub and LeVeque 1979) relative to the
// chunk's first row, so that no digits are lost where the mean is far from
// zero.
template <typename T>
__device__ void bn_stats_of(const T *x, long long rows, int channels, int chunk, float *part) {
    const tile<T> t(rows, channels, chunk);
    const T *p = x + t.at;
    const long long top = blockIdx.y * (long long)chunk;
    float origin[t.n] = {}, first[t.n] = {}, sum[t.n] = {}, square[t.n] = {};
    if (t.from < t.to) load(p + top * channels, t.left, t.whole, origin);
    if (t.from < t.to) load(p + t.from * channels, t.left, t.whole, first);
    for (long long r = t.from + blockDim.y; r < t.to; r += blockDim.y) {
        float v[t.n];
        load(p + r * channels, t.left, t.whole, v);
        for (int i = 0; i < t.n; i++) {
            const float d = v[i] - first[i];
            sum[i] += d;
            square[i] = fmaf(d, d, square[i]);
        }
    }
    const int wide = blockDim.x * t.n, deep = blockDim.y;
    const int m = (int)(t.to - top); // rows of the block
    const float own = (m - (int)threadIdx.y + deep - 1) / deep; // of the thread
    float *mean = SHARED(float), *around = mean + deep * wide;
    for (int i = 0; i < t.n; i++) {
        const int at = threadIdx.y * wide + threadIdx.x * t.n + i;
        mean[at] = first[i] - origin[i] + sum[i] / own;
        around[at] = square[i] - sum[i] * (sum[i] / own);
    }
    __syncthreads();
    float *out = part + (blockIdx.z * (long long)gridDim.y + blockIdx.y) * 2 * channels;
    for (int k = threadIdx.y * blockDim.x + threadIdx.x; k < wide; k += blockDim.x * blockDim.y) {
        const int c = blockIdx.x * wide + k;
        if (c >= channels) continue;
        float count = (m + deep - 1) / deep, a = mean[k], s = around[k];
        for (int y = 1; y < deep && y < m; y++) {
            const float more = (m - y + deep - 1) / deep, apart = mean[y * wide + k] - a, total = count + more;
            a += apart * (more / total);
            s += around[y * wide + k] + apart * apart * (count * (more / total));
            count = total;
        }
        out[c] = widen(x[(blockIdx.z * rows + top) * channels + c]) + a;
        out[channels + c] = s < 0 ? 0 : s; // rounding; NaN stays
    }
}

#define P(T) (const T *x, long long rows, int channels, int chunk, float *part)
BOTH_TYPES(bn_stats, P, (x, rows, channels, chunk, part))
#undef P

// moments are a count, a mean and Σ(x−mean)².
struct moments {
    double count, mean, squares;
};

// merge combines two sets (Chan, Golub and LeVeque 1979).
__device__ inline void merge(moments *a, double count, double mean, double squares) {
    if (count == 0) return;
    const double apart = mean - a->mean, total = a->count + count;
    a->mean += apart * count / total;
    a->squares += squares + apart * apart * a->count * count / total;
    a->count = total;
}

KERNEL bn_fold(const float *part, long long rows, int channels, int chunk, const float *gamma, const float *beta,
               float eps, float *mean, float *invstd, float *scale, float *shift, float *stat_mean, float *stat_var,
               int stat_stride) {
    const int c = blockIdx.x * 32 + threadIdx.x;
    const long long chunks = (rows + chunk - 1) / chunk;
    moments m = {0, 0, 0};
    if (c < channels)
        for (long long j = threadIdx.y; j < chunks; j += blockDim.y) {
            const float *p = part + (blockIdx.y * chunks + j) * 2 * channels + c;
            const long long left = rows - j * chunk;
            merge(&m, (double)(left < chunk ? left : chunk), p[0], p[channels]);
        }
    moments *all = SHARED(moments);
    all[threadIdx.y * 32 + threadIdx.x] = m;
    __syncthreads();
    if (threadIdx.y != 0 || c >= channels) return;
    for (int y = 1; y < (int)blockDim.y; y++) {
        const moments o = all[y * 32 + threadIdx.x];
        merge(&m, o.count, o.mean, o.squares);
    }
    const double inverse = 1 / sqrt(m.squares / m.count + eps);
    const long long to = blockIdx.y * (long long)channels + c;
    mean[to] = (float)m.mean;
    invstd[to] = (float)inverse;
    scale[to] = (float)(gamma[c] * inverse);
    shift[to] = (float)(beta[c] - m.mean * (gamma[c] * inverse));
    if (!stat_mean) return;
    const long long stat = blockIdx.y * (long long)stat_stride + c;
    stat_mean[stat] = (float)m.mean;
    stat_var[stat] = (float)(m.squares / (m.count - 1));
}

KERNEL bn_fold_eval(int channels, const float *mean, const float *var, const float *gamma, const float *beta, float eps,
                    float *scale, float *shift) {
    FLAT(c, channels) {
        const double by = gamma[c] / sqrt((double)var[c] + eps);
        scale[c] = (float)by;
        shift[c] = (float)(beta[c] - mean[c] * by);
    }
}

template <typename T>
__device__ void bn_apply_of(const T *x, const float *scale, const float *shift, const T *residual, const float *rscale,
                            const float *rshift, int relu, long long rows, int channels, int chunk, T *y) {
    const tile<T> t(rows, channels, chunk);
    if (t.left <= 0) return;
    const long long group = blockIdx.z * (long long)channels + t.c;
    float a[t.n], b[t.n], ra[t.n], rb[t.n];
    coefficients(scale + group, t.left, a);
    coefficients(shift + group, t.left, b);
    if (rscale) {
        coefficients(rscale + group, t.left, ra);
        coefficients(rshift + group, t.left, rb);
    }
    for (long long r = t.from; r < t.to; r += blockDim.y) {
        const long long at = t.at + r * channels;
        float v[t.n], w[t.n];
        load(x + at, t.left, t.whole, v);
        if (residual) load(residual + at, t.left, t.whole, w);
        for (int i = 0; i < t.n; i++) {
            v[i] = fmaf(v[i], a[i], b[i]);
            if (residual) v[i] += rscale ? fmaf(w[i], ra[i], rb[i]) : w[i];
            if (relu) v[i] = relu_of(v[i]);
        }
        store(y + at, t.left, t.whole, v);
    }
}

#define P(T)                                                                                                    \
    (const T *x, const float *scale, const float *shift, const T *residual, const float *rscale,                \
     const float *rshift, int relu, long long rows, int channels, int chunk, T *y)
BOTH_TYPES(bn_apply, P, (x, scale, shift, residual, rscale, rshift, relu, rows, channels, chunk, y))
#undef P

// Masks, as in kernels.go.
enum { MASK_NONE = 0, MASK_SELF = 1, MASK_OUTPUT = 2 };

// masked sets the values of g to zero that a ReLU kept back in forward.
template <typename T>
__device__ inline void masked(int mask, const tile<T> &t, const T *y, long long at, const float (&x0)[lanes<T>::n],
                              const float (&scale)[lanes<T>::n], const float (&shift)[lanes<T>::n],
                              float (&g)[lanes<T>::n]) {
    enum { n = lanes<T>::n };
    if (mask == MASK_SELF)
        for (int i = 0; i < n; i++)
            if (!(fmaf(x0[i], scale[i], shift[i]) > 0)) g[i] = 0;
    if (mask == MASK_OUTPUT) {
        float out[n];
        load(y + at, t.left, t.whole, out);
        for (int i = 0; i < n; i++)
            if (!(out[i] > 0)) g[i] = 0;
    }
}

template <typename T, int branches>
__device__ void bn_grad_sums_for(const T *dy, const T *add, int mask, const T *y, T *gout, const T *x0,
                                 const float *scale0, const float *shift0, const float *mean0, const T *x1,
                                 const float *mean1, long long rows, int channels, int chunk, float *part) {
    const tile<T> t(rows, channels, chunk);
    const long long group = blockIdx.z * (long long)channels + t.c;
    float scale[t.n], shift[t.n], m0[t.n], m1[t.n], sums[1 + branches][t.n] = {};
    if (t.left > 0) {
        if (mask == MASK_SELF) {
            coefficients(scale0 + group, t.left, scale);
            coefficients(shift0 + group, t.left, shift);
        }
        if (branches > 0) coefficients(mean0 + group, t.left, m0);
        if (branches > 1) coefficients(mean1 + group, t.left, m1);
    }
    for (long long r = t.from; r < t.to; r += blockDim.y) {
        const long long at = t.at + r * channels;
        float g[t.n], more[t.n], a[t.n], b[t.n];
        load(dy + at, t.left, t.whole, g);
        if (branches > 0) load(x0 + at, t.left, t.whole, a);
        if (branches > 1) load(x1 + at, t.left, t.whole, b);
        if (add) {
            load(add + at, t.left, t.whole, more);
            for (int i = 0; i < t.n; i++) g[i] = rounded<T>(g[i] + more[i]);
        }
        masked(mask, t, y, at, a, scale, shift, g);
        if (gout) store(gout + at, t.left, t.whole, g);
        for (int i = 0; i < t.n; i++) {
            sums[0][i] += g[i];
            if (branches > 0) sums[branches > 0][i] = fmaf(g[i], a[i] - m0[i], sums[branches > 0][i]);
            if (branches > 1) sums[branches][i] = fmaf(g[i], b[i] - m1[i], sums[branches][i]);
        }
    }
    if (branches == 0) return;
    const long long block = blockIdx.z * (long long)gridDim.y + blockIdx.y;
    column_sums<1 + branches, t.n>(sums, 1, channels, part + block * (1 + branches) * channels);
}

template <typename T>
__device__ void bn_grad_sums_of(const T *dy, const T *add, int mask, const T *y, T *gout, int branches, const T *x0,
                                const float *scale0, const float *shift0, const float *mean0, const T *x1,
                                const float *mean1, long long rows, int channels, int chunk, float *part) {
    if (branches == 0)
        bn_grad_sums_for<T, 0>(dy, add, mask, y, gout, x0, scale0, shift0, mean0, x1, mean1, rows, channels, chunk, part);
    else if (branches == 1)
        bn_grad_sums_for<T, 1>(dy, add, mask, y, gout, x0, scale0, shift0, mean0, x1, mean1, rows, channels, chunk, part);
    else
        bn_grad_sums_for<T, 2>(dy, add, mask, y, gout, x0, scale0, shift0, mean0, x1, mean1, rows, channels, chunk, part);
}

#define P(T)                                                                                                       \
    (const T *dy, const T *add, int mask, const T *y, T *gout, int branches, const T *x0, const float *scale0,     \
     const float *shift0, const float *mean0, const T *x1, const float *mean1, long long rows, int channels,       \
     int chunk, float *part)
BOTH_TYPES(bn_grad_sums, P,
           (dy, add, mask, y, gout, branches, x0, scale0, shift0, mean0, x1, mean1, rows, channels, chunk, part))
#undef P

// dx = γ·invstd·(g − mean(g) − x̂·mean(g·x̂)) = a·g + b·x + k.
KERNEL bn_grad_fold(const float *part, long long rows, int channels, int chunk, int branches, int branch,
                    const float *gamma, const float *mean, const float *invstd, float *dgamma, float *dbeta,
                    long long grad_stride, float *a, float *b, float *k) {
    const int c = blockIdx.x * 32 + threadIdx.x, sums = 1 + branches;
    const long long chunks = (rows + chunk - 1) / chunk;
    double g = 0, gx = 0;
    if (c < channels)
        for (long long j = threadIdx.y; j < chunks; j += blockDim.y) {
            const float *p = part + (blockIdx.y * chunks + j) * sums * channels + c;
            g += p[0];
            gx += p[(long long)(1 + branch) * channels];
        }
    double *all = SHARED(double);
    const int at = threadIdx.y * 32 + threadIdx.x, plane = blockDim.y * 32;
    all[at] = g;
    all[plane + at] = gx;
    __syncthreads();
    if (threadIdx.y != 0 || c >= channels) return;
    for (int y = 1; y < (int)blockDim.y; y++) {
        g += all[y * 32 + threadIdx.x];
        gx += all[plane + y * 32 + threadIdx.x];
    }
    const long long to = blockIdx.y * (long long)channels + c;
    const double inverse = invstd[to], m = (double)rows;
    gx *= inverse; // Σ g·x̂
    dgamma[blockIdx.y * grad_stride + c] = (float)gx;
    dbeta[blockIdx.y * grad_stride + c] = (float)g;
    const double by = gamma[c] * inverse, slope = -by * inverse * gx / m;
    a[to] = (float)by;
    b[to] = (float)slope;
    k[to] = (float)(-by * g / m - slope * mean[to]);
}

template <typename T>
__device__ void bn_grad_apply_of(const T *dy, int mask, const T *y, int branches, const T *x0, const float *scale0,
                                 const float *shift0, const float *a0, const float *b0, const float *k0, T *dx0,
                                 const T *x1, const float *a1, const float *b1, const float *k1, T *dx1, long long rows,
                                 int channels, int chunk) {
    const tile<T> t(rows, channels, chunk);
    if (t.left <= 0) return;
    const long long group = blockIdx.z * (long long)channels + t.c;
    float scale[t.n], shift[t.n], a[2][t.n], b[2][t.n], k[2][t.n];
    if (mask == MASK_SELF) {
        coefficients(scale0 + group, t.left, scale);
        coefficients(shift0 + group, t.left, shift);
    }
    coefficients(a0 + group, t.left, a[0]);
    coefficients(b0 + group, t.left, b[0]);
    coefficients(k0 + group, t.left, k[0]);
    if (branches > 1) {
        coefficients(a1 + group, t.left, a[1]);
        coefficients(b1 + group, t.left, b[1]);
        coefficients(k1 + group, t.left, k[1]);
    }
    for (long long r = t.from; r < t.to; r += blockDim.y) {
        const long long at = t.at + r * channels;
        float g[t.n], x[t.n], other[t.n], d[t.n];
        load(dy + at, t.left, t.whole, g);
        load(x0 + at, t.left, t.whole, x);
        if (branches > 1) load(x1 + at, t.left, t.whole, other);
        masked(mask, t, y, at, x, scale, shift, g);
        for (int i = 0; i < t.n; i++) d[i] = fmaf(a[0][i], g[i], fmaf(b[0][i], x[i], k[0][i]));
        store(dx0 + at, t.left, t.whole, d);
        if (branches < 2) continue;
        for (int i = 0; i < t.n; i++) d[i] = fmaf(a[1][i], g[i], fmaf(b[1][i], other[i], k[1][i]));
        store(dx1 + at, t.left, t.whole, d);
    }
}

#define P(T)                                                                                                       \
    (const T *dy, int mask, const T *y, int branches, const T *x0, const float *scale0, const float *shift0,       \
     const float *a0, const float *b0, const float *k0, T *dx0, const T *x1, const float *a1, const float *b1,     \
     const float *k1, T *dx1, long long rows, int channels, int chunk)
BOTH_TYPES(bn_grad_apply, P,
           (dy, mask, y, branches, x0, scale0, shift0, a0, b0, k0, dx0, x1, a1, b1, k1, dx1, rows, channels, chunk))
#undef P
