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
