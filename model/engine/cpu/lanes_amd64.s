#include "go_asm.h"
#include "textflag.h"

// The inner loops of lanes.go for AVX2 and FMA. A row is 32 lanes: four
// vectors; n counts rows and is at least 1.

// SCAN looks at one vector of a row: top, sum, threshold, byte number of above.
#define SCAN(at, top, sum, threshold, number) \
	VMOVUPS at(SI), Y12; \
	VMAXPS top, Y12, top; \
	VADDPS Y12, sum, sum; \
	VCMPPS $30, threshold, Y12, Y12; \
	VMOVMSKPS Y12, AX; \
	MOVB AX, number(DI)

// func avx2LaneScan(e *float32, above *uint32, l *laneState, n int)
TEXT ·avx2LaneScan(SB), NOSPLIT, $0-32
	MOVQ e+0(FP), SI
	MOVQ above+8(FP), DI
	MOVQ l+16(FP), DX
	MOVQ n+24(FP), CX
	VMOVUPS (SI), Y0
	VMOVUPS 32(SI), Y1
	VMOVUPS 64(SI), Y2
	VMOVUPS 96(SI), Y3
	VXORPS Y4, Y4, Y4
	VXORPS Y5, Y5, Y5
	VXORPS Y6, Y6, Y6
	VXORPS Y7, Y7, Y7
	VMOVUPS (laneState_threshold+0)(DX), Y8
	VMOVUPS (laneState_threshold+32)(DX), Y9
	VMOVUPS (laneState_threshold+64)(DX), Y10
	VMOVUPS (laneState_threshold+96)(DX), Y11
scan:
	SCAN(0, Y0, Y4, Y8, 0)
	SCAN(32, Y1, Y5, Y9, 1)
	SCAN(64, Y2, Y6, Y10, 2)
	SCAN(96, Y3, Y7, Y11, 3)
	ADDQ $128, SI
	ADDQ $4, DI
	DECQ CX
	JNZ  scan
	VMOVUPS Y0, (laneState_blockTop+0)(DX)
	VMOVUPS Y1, (laneState_blockTop+32)(DX)
	VMOVUPS Y2, (laneState_blockTop+64)(DX)
	VMOVUPS Y3, (laneState_blockTop+96)(DX)
	VMOVUPS Y4, (laneState_blockSim+0)(DX)
	VMOVUPS Y5, (laneState_blockSim+32)(DX)
	VMOVUPS Y6, (laneState_blockSim+64)(DX)
	VMOVUPS Y7, (laneState_blockSim+96)(DX)
	VZEROUPPER
	RET

// func avx2LaneExp(e *float32, l *laneState, n int, c *expConstants)
TEXT ·avx2LaneExp(SB), NOSPLIT, $0-32
	MOVQ l+8(FP), DX
	MOVQ c+24(FP), AX
	VBROADCASTSS laneState_invT(DX), Y2
	VBROADCASTSS expConstants_round(AX), Y3
	VBROADCASTSS expConstants_lowest(AX), Y4
	VBROADCASTSS expConstants_c1(AX), Y5
	VBROADCASTSS expConstants_c2(AX), Y6
	VBROADCASTSS expConstants_c3(AX), Y7
	VBROADCASTSS expConstants_c4(AX), Y8
	VBROADCASTSS expConstants_c5(AX), Y9
	VBROADCASTSS expConstants_c6(AX), Y10
	VBROADCASTSS expConstants_one(AX), Y11
	XORL BX, BX // byte of the row
vector:
	MOVQ e+0(FP), SI
	ADDQ BX, SI
	MOVQ n+16(FP), CX
	VMOVUPS laneState_top(DX)(BX*1), Y0
	VXORPS Y1, Y1, Y1
row:
	VMOVUPS (SI), Y12
	VSUBPS Y0, Y12, Y12
	VMULPS Y2, Y12, Y12        // x
	VCMPPS $29, Y4, Y12, Y15   // x ≥ lowest
	VADDPS Y3, Y12, Y13
	VSUBPS Y3, Y13, Y14
	VSUBPS Y14, Y12, Y12       // f
	VPSLLD $23, Y13, Y13
	VMOVAPS Y10, Y14
	VFMADD213PS Y9, Y12, Y14
	VFMADD213PS Y8, Y12, Y14
	VFMADD213PS Y7, Y12, Y14
	VFMADD213PS Y6, Y12, Y14
	VFMADD213PS Y5, Y12, Y14
	VFMADD213PS Y11, Y12, Y14
	VPADDD Y13, Y14, Y14
	VANDPS Y15, Y14, Y14
	VMOVUPS Y14, (SI)
	VADDPS Y14, Y1, Y1
	ADDQ $128, SI
	DECQ CX
	JNZ  row
	VMOVUPS Y1, laneState_blockZ(DX)(BX*1)
	ADDQ $32, BX
	CMPQ BX, $128
	JLT  vector
	VZEROUPPER
	RET

// func avx2LaneScale(e *float32, l *laneState, n int)
TEXT ·avx2LaneScale(SB), NOSPLIT, $0-24
	MOVQ e+0(FP), SI
	MOVQ l+8(FP), DX
	MOVQ n+16(FP), CX
	VMOVUPS (laneState_rescale+0)(DX), Y0
	VMOVUPS (laneState_rescale+32)(DX), Y1
	VMOVUPS (laneState_rescale+64)(DX), Y2
	VMOVUPS (laneState_rescale+96)(DX), Y3
scale:
	VMULPS (SI), Y0, Y4
	VMULPS 32(SI), Y1, Y5
	VMULPS 64(SI), Y2, Y6
	VMULPS 96(SI), Y3, Y7
	VMOVUPS Y4, (SI)
	VMOVUPS Y5, 32(SI)
	VMOVUPS Y6, 64(SI)
	VMOVUPS Y7, 96(SI)
	ADDQ $128, SI
	DECQ CX
	JNZ  scale
	VZEROUPPER
	RET

// func avx2Dot(x, y *float32, n int) float32
// n is a positive multiple of 16.
TEXT ·avx2Dot(SB), NOSPLIT, $0-28
	MOVQ x+0(FP), SI
	MOVQ y+8(FP), DI
	MOVQ n+16(FP), CX
	VXORPS Y0, Y0, Y0
	VXORPS Y1, Y1, Y1
dot:
	VMOVUPS (SI), Y2
	VMOVUPS 32(SI), Y3
	VFMADD231PS (DI), Y2, Y0
	VFMADD231PS 32(DI), Y3, Y1
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $16, CX
	JNZ  dot
	VADDPS Y1, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VADDPS X1, X0, X0
	VMOVHLPS X0, X0, X1
	VADDPS X1, X0, X0
	VMOVSHDUP X0, X1
	VADDSS X1, X0, X0
	VMOVSS X0, ret+24(FP)
	VZEROUPPER
	RET

// func avx2Axpy(y, x *float32, a float32, n int)
// n is a positive multiple of 16.
TEXT ·avx2Axpy(SB), NOSPLIT, $0-32
	MOVQ y+0(FP), DI
	MOVQ x+8(FP), SI
	VBROADCASTSS a+16(FP), Y0
	MOVQ n+24(FP), CX
axpy:
	VMOVUPS (DI), Y1
	VMOVUPS 32(DI), Y2
	VFMADD231PS (SI), Y0, Y1
	VFMADD231PS 32(SI), Y0, Y2
	VMOVUPS Y1, (DI)
	VMOVUPS Y2, 32(DI)
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $16, CX
	JNZ  axpy
	VZEROUPPER
	RET
