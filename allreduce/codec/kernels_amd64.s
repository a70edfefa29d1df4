#include "textflag.h"

// All kernels handle n elements, n a positive multiple of 16.

// func addFP32AVX2(dst *float32, src *byte, n int)
TEXT ·addFP32AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX

addFP32:
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	VADDPS  (SI), Y0, Y0
	VADDPS  32(SI), Y1, Y1
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	ADDQ    $64, DI
	ADDQ    $64, SI
	SUBQ    $16, CX
	JNZ     addFP32
	VZEROUPPER
	RET

// func addBF16AVX2(dst *float32, src *byte, n int)
TEXT ·addBF16AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX

addBF16:
	VPMOVZXWD (SI), Y0
	VPMOVZXWD 16(SI), Y1
	VPSLLD    $16, Y0, Y0
	VPSLLD    $16, Y1, Y1
	VADDPS    (DI), Y0, Y0
	VADDPS    32(DI), Y1, Y1
	VMOVUPS   Y0, (DI)
	VMOVUPS   Y1, 32(DI)
	ADDQ      $64, DI
	ADDQ      $32, SI
	SUBQ      $16, CX
	JNZ       addBF16
	VZEROUPPER
	RET

// func unpackBF16AVX2(dst *float32, src *byte, n int)
TEXT ·unpackBF16AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX

unpackBF16:
	VPMOVZXWD (SI), Y0
	VPMOVZXWD 16(SI), Y1
	VPSLLD    $16, Y0, Y0
	VPSLLD    $16, Y1, Y1
	VMOVUPS   Y0, (DI)
	VMOVUPS   Y1, 32(DI)
	ADDQ      $64, DI
	ADDQ      $32, SI
	SUBQ      $16, CX
	JNZ       unpackBF16
	VZEROUPPER
	RET

// Constants of the rounding: Y13 = 1, Y14 = 0x7fff, Y15 = 0x400000 (the quiet
// bit of a NaN) in every lane. Clobbers AX.
#define ROUND_CONSTANTS \
	MOVL         $1, AX;        \
	VMOVD        AX, X13;       \
	VPBROADCASTD X13, Y13;      \
	MOVL         $0x7fff, AX;   \
	VMOVD        AX, X14;       \
	VPBROADCASTD X14, Y14;      \
	MOVL         $0x400000, AX; \
	VMOVD        AX, X15;       \
	VPBROADCASTD X15, Y15

// ROUND leaves in x the float32 bits whose upper half is the bf16 of x:
// x + 0x7fff + (x>>16 & 1), or x | quiet where x is a NaN. a, b: scratch.
#define ROUND(x, a, b) \
	VPSRLD    $16, x, a;  \
	VPAND     Y13, a, a;  \
	VPADDD    Y14, a, a;  \
	VPADDD    x, a, a;    \
	VCMPPS    $3, x, x, b; \
	VPOR      Y15, x, x;  \
	VBLENDVPS b, x, a, x

// func packBF16AVX2(dst *byte, src *float32, n int)
TEXT ·packBF16AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	ROUND_CONSTANTS

packBF16:
	VMOVUPS   (SI), Y0
	VMOVUPS   32(SI), Y1
	ROUND(Y0, Y2, Y3)
	ROUND(Y1, Y4, Y5)
	VPSRLD    $16, Y0, Y0
	VPSRLD    $16, Y1, Y1
	VPACKUSDW Y1, Y0, Y0
	VPERMQ    $0xd8, Y0, Y0 // the pack works in halves: 0 2 1 3
	VMOVDQU   Y0, (DI)
	ADDQ      $32, DI
	ADDQ      $64, SI
	SUBQ      $16, CX
	JNZ       packBF16
	VZEROUPPER
	RET

// func roundBF16AVX2(x *float32, n int)
TEXT ·roundBF16AVX2(SB), NOSPLIT, $0-16
	MOVQ x+0(FP), DI
	MOVQ n+8(FP), CX
	ROUND_CONSTANTS

roundBF16:
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	ROUND(Y0, Y2, Y3)
	ROUND(Y1, Y4, Y5)
	VPSRLD  $16, Y0, Y0
	VPSRLD  $16, Y1, Y1
	VPSLLD  $16, Y0, Y0
	VPSLLD  $16, Y1, Y1
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	ADDQ    $64, DI
	SUBQ    $16, CX
	JNZ     roundBF16
	VZEROUPPER
	RET

