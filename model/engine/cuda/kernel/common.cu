// What all kernels share. The program is one translation unit, compiled by
// NVRTC for the device at hand and, in the tests, by a C++ compiler; it
// includes nothing.
//
// Shared memory is dynamic only (SHARED): the launch says how much, and the
// tests put a guard behind it.

typedef unsigned short bf16; // the upper half of a float
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL extern "C" __global__ void __launch_bounds__(256)

#ifndef SHARED
extern __shared__ __align__(16) unsigned char shared_memory[];
#define SHARED(T) ((T *)shared_memory)
#endif

#define INF __uint_as_float(0x7f800000u)

// ---- bf16 ----

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(bf16 x) { return __uint_as_float((u32)x << 16); }

// round_bf16 rounds to nearest, ties to even; NaN stays a NaN.
__device__ inline bf16 round_bf16(float x) {
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (bf16)(bits >> 16 | 0x40);
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ inline void narrow(float *to, float x) { *to = x; }
__device__ inline void narrow(bf16 *to, float x) { *to = round_bf16(x); }

// rounded is x as a T holds it.
template <typename T> __device__ inline float rounded(float x) {
    T y;
    narrow(&y, x);
    return widen(y);
}

// relu lets NaN through.
__device__ inline float relu_of(float x) { return x < 0 ? 0 : x; }

// ---- Vectors of channels ----

// lanes<T>::n is how many values a thread moves at a time: 16 bytes.
template <typename T> struct lanes;
template <> struct lanes<float> {
    enum { n = 4 };
};
template <> struct lanes<bf16> {
    enum { n = 8 };
};

__device__ inline void unpack(uint4 q, float (&v)[4]) {
    v[0] = __uint_as_float(q.x), v[1] = __uint_as_float(q.y);
    v[2] = __uint_as_float(q.z), v[3] = __uint_as_float(q.w);
}

__device__ inline void unpack(uint4 q, float (&v)[8]) {
    const u32 w[4] = {q.x, q.y, q.z, q.w};
    for (int i = 0; i < 4; i++) {
        v[2 * i] = __uint_as_float(w[i] << 16);
        v[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
}

// pair packs two values, the first in the lower half.
__device__ inline u32 pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    u32 both; // to nearest, ties to even, as round_bf16; every NaN becomes 0x7fff
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return (u32)round_bf16(high) << 16 | round_bf16(low);
#endif
}

__device__ inline uint4 pack(const float (&v)[4]) {
    uint4 q;
    q.x = __float_as_uint(v[0]), q.y = __float_as_uint(v[1]);
    q.z = __float_as_uint(v[2]), q.w = __float_as_uint(v[3]);
    return q;
}

__device__ inline uint4 pack(const float (&v)[8]) {
    uint4 q;
    q.x = pair(v[0], v[1]), q.y = pair(v[2], v[3]), q.z = pair(v[4], v[5]), q.w = pair(v[6], v[7]);
    return q;
}

// load reads a thread's values at p: all of them at once where whole (p is a
// multiple of 16 bytes then), else the first `left`, zeros behind.
template <typename T> __device__ inline void load(const T *p, int left, bool whole, float (&v)[lanes<T>::n]) {
    if (whole) {
        unpack(*(const uint4 *)p, v);
        return;
    }
    for (int i = 0; i < lanes<T>::n; i++) v[i] = i < left ? widen(p[i]) : 0;
}

// store is its counterpart.
template <typename T> __device__ inline void store(T *p, int left, bool whole, const float (&v)[lanes<T>::n]) {
    if (whole) {
        *(uint4 *)p = pack(v);
        return;
    }
    for (int i = 0; i < lanes<T>::n; i++)
        if (i < left) narrow(p + i, v[i]);
}

// coefficients reads n of a channel vector from channel c on.
template <int n> __device__ inline void coefficients(const float *p, int left, float (&v)[n]) {
    for (int i = 0; i < n; i++) v[i] = i < left ? p[i] : 0;
}

// ---- Tiles of [groups][rows][channels] (launch.go, Tile) ----

// tile is one thread's part: a vector of channels of every blockDim.y-th row
// of its block's chunk.
template <typename T> struct tile {
    enum { n = lanes<T>::n };
    int c, left;        // first channel, and how many from there on (≤ 0: none)
    bool whole;         // vectors are whole and aligned
    long long from, to; // rows of the group; empty without channels
    long long at;       // value of channel c in the group's first row

    __device__ tile(long long rows, int channels, long long chunk) {
        c = (blockIdx.x * blockDim.x + threadIdx.x) * n;
        left = channels - c;
        whole = channels % n == 0;
        from = blockIdx.y * chunk + threadIdx.y;
        to = (blockIdx.y + 1) * chunk;
        if (to > rows) to = rows;
        if (left <= 0) from = to;
        at = blockIdx.z * rows * channels + c;
    }
};

// columns_of_block leaves the block's sums of v in shared memory, S rows of
// blockDim.x·N channels, and returns their width. All threads must come here.
template <int S, int N> __device__ inline int columns_of_block(const float (&v)[S][N]) {
    float *sums = SHARED(float);
    const int wide = blockDim.x * N, id = threadIdx.y * blockDim.x + threadIdx.x;
    for (int s = 0; s < S; s++)
        for (int i = 0; i < N; i++) sums[(threadIdx.y * S + s) * wide + threadIdx.x * N + i] = v[s][i];
    __syncthreads();
    // A thread owns its columns from here to the caller's reading them.
    for (int k = id; k < S * wide; k += blockDim.x * blockDim.y) {
        float total = sums[k];
        for (int y = 1; y < (int)blockDim.y; y++) total += sums[y * S * wide + k];
        sums[k] = total;
    }
    __syncthreads();
    return wide;
}

// column_sums writes the block's sums of v, times factor, to out [S][channels].
template <int S, int N>
__device__ inline void column_sums(const float (&v)[S][N], float factor, int channels, float *out) {
    const int wide = columns_of_block<S, N>(v), id = threadIdx.y * blockDim.x + threadIdx.x;
    for (int k = id; k < S * wide; k += blockDim.x * blockDim.y) {
        const int c = blockIdx.x * wide + k % wide;
        if (c < channels) out[(long long)(k / wide) * channels + c] = SHARED(float)[k] * factor;
    }
}

// ---- Flat loops (launch.go, Flat) ----

#define FLAT(i, n)                                                                     \
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x, step_ = (long long)gridDim.x * blockDim.x; \
         i < (n); i += step_)

// BOTH_TYPES makes the two entry points of a kernel that comes in both types.
#define BOTH_TYPES(name, parameters, arguments)               \
    KERNEL name##_f32 parameters(float) { name##_of<float> arguments; } \
    KERNEL name##_bf16 parameters(bf16) { name##_of<bf16> arguments; }
