// Formats, element-wise loops, bias, rows of length 1.

template <typename T>
__device__ void images_of(const float *x, int channels, int padded, int pixels, T *y) {
    enum { n = lanes<T>::n };
    const int p = blockIdx.x * blockDim.x + threadIdx.x;
    if (p >= pixels) return;
    const float *image = x + blockIdx.y * (long long)channels * pixels + p;
    T *to = y + (blockIdx.y * (long long)pixels + p) * padded;
    for (int c = 0; c < padded; c += n) {
        float v[n];
        for (int i = 0; i < n; i++) v[i] = c + i < channels ? image[(long long)(c + i) * pixels] : 0;
        store(to + c, padded - c, padded % n == 0, v);
    }
}

#define P(T) (const float *x, int channels, int padded, int pixels, T *y)
BOTH_TYPES(images, P, (x, channels, padded, pixels, y))
#undef P

// VECTORS is a flat loop over n values, N at a time: from `at`, `left` of them,
// or whole vectors.
#define VECTORS(N, n)                                                        \
    FLAT(vector_, ((n) + N - 1) / N)                                         \
    for (long long at = vector_ * N, left = (n) - at; at >= 0; at = -1)
#define WHOLE(N) (left >= N)

KERNEL to_bf16(long long n, const float *x, bf16 *y) {
    VECTORS(8, n) {
        float v[8];
        for (int i = 0; i < 8; i++) v[i] = i < left ? x[at + i] : 0;
        store(y + at, (int)left, WHOLE(8), v);
    }
}

KERNEL to_f32(long long n, const bf16 *x, float *y) {
    VECTORS(8, n) {
        float v[8];
        load(x + at, (int)left, WHOLE(8), v);
        for (int i = 0; i < 8; i++)
            if (i < left) y[at + i] = v[i];
    }
}

template <typename T> __device__ void add_of(long long n, const T *a, const T *b, T *y) {
    enum { N = lanes<T>::n };
    VECTORS(N, n) {
        float v[N], w[N];
        load(a + at, (int)left, WHOLE(N), v);
        load(b + at, (int)left, WHOLE(N), w);
        for (int i = 0; i < N; i++) v[i] += w[i];
        store(y + at, (int)left, WHOLE(N), v);
    }
}

#define P(T) (long long n, const T *a, const T *b, T *y)
BOTH_TYPES(add, P, (n, a, b, y))
#undef P

template <typename T> __device__ void relu_of(long long n, const T *x, T *y) {
    enum { N = lanes<T>::n };
    VECTORS(N, n) {
        float v[N];
        load(x + at, (int)left, WHOLE(N), v);
        for (int i = 0; i < N; i++) v[i] = relu_of(v[i]);
        store(y + at, (int)left, WHOLE(N), v);
    }
}

#define P(T) (long long n, const T *x, T *y)
BOTH_TYPES(relu, P, (n, x, y))
#undef P

template <typename T> __device__ void relu_grad_of(long long n, const T *y, const T *dy, T *dx) {
    enum { N = lanes<T>::n };
    VECTORS(N, n) {
        float v[N], g[N];
        load(y + at, (int)left, WHOLE(N), v);
        load(dy + at, (int)left, WHOLE(N), g);
        for (int i = 0; i < N; i++)
            if (!(v[i] > 0)) g[i] = 0;
        store(dx + at, (int)left, WHOLE(N), g);
    }
}

#define P(T) (long long n, const T *y, const T *dy, T *dx)
BOTH_TYPES(relu_grad, P, (n, y, dy, dx))
#undef P

template <typename T>
__device__ void bias_of(long long n, int channels, const T *x, const float *bias, int relu, T *y) {
    enum { N = lanes<T>::n };
    VECTORS(N, n) {
        float v[N];
        load(x + at, (int)left, WHOLE(N), v);
        int c = (int)(at % channels);
        for (int i = 0; i < N; i++) {
            v[i] += bias[c];
            if (relu) v[i] = relu_of(v[i]);
            if (++c == channels) c = 0;
        }
        store(y + at, (int)left, WHOLE(N), v);
    }
}

#define P(T) (long long n, int channels, const T *x, const float *bias, int relu, T *y)
BOTH_TYPES(bias, P, (n, channels, x, bias, relu, y))
#undef P

template <typename T> __device__ void bias_grad_of(const T *dy, int rows, int channels, float *db) {
    sum_rows(dy, rows, channels, 1, db);
}

#define P(T) (const T *dy, int rows, int channels, float *db)
BOTH_TYPES(bias_grad, P, (dy, rows, channels, db))
#undef P

// warp_sum is the sum over a warp, the same in every lane.
__device__ inline double warp_sum(double v) {
    for (int lane = 16; lane > 0; lane /= 2) v += __shfl_xor_sync(0xffffffffu, v, lane);
    return v;
}

#define SMALLEST_NORM 1e-12

// Rows are independent, and a warp has one: it leaves as a whole.
KERNEL l2norm(int rows, int channels, const float *x, float *y, float *norms) {
    const int r = blockIdx.x * blockDim.y + threadIdx.y;
    if (r >= rows) return;
    const float *from = x + (long long)r * channels;
    double squares = 0;
    for (int c = threadIdx.x; c < channels; c += 32) squares += (double)from[c] * from[c];
    double norm = sqrt(warp_sum(squares));
    if (norm < SMALLEST_NORM) norm = SMALLEST_NORM;
    for (int c = threadIdx.x; c < channels; c += 32) y[(long long)r * channels + c] = (float)(from[c] / norm);
    if (threadIdx.x == 0) norms[r] = (float)norm;
}

KERNEL l2norm_grad(int rows, int channels, const float *y, const float *norms, const float *dy, float *dx) {
    const int r = blockIdx.x * blockDim.y + threadIdx.y;
    if (r >= rows) return;
    const long long row = (long long)r * channels;
    const float norm = norms[r];
    double along = 0;
    if (norm > (float)SMALLEST_NORM)
        for (int c = threadIdx.x; c < channels; c += 32) along += (double)y[row + c] * dy[row + c];
    along = warp_sum(along);
    for (int c = threadIdx.x; c < channels; c += 32) dx[row + c] = (float)((dy[row + c] - y[row + c] * along) / norm);
}
