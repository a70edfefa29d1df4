//go:build simd && amd64

// AVX-512 with products of bytes (VNNI): Cascade Lake, and what came after it.

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,prefer-vector-width=512")

#define VIEW mochi_view_vnni
#include "view_vnni_body.h"
