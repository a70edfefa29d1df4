#include "go_asm.h"
#include "textflag.h"

// The micro-kernel of tile.go for AVX2 and FMA: 4 rows by 24 or 16 columns, or
// by up to 8 under a mask.
//
// Y0–Y11 hold the tile, Y12–Y14 a row of B, Y15 an element of A. R8–R11 point
// at the rows of A, SI counts elements along them; DI is B, BX walks brow, CX
// counts down.

// Eight words of ones, then of zeros: the mask for n columns starts n words
// before the middle.
DATA tileMask<>+0(SB)/8, $-1
DATA tileMask<>+8(SB)/8, $-1
DATA tileMask<>+16(SB)/8, $-1
DATA tileMask<>+24(SB)/8, $-1
DATA tileMask<>+32(SB)/8, $0
DATA tileMask<>+40(SB)/8, $0
DATA tileMask<>+48(SB)/8, $0
DATA tileMask<>+56(SB)/8, $0
GLOBL tileMask<>(SB), RODATA|NOPTR, $64

#define ROW(r, reg) \
	MOVQ (tile_arow+8*r)(DX), AX; \
	LEAQ (SI)(AX*4), reg

#define POINTERS \
	MOVQ tile_a(DX), SI; \
	ROW(0, R8); \
	ROW(1, R9); \
	ROW(2, R10); \
	ROW(3, R11); \
	XORL SI, SI; \
	MOVQ tile_b(DX), DI; \
	MOVQ tile_brow(DX), BX; \
	MOVQ (tile_brow+8)(DX), CX; \
	MOVQ tile_astep(DX), DX

#define NEXT(loop) \
	ADDQ DX, SI; \
	DECQ CX; \
	JNZ  loop; \
	MOVQ t+0(FP), DX; \
	MOVQ tile_c(DX), DI

#define CROW(r) \
	MOVQ (tile_crow+8*r)(DX), AX; \
	LEAQ (DI)(AX*4), AX

#define LOAD3(r, a, b, c) \
	CROW(r); \
	VMOVUPS (AX), a; \
	VMOVUPS 32(AX), b; \
	VMOVUPS 64(AX), c
#define ZERO(a) VXORPS a, a, a
#define STEP3(row, a, b, c) \
	VBROADCASTSS (row)(SI*4), Y15; \
	VFMADD231PS Y12, Y15, a; \
	VFMADD231PS Y13, Y15, b; \
	VFMADD231PS Y14, Y15, c
#define STORE3(r, a, b, c) \
	CROW(r); \
	VMOVUPS a, (AX); \
	VMOVUPS b, 32(AX); \
	VMOVUPS c, 64(AX)

// func avx2Tile4x24(t *tile)
TEXT ·avx2Tile4x24(SB), NOSPLIT, $0-8
	MOVQ t+0(FP), DX
	MOVQ tile_c(DX), DI
	CMPB tile_acc(DX), $0
	JEQ  zero
	LOAD3(0, Y0, Y1, Y2)
	LOAD3(1, Y3, Y4, Y5)
	LOAD3(2, Y6, Y7, Y8)
	LOAD3(3, Y9, Y10, Y11)
	JMP  sum
zero:
	ZERO(Y0)
	ZERO(Y1)
	ZERO(Y2)
	ZERO(Y3)
	ZERO(Y4)
	ZERO(Y5)
	ZERO(Y6)
	ZERO(Y7)
	ZERO(Y8)
	ZERO(Y9)
	ZERO(Y10)
	ZERO(Y11)
sum:
	POINTERS
	PCALIGN $32
