#include "go_asm.h"
#include "textflag.h"

// The micro-kernel of tile.go for AVX-512: 8 rows by 48, 32 or 16 columns.
//
// Z0–Z23 hold the tile, Z24–Z26 a row of B, Z27 and Z28 elements of A.
// R8–R15 point at the rows of A, SI counts elements along them; DI is B, BX
// walks brow, CX counts down. The last vector of a row is masked by K1, so
// that nothing behind the columns is read or written.

// ROW sets a pointer to the start of row r of A.
#define ROW(r, reg) \
	MOVQ (tile_arow+8*r)(DX), AX; \
	LEAQ (SI)(AX*4), reg

// PROLOGUE loads everything but the tile. vectors is the tile's width / 16.
#define PROLOGUE(vectors) \
	MOVQ t+0(FP), DX; \
	MOVQ tile_cols(DX), CX; \
	SUBQ $(16*vectors-16), CX; \
	MOVL $1, AX; \
	SHLL CX, AX; \
	DECL AX; \
	KMOVW AX, K1; \
	MOVQ tile_c(DX), DI

#define POINTERS \
	MOVQ tile_a(DX), SI; \
	ROW(0, R8); \
	ROW(1, R9); \
	ROW(2, R10); \
	ROW(3, R11); \
	ROW(4, R12); \
	ROW(5, R13); \
	ROW(6, R14); \
	ROW(7, R15); \
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
	VMOVUPS 64(AX), b; \
	VMOVUPS.Z 128(AX), K1, c
#define ZERO3(a, b, c) \
	VPXORD a, a, a; \
	VPXORD b, b, b; \
	VPXORD c, c, c
#define STEP3(row, e, a, b, c) \
	VBROADCASTSS (row)(SI*4), e; \
	VFMADD231PS Z24, e, a; \
	VFMADD231PS Z25, e, b; \
	VFMADD231PS Z26, e, c
#define STORE3(r, a, b, c) \
	CROW(r); \
	VMOVUPS a, (AX); \
	VMOVUPS b, 64(AX); \
	VMOVUPS c, K1, 128(AX)

// func avx512Tile8x48(t *tile)
TEXT ·avx512Tile8x48(SB), NOSPLIT, $0-8
	PROLOGUE(3)
	CMPB tile_acc(DX), $0
	JEQ  zero
	LOAD3(0, Z0, Z1, Z2)
	LOAD3(1, Z3, Z4, Z5)
	LOAD3(2, Z6, Z7, Z8)
	LOAD3(3, Z9, Z10, Z11)
	LOAD3(4, Z12, Z13, Z14)
	LOAD3(5, Z15, Z16, Z17)
	LOAD3(6, Z18, Z19, Z20)
	LOAD3(7, Z21, Z22, Z23)
	JMP  sum
zero:
	ZERO3(Z0, Z1, Z2)
	ZERO3(Z3, Z4, Z5)
	ZERO3(Z6, Z7, Z8)
	ZERO3(Z9, Z10, Z11)
	ZERO3(Z12, Z13, Z14)
	ZERO3(Z15, Z16, Z17)
	ZERO3(Z18, Z19, Z20)
	ZERO3(Z21, Z22, Z23)
sum:
	POINTERS
	PCALIGN $32
loop:
	MOVQ (BX), AX
	ADDQ $8, BX
	VMOVUPS (DI)(AX*4), Z24
	VMOVUPS 64(DI)(AX*4), Z25
	VMOVUPS.Z 128(DI)(AX*4), K1, Z26
	STEP3(R8, Z27, Z0, Z1, Z2)
	STEP3(R9, Z28, Z3, Z4, Z5)
	STEP3(R10, Z27, Z6, Z7, Z8)
	STEP3(R11, Z28, Z9, Z10, Z11)
	STEP3(R12, Z27, Z12, Z13, Z14)
	STEP3(R13, Z28, Z15, Z16, Z17)
	STEP3(R14, Z27, Z18, Z19, Z20)
	STEP3(R15, Z28, Z21, Z22, Z23)
	NEXT(loop)
	STORE3(0, Z0, Z1, Z2)
	STORE3(1, Z3, Z4, Z5)
	STORE3(2, Z6, Z7, Z8)
	STORE3(3, Z9, Z10, Z11)
	STORE3(4, Z12, Z13, Z14)
	STORE3(5, Z15, Z16, Z17)
	STORE3(6, Z18, Z19, Z20)
	STORE3(7, Z21, Z22, Z23)
	VZEROUPPER
	RET

