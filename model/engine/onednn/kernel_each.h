// Compiles the family body MK_BODY once per level, and MK_CALL calls a
// function of it at the level in force: lanes of whole vectors at that level,
// what is left of the channels in plain C.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// These loops are unrolled and specialised by hand; more of it by the compiler
// costs half a minute and gains nothing.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O2")
#endif

#pragma GCC diagnostic ignored "-Wunused-function"

#define MK_LEVEL 0
#include "kernel_vec.h"
#include MK_BODY
#undef MK_LEVEL

#if defined(__x86_64__)

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define MK_LEVEL 1
#include "kernel_vec.h"
#include MK_BODY
#undef MK_LEVEL
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,prefer-vector-width=512")
#define MK_LEVEL 2
#include "kernel_vec.h"
#include MK_BODY
#undef MK_LEVEL
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,prefer-vector-width=512")
#define MK_LEVEL 3
#include "kernel_vec.h"
#include MK_BODY
#undef MK_LEVEL
#pragma GCC pop_options

#define MK_PICK(name)                                                \
    (mk_level_now() == MK_AVX512_BF16 ? name##_avx512bf16            \
     : mk_level_now() == MK_AVX512    ? name##_avx512                \
     : mk_level_now() == MK_AVX2      ? name##_avx2                  \
                                      : name##_plain)

#else
#define MK_PICK(name) name##_plain
#endif

// mk_lanes is the number of lanes at the level in force.
static inline size_t mk_lanes(void) {
    mk_level l = mk_level_now();
    return l >= MK_AVX512 ? 16 : l == MK_AVX2 ? 8 : 1;
}
