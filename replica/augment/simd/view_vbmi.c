//go:build simd && amd64

// AVX-512 with byte tables (VBMI) and products of bytes (VNNI): Ice Lake, Zen 4
// and what came after them.

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,prefer-vector-width=512")

#define VIEW mochi_view_vbmi
#define BY_TABLE
#include "view_vnni_body.h"