#define LOAD2(r, a, b) \
	CROW(r); \
	VMOVUPS (AX), a; \
	VMOVUPS.Z 64(AX), K1, b
#define ZERO2(a, b) \
	VPXORD a, a, a; \
	VPXORD b, b, b
#define STEP2(row, e, a, b) \
	VBROADCASTSS (row)(SI*4), e; \
	VFMADD231PS Z24, e, a; \
	VFMADD231PS Z25, e, b
#define STORE2(r, a, b) \
	CROW(r); \
	VMOVUPS a, (AX); \
	VMOVUPS b, K1, 64(AX)

// func avx512Tile8x32(t *tile)
TEXT ·avx512Tile8x32(SB), NOSPLIT, $0-8
	PROLOGUE(2)
	CMPB tile_acc(DX), $0
	JEQ  zero
	LOAD2(0, Z0, Z1)
	LOAD2(1, Z2, Z3)
	LOAD2(2, Z4, Z5)
	LOAD2(3, Z6, Z7)
	LOAD2(4, Z8, Z9)
	LOAD2(5, Z10, Z11)
	LOAD2(6, Z12, Z13)
	LOAD2(7, Z14, Z15)
	JMP  sum
zero:
	ZERO2(Z0, Z1)
	ZERO2(Z2, Z3)
	ZERO2(Z4, Z5)
	ZERO2(Z6, Z7)
	ZERO2(Z8, Z9)
	ZERO2(Z10, Z11)
	ZERO2(Z12, Z13)
	ZERO2(Z14, Z15)
sum:
	POINTERS
	PCALIGN $32
loop:
	MOVQ (BX), AX
	ADDQ $8, BX
	VMOVUPS (DI)(AX*4), Z24
	VMOVUPS.Z 64(DI)(AX*4), K1, Z25
	STEP2(R8, Z27, Z0, Z1)
	STEP2(R9, Z28, Z2, Z3)
	STEP2(R10, Z27, Z4, Z5)
	STEP2(R11, Z28, Z6, Z7)
	STEP2(R12, Z27, Z8, Z9)
	STEP2(R13, Z28, Z10, Z11)
	STEP2(R14, Z27, Z12, Z13)
	STEP2(R15, Z28, Z14, Z15)
	NEXT(loop)
	STORE2(0, Z0, Z1)
	STORE2(1, Z2, Z3)
	STORE2(2, Z4, Z5)
	STORE2(3, Z6, Z7)
	STORE2(4, Z8, Z9)
	STORE2(5, Z10, Z11)
	STORE2(6, Z12, Z13)
	STORE2(7, Z14, Z15)
	VZEROUPPER
	RET

#define LOAD1(r, a) \
	CROW(r); \
	VMOVUPS.Z (AX), K1, a
#define STEP1(row, e, a) \
	VBROADCASTSS (row)(SI*4), e; \
	VFMADD231PS Z24, e, a
#define STORE1(r, a) \
	CROW(r); \
	VMOVUPS a, K1, (AX)

// func avx512Tile8x16(t *tile)
TEXT ·avx512Tile8x16(SB), NOSPLIT, $0-8
	PROLOGUE(1)
	CMPB tile_acc(DX), $0
	JEQ  zero
	LOAD1(0, Z0)
	LOAD1(1, Z1)
	LOAD1(2, Z2)
	LOAD1(3, Z3)
	LOAD1(4, Z4)
	LOAD1(5, Z5)
	LOAD1(6, Z6)
	LOAD1(7, Z7)
	JMP  sum
zero:
	ZERO2(Z0, Z1)
	ZERO2(Z2, Z3)
	ZERO2(Z4, Z5)
	ZERO2(Z6, Z7)
sum:
	POINTERS
	PCALIGN $32
loop:
	MOVQ (BX), AX
	ADDQ $8, BX
	VMOVUPS.Z (DI)(AX*4), K1, Z24
	STEP1(R8, Z27, Z0)
	STEP1(R9, Z28, Z1)
	STEP1(R10, Z27, Z2)
	STEP1(R11, Z28, Z3)
	STEP1(R12, Z27, Z4)
	STEP1(R13, Z28, Z5)
	STEP1(R14, Z27, Z6)
	STEP1(R15, Z28, Z7)
	NEXT(loop)
	STORE1(0, Z0)
	STORE1(1, Z1)
	STORE1(2, Z2)
	STORE1(3, Z3)
	STORE1(4, Z4)
	STORE1(5, Z5)
	STORE1(6, Z6)
	STORE1(7, Z7)
	VZEROUPPER
	RET
