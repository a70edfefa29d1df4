// CUDA C on the CPU: what kernels use of the language, for a C++ compiler.
// host.cpp runs the threads of a block one at a time, as fibers that give way
// at barriers and shuffles, in an order that the caller picks.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#define __global__
#define __device__
#define __launch_bounds__(n)
#define SHARED(T) ((T *)host_shared)

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct host_dim {
    unsigned x, y, z;
};

extern host_dim threadIdx, blockIdx, blockDim, gridDim; // of the thread that runs
extern unsigned char *host_shared;                      // of the block, guarded behind its last byte

void host_barrier();                                                   // until all threads of the block are here
uint64_t host_exchange(uint64_t mine, unsigned mask, unsigned partner); // until the warp is
unsigned host_ballot(bool mine, unsigned mask);

static inline void __syncthreads() { host_barrier(); }
static inline void __syncwarp(unsigned mask = 0xffffffff) { host_ballot(true, mask); }
static inline unsigned __ballot_sync(unsigned mask, int p) { return host_ballot(p != 0, mask); }

static inline unsigned host_lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

template <typename T> static inline T host_shuffle(unsigned mask, T v, unsigned partner) {
    static_assert(sizeof v <= 8, "a shuffle moves 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = host_exchange(bits, mask, partner);
    memcpy(&v, &bits, sizeof v);
    return v;
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T v, int by) {
    return host_shuffle(mask, v, host_lane() ^ by);
}
template <typename T> static inline T __shfl_sync(unsigned mask, T v, int from) {
    return host_shuffle(mask, v, from % 32);
}
template <typename T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned by) {
    return host_shuffle(mask, v, host_lane() < by ? host_lane() : host_lane() - by);
}
template <typename T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned by) {
    return host_shuffle(mask, v, host_lane() + by > 31 ? host_lane() : host_lane() + by);
}

// One thread runs at a time, so these are atomic.
template <typename T> static inline T atomicAdd(T *p, T v) {
    T old = *p;
    *p = old + v;
    return old;
}
template <typename T> static inline T atomicMax(T *p, T v) {
    T old = *p;
    if (v > old) *p = v;
    return old;
}

static inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return (uint64_t)((unsigned __int128)a * b >> 64); }
static inline int __popc(unsigned u) { return __builtin_popcount(u); }
static inline int __ffs(int u) { return __builtin_ffs(u); }
