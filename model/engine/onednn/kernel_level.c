//go:build onednn

// Which instruction set the kernels use.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static int level = -1; // not yet looked

mk_level mk_level_best(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx512 && __builtin_cpu_supports("avx512bf16")) return MK_AVX512_BF16;
    if (avx512) return MK_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return MK_AVX2;
#endif
    return MK_PLAIN;
}

mk_level mk_level_set(mk_level cap) {
    mk_level best = mk_level_best();
    level = cap < best ? cap : best;
    return (mk_level)level;
}

// Several threads may look at once: all find the same.
mk_level mk_level_now(void) {
    int now = __atomic_load_n(&level, __ATOMIC_RELAXED);
    if (now < 0) {
        now = mk_level_best();
        __atomic_store_n(&level, now, __ATOMIC_RELAXED);
    }
    return (mk_level)now;
}

const char *mk_level_name(mk_level l) {
    switch (l) {
    case MK_AVX2: return "AVX2";
    case MK_AVX512: return "AVX-512";
    case MK_AVX512_BF16: return "AVX-512 BF16";
    default: return "plain C";
    }
}

void mk_flush_denormals(void) {
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040); // FTZ, DAZ
#endif
}
