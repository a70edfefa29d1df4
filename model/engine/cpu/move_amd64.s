#include "textflag.h"

// Moving matrices about, for AVX2.

// QUARTERS loads 4 columns of 8 rows: rows 0–3 (from SI) in the low halves of
// Y0–Y3, rows 4–7 (from R9) in the high halves.
#define QUARTERS(at) \
	VMOVUPS at(SI), X0; \
	VMOVUPS at(SI)(R8*1), X1; \
	VMOVUPS at(SI)(R8*2), X2; \
	VMOVUPS at(SI)(R10*1), X3; \
	VINSERTF128 $1, at(R9), Y0, Y0; \
	VINSERTF128 $1, at(R9)(R8*1), Y1, Y1; \
	VINSERTF128 $1, at(R9)(R8*2), Y2, Y2; \
	VINSERTF128 $1, at(R9)(R10*1), Y3, Y3

// COLUMNS writes those 4 columns as 4 rows of 8 and moves R11 behind them.
#define COLUMNS \
	VUNPCKLPS Y1, Y0, Y4; \
	VUNPCKHPS Y1, Y0, Y5; \
	VUNPCKLPS Y3, Y2, Y6; \
	VUNPCKHPS Y3, Y2, Y7; \
	VUNPCKLPD Y6, Y4, Y0; \
	VUNPCKHPD Y6, Y4, Y1; \
	VUNPCKLPD Y7, Y5, Y2; \
	VUNPCKHPD Y7, Y5, Y3; \
	VMOVUPS Y0, (R11); \
	VMOVUPS Y1, (R11)(R12*1); \
	VMOVUPS Y2, (R11)(R12*2); \
	ADDQ R13, R11; \
	VMOVUPS Y3, (R11); \
	ADDQ R12, R11

// func avx2Transpose(dst *float32, dstStride int, src *float32, srcStride, rows, cols int)
//
// rows and cols are positive multiples of 8.
TEXT ·avx2Transpose(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ dstStride+8(FP), R12
	MOVQ src+16(FP), BX
	MOVQ srcStride+24(FP), R8
	MOVQ cols+40(FP), CX
	SHLQ $2, R8
	SHLQ $2, R12
	LEAQ (R8)(R8*2), R10
	LEAQ (R12)(R12*2), R13
columns:
	MOVQ BX, SI
	MOVQ DI, AX
	MOVQ rows+32(FP), DX
rows:
	LEAQ (SI)(R8*4), R9
	MOVQ AX, R11
	QUARTERS(0)
	COLUMNS
	QUARTERS(16)
	COLUMNS
	LEAQ (SI)(R8*8), SI
	ADDQ $32, AX
	SUBQ $8, DX
	JNZ  rows
	ADDQ $32, BX
	LEAQ (DI)(R12*8), DI
	SUBQ $8, CX
	JNZ  columns
	VZEROUPPER
	RET

// func avx2CopyRows(dst *float32, dstStride int, src *float32, srcStride, rows, cols, gap int)
//
// rows is positive, cols at least 4. The last vector of a row overlaps the one
// before.
TEXT ·avx2CopyRows(SB), NOSPLIT, $0-56
	MOVQ dst+0(FP), DI
	MOVQ dstStride+8(FP), R8
	MOVQ src+16(FP), SI
	MOVQ srcStride+24(FP), R9
	MOVQ rows+32(FP), DX
	MOVQ cols+40(FP), CX
	MOVQ gap+48(FP), R10
	VXORPS X2, X2, X2
	CMPQ CX, $8
	JLT  narrow
	LEAQ -8(CX), R11 // where the last vector starts
wideRow:
	XORL BX, BX
	JMP  wideTest
wideLoop:
	VMOVUPS (SI)(BX*4), Y0
	VMOVUPS Y0, (DI)(BX*4)
	ADDQ $8, BX
wideTest:
	CMPQ BX, R11
	JLT  wideLoop
	VMOVUPS (SI)(R11*4), Y0
	VMOVUPS Y0, (DI)(R11*4)
	LEAQ (DI)(CX*4), AX
	MOVQ R10, BX
	JMP  wideGapTest
wideGap:
	VMOVSS X2, (AX)
	ADDQ $4, AX
	DECQ BX
wideGapTest:
	TESTQ BX, BX
	JGT  wideGap
	LEAQ (DI)(R8*4), DI
	LEAQ (SI)(R9*4), SI
	DECQ DX
	JNZ  wideRow
	VZEROUPPER
	RET
narrow:
	LEAQ -4(CX), R11
narrowRow:
	VMOVUPS (SI), X0
	VMOVUPS (SI)(R11*4), X1
	VMOVUPS X0, (DI)
	VMOVUPS X1, (DI)(R11*4)
	LEAQ (DI)(CX*4), AX
	MOVQ R10, BX
	JMP  narrowGapTest
narrowGap:
	VMOVSS X2, (AX)
	ADDQ $4, AX
	DECQ BX
narrowGapTest:
	TESTQ BX, BX
	JGT  narrowGap
	LEAQ (DI)(R8*4), DI
	LEAQ (SI)(R9*4), SI
	DECQ DX
	JNZ  narrowRow
	RET

// func avx2EverySecond(dst, src *float32, n int)
//
// n is a positive multiple of 4; it reads 2·n elements.
TEXT ·avx2EverySecond(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
loop:
	VMOVUPS (SI), X0
	VSHUFPS $0x88, 16(SI), X0, X0 // elements 0 and 2 of both halves
	VMOVUPS X0, (DI)
	ADDQ $32, SI
	ADDQ $16, DI
	SUBQ $4, CX
	JNZ  loop
	RET