// ADDED leaves in Y0 and Y1 the sums of 16 bf16 at (SI) and 16 elements at (DI).
#define ADDED \
	VPMOVZXWD (SI), Y0;     \
	VPMOVZXWD 16(SI), Y1;   \
	VPSLLD    $16, Y0, Y0;  \
	VPSLLD    $16, Y1, Y1;  \
	VADDPS    (DI), Y0, Y0; \
	VADDPS    32(DI), Y1, Y1

// PACKED stores the upper halves of Y0 and Y1 as bf16 at (SI), and leaves them in the
// lower ones.
#define PACKED \
	VPSRLD    $16, Y0, Y0;   \
	VPSRLD    $16, Y1, Y1;   \
	VPACKUSDW Y1, Y0, Y2;    \
	VPERMQ    $0xd8, Y2, Y2; \
	VMOVDQU   Y2, (SI)

// func passFP32AVX2(packed *byte, x *float32, n int)
TEXT ·passFP32AVX2(SB), NOSPLIT, $0-24
	MOVQ packed+0(FP), SI
	MOVQ x+8(FP), DI
	MOVQ n+16(FP), CX

passFP32:
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	VADDPS  (SI), Y0, Y0
	VADDPS  32(SI), Y1, Y1
	VMOVUPS Y0, (SI)
	VMOVUPS Y1, 32(SI)
	ADDQ    $64, DI
	ADDQ    $64, SI
	SUBQ    $16, CX
	JNZ     passFP32
	VZEROUPPER
	RET

// func passBF16AVX2(packed *byte, x *float32, n int)
TEXT ·passBF16AVX2(SB), NOSPLIT, $0-24
	MOVQ packed+0(FP), SI
	MOVQ x+8(FP), DI
	MOVQ n+16(FP), CX
	ROUND_CONSTANTS

passBF16:
	ADDED
	ROUND(Y0, Y2, Y3)
	ROUND(Y1, Y4, Y5)
	PACKED
	ADDQ $64, DI
	ADDQ $32, SI
	SUBQ $16, CX
	JNZ  passBF16
	VZEROUPPER
	RET

// func keepBF16AVX2(packed *byte, x *float32, n int)
TEXT ·keepBF16AVX2(SB), NOSPLIT, $0-24
	MOVQ packed+0(FP), SI
	MOVQ x+8(FP), DI
	MOVQ n+16(FP), CX
	ROUND_CONSTANTS

keepBF16:
	ADDED
	ROUND(Y0, Y2, Y3)
	ROUND(Y1, Y4, Y5)
	PACKED
	VPSLLD  $16, Y0, Y0
	VPSLLD  $16, Y1, Y1
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	ADDQ    $64, DI
	ADDQ    $32, SI
	SUBQ    $16, CX
	JNZ     keepBF16
	VZEROUPPER
	RET

// func storeFP32AVX2(dst *float32, src *byte, n int)
// dst is a multiple of 32.
TEXT ·storeFP32AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX

storeFP32:
	VMOVDQU  (SI), Y0
	VMOVDQU  32(SI), Y1
	VMOVNTDQ Y0, (DI)
	VMOVNTDQ Y1, 32(DI)
	ADDQ     $64, DI
	ADDQ     $64, SI
	SUBQ     $16, CX
	JNZ      storeFP32
	SFENCE
	VZEROUPPER
	RET

// func storeBF16AVX2(dst *float32, src *byte, n int)
// dst is a multiple of 32.
TEXT ·storeBF16AVX2(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX

storeBF16:
	VPMOVZXWD (SI), Y0
	VPMOVZXWD 16(SI), Y1
	VPSLLD    $16, Y0, Y0
	VPSLLD    $16, Y1, Y1
	VMOVNTDQ  Y0, (DI)
	VMOVNTDQ  Y1, 32(DI)
	ADDQ      $64, DI
	ADDQ      $32, SI
	SUBQ      $16, CX
	JNZ       storeBF16
	SFENCE
	VZEROUPPER
	RET