loop:
	MOVQ (BX), AX
	ADDQ $8, BX
	VMOVUPS (DI)(AX*4), Y12
	VMOVUPS 32(DI)(AX*4), Y13
	VMOVUPS 64(DI)(AX*4), Y14
	STEP3(R8, Y0, Y1, Y2)
	STEP3(R9, Y3, Y4, Y5)
	STEP3(R10, Y6, Y7, Y8)
	STEP3(R11, Y9, Y10, Y11)
	NEXT(loop)
	STORE3(0, Y0, Y1, Y2)
	STORE3(1, Y3, Y4, Y5)
	STORE3(2, Y6, Y7, Y8)
	STORE3(3, Y9, Y10, Y11)
	VZEROUPPER
	RET

#define LOAD2(r, a, b) \
	CROW(r); \
	VMOVUPS (AX), a; \
	VMOVUPS 32(AX), b
#define STEP2(row, e, a, b) \
	VBROADCASTSS (row)(SI*4), e; \
	VFMADD231PS Y12, e, a; \
	VFMADD231PS Y13, e, b
#define STORE2(r, a, b) \
	CROW(r); \
	VMOVUPS a, (AX); \
	VMOVUPS b, 32(AX)

// func avx2Tile4x16(t *tile)
TEXT ·avx2Tile4x16(SB), NOSPLIT, $0-8
	MOVQ t+0(FP), DX
	MOVQ tile_c(DX), DI
	CMPB tile_acc(DX), $0
	JEQ  zero
	LOAD2(0, Y0, Y1)
	LOAD2(1, Y2, Y3)
	LOAD2(2, Y4, Y5)
	LOAD2(3, Y6, Y7)
	JMP  sum
zero:
	ZERO(Y0)
	ZERO(Y1)
	ZERO(Y2)
	ZERO(Y3)
	ZERO(Y4)
	ZERO(Y5)
	ZERO(Y6)
	ZERO(Y7)
sum:
	POINTERS
	PCALIGN $32
loop:
	MOVQ (BX), AX
	ADDQ $8, BX
	VMOVUPS (DI)(AX*4), Y12
	VMOVUPS 32(DI)(AX*4), Y13
	STEP2(R8, Y14, Y0, Y1)
	STEP2(R9, Y15, Y2, Y3)
	STEP2(R10, Y14, Y4, Y5)
	STEP2(R11, Y15, Y6, Y7)
	NEXT(loop)
	STORE2(0, Y0, Y1)
	STORE2(1, Y2, Y3)
	STORE2(2, Y4, Y5)
	STORE2(3, Y6, Y7)
	VZEROUPPER
	RET

#define LOAD1(r, a) \
	CROW(r); \
	VMASKMOVPS (AX), Y13, a
#define STEP1(row, e, a) \
	VBROADCASTSS (row)(SI*4), e; \
	VFMADD231PS Y12, e, a
#define STORE1(r, a) \
	CROW(r); \
	VMASKMOVPS a, Y13, (AX)

// func avx2Tile4x8(t *tile)
TEXT ·avx2Tile4x8(SB), NOSPLIT, $0-8
	MOVQ t+0(FP), DX
	MOVQ tile_c(DX), DI
	LEAQ tileMask<>+32(SB), AX
	MOVQ tile_cols(DX), CX
	SHLQ $2, CX
	SUBQ CX, AX
	VMOVUPS (AX), Y13
	CMPB tile_acc(DX), $0
	JEQ  zero
	LOAD1(0, Y0)
	LOAD1(1, Y1)
	LOAD1(2, Y2)
	LOAD1(3, Y3)
	JMP  sum
zero:
	ZERO(Y0)
	ZERO(Y1)
	ZERO(Y2)
	ZERO(Y3)
sum:
	POINTERS
	PCALIGN $32
loop:
	MOVQ (BX), AX
	ADDQ $8, BX
	VMASKMOVPS (DI)(AX*4), Y13, Y12
	STEP1(R8, Y14, Y0)
	STEP1(R9, Y15, Y1)
	STEP1(R10, Y14, Y2)
	STEP1(R11, Y15, Y3)
	NEXT(loop)
	STORE1(0, Y0)
	STORE1(1, Y1)
	STORE1(2, Y2)
	STORE1(3, Y3)
	VZEROUPPER
	RET
