#include "go_asm.h"
#include "textflag.h"

// The inner loops of vector.go for AVX2 and FMA, 16 elements at a time: n is a
// positive multiple of 16.

// LANES loads the running sums, STORELANES writes them back: first in Y0–Y3,
// second in Y4–Y7.
#define LANES(l) \
	VMOVUPD (lanes_first+0)(l), Y0; \
	VMOVUPD (lanes_first+32)(l), Y1; \
	VMOVUPD (lanes_first+64)(l), Y2; \
	VMOVUPD (lanes_first+96)(l), Y3; \
	VMOVUPD (lanes_second+0)(l), Y4; \
	VMOVUPD (lanes_second+32)(l), Y5; \
	VMOVUPD (lanes_second+64)(l), Y6; \
	VMOVUPD (lanes_second+96)(l), Y7
#define STORELANES(l) \
	VMOVUPD Y0, (lanes_first+0)(l); \
	VMOVUPD Y1, (lanes_first+32)(l); \
	VMOVUPD Y2, (lanes_first+64)(l); \
	VMOVUPD Y3, (lanes_first+96)(l); \
	VMOVUPD Y4, (lanes_second+0)(l); \
	VMOVUPD Y5, (lanes_second+32)(l); \
	VMOVUPD Y6, (lanes_second+64)(l); \
	VMOVUPD Y7, (lanes_second+96)(l)

// func avx2Moments(l *lanes, x *float32, n int)
TEXT ·avx2Moments(SB), NOSPLIT, $0-24
	MOVQ l+0(FP), AX
	MOVQ x+8(FP), SI
	MOVQ n+16(FP), CX
	LANES(AX)
loop:
	VCVTPS2PD (SI), Y8
	VCVTPS2PD 16(SI), Y9
	VCVTPS2PD 32(SI), Y10
	VCVTPS2PD 48(SI), Y11
	VADDPD Y8, Y0, Y0
	VADDPD Y9, Y1, Y1
	VADDPD Y10, Y2, Y2
	VADDPD Y11, Y3, Y3
	VFMADD231PD Y8, Y8, Y4
	VFMADD231PD Y9, Y9, Y5
	VFMADD231PD Y10, Y10, Y6
	VFMADD231PD Y11, Y11, Y7
	ADDQ $64, SI
	SUBQ $16, CX
	JNZ  loop
	STORELANES(AX)
	VZEROUPPER
	RET

// ADDPRODUCT adds 4 elements of g (in X8) and g·x to one lane of each sum.
#define ADDPRODUCT(at, first, second) \
	VCVTPS2PD X8, Y9; \
	VCVTPS2PD at(SI)(BX*4), Y10; \
	VADDPD Y9, first, first; \
	VFMADD231PD Y9, Y10, second

// func avx2Gradients(l *lanes, dy, x *float32, n int)
TEXT ·avx2Gradients(SB), NOSPLIT, $0-32
	MOVQ l+0(FP), AX
	MOVQ dy+8(FP), DX
	MOVQ x+16(FP), SI
	MOVQ n+24(FP), CX
	LANES(AX)
	XORL BX, BX
loop:
	VMOVUPS (DX)(BX*4), X8
	ADDPRODUCT(0, Y0, Y4)
	VMOVUPS 16(DX)(BX*4), X8
	ADDPRODUCT(16, Y1, Y5)
	VMOVUPS 32(DX)(BX*4), X8
	ADDPRODUCT(32, Y2, Y6)
	VMOVUPS 48(DX)(BX*4), X8
	ADDPRODUCT(48, Y3, Y7)
	ADDQ $16, BX
	CMPQ BX, CX
	JLT  loop
	STORELANES(AX)
	VZEROUPPER
	RET

// func avx2GradientsReLU(l *lanes, dy, x, y *float32, n int)
TEXT ·avx2GradientsReLU(SB), NOSPLIT, $0-40
	MOVQ l+0(FP), AX
	MOVQ dy+8(FP), DX
	MOVQ x+16(FP), SI
	MOVQ y+24(FP), DI
	MOVQ n+32(FP), CX
	LANES(AX)
	XORL BX, BX
	VXORPS X11, X11, X11
loop:
	VCMPPS $1, (DI)(BX*4), X11, X8 // 0 < y
	VANDPS (DX)(BX*4), X8, X8
	ADDPRODUCT(0, Y0, Y4)
	VCMPPS $1, 16(DI)(BX*4), X11, X8
	VANDPS 16(DX)(BX*4), X8, X8
	ADDPRODUCT(16, Y1, Y5)
	VCMPPS $1, 32(DI)(BX*4), X11, X8
	VANDPS 32(DX)(BX*4), X8, X8
	ADDPRODUCT(32, Y2, Y6)
	VCMPPS $1, 48(DI)(BX*4), X11, X8
	VANDPS 48(DX)(BX*4), X8, X8
	ADDPRODUCT(48, Y3, Y7)
	ADDQ $16, BX
	CMPQ BX, CX
	JLT  loop
	STORELANES(AX)
	VZEROUPPER
	RET

#define NORMALIZE(at, v) \
	VMOVUPS at(SI)(BX*4), v; \
	VSUBPS Y0, v, v; \
	VMULPS Y1, v, v; \
	VADDPS Y2, v, v

// func avx2Normalize(y, x *float32, mean, scale, shift float32, n int)
TEXT ·avx2Normalize(SB), NOSPLIT, $0-40
	MOVQ y+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ n+32(FP), CX
	VBROADCASTSS mean+16(FP), Y0
	VBROADCASTSS scale+20(FP), Y1
	VBROADCASTSS shift+24(FP), Y2
	XORL BX, BX
loop:
	NORMALIZE(0, Y3)
	NORMALIZE(32, Y4)
	VMOVUPS Y3, (DI)(BX*4)
	VMOVUPS Y4, 32(DI)(BX*4)
	ADDQ $16, BX
	CMPQ BX, CX
	JLT  loop
	VZEROUPPER
	RET

// func avx2NormalizeReLU(y, x *float32, mean, scale, shift float32, n int)
TEXT ·avx2NormalizeReLU(SB), NOSPLIT, $0-40
	MOVQ y+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ n+32(FP), CX
	VBROADCASTSS mean+16(FP), Y0
	VBROADCASTSS scale+20(FP), Y1
	VBROADCASTSS shift+24(FP), Y2
	XORL BX, BX
	VXORPS Y5, Y5, Y5
loop:
	NORMALIZE(0, Y3)
	NORMALIZE(32, Y4)
	VMAXPS Y3, Y5, Y3 // NaN stays NaN
	VMAXPS Y4, Y5, Y4
	VMOVUPS Y3, (DI)(BX*4)
	VMOVUPS Y4, 32(DI)(BX*4)
	ADDQ $16, BX
	CMPQ BX, CX
	JLT  loop
	VZEROUPPER
	RET

#define PROJECTION(p) \
	VBROADCASTSS projection_gMean(p), Y0; \
	VBROADCASTSS projection_mean(p), Y1; \
	VBROADCASTSS projection_slope(p), Y2; \
	VBROADCASTSS projection_scale(p), Y3
#define PROJECT(at, g, t) \
	VMOVUPS at(SI)(BX*4), t; \
	VSUBPS Y1, t, t; \
	VMULPS Y2, t, t; \
	VSUBPS Y0, g, g; \
	VSUBPS t, g, g; \
	VMULPS Y3, g, g; \
	VMOVUPS g, at(DI)(BX*4)

// func avx2Project(d, dy, x *float32, p *projection, n int)
TEXT ·avx2Project(SB), NOSPLIT, $0-40
	MOVQ d+0(FP), DI
	MOVQ dy+8(FP), DX
	MOVQ x+16(FP), SI
	MOVQ p+24(FP), AX
	MOVQ n+32(FP), CX
	PROJECTION(AX)
	XORL BX, BX
loop:
	VMOVUPS (DX)(BX*4), Y4
	VMOVUPS 32(DX)(BX*4), Y5
	PROJECT(0, Y4, Y6)
	PROJECT(32, Y5, Y7)
	ADDQ $16, BX
	CMPQ BX, CX
	JLT  loop
	VZEROUPPER
	RET

// func avx2ProjectReLU(d, dy, x, y *float32, p *projection, n int)
TEXT ·avx2ProjectReLU(SB), NOSPLIT, $0-48
	MOVQ d+0(FP), DI
	MOVQ dy+8(FP), DX
	MOVQ x+16(FP), SI
	MOVQ y+24(FP), R8
	MOVQ p+32(FP), AX
	MOVQ n+40(FP), CX
	PROJECTION(AX)
	VXORPS Y8, Y8, Y8
	XORL BX, BX
loop:
	VCMPPS $1, (R8)(BX*4), Y8, Y4
	VCMPPS $1, 32(R8)(BX*4), Y8, Y5
	VANDPS (DX)(BX*4), Y4, Y4
	VANDPS 32(DX)(BX*4), Y5, Y5
	PROJECT(0, Y4, Y6)
	PROJECT(32, Y5, Y7)
	ADDQ $16, BX
	CMPQ BX, CX
	JLT  loop
	VZEROUPPER
	RET

// func avx2Add(z, x, y *float32, n int)
TEXT ·avx2Add(SB), NOSPLIT, $0-32
	MOVQ z+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ y+16(FP), DX
	MOVQ n+24(FP), CX
	XORL BX, BX
loop:
	VMOVUPS (SI)(BX*4), Y0
	VMOVUPS 32(SI)(BX*4), Y1
	VADDPS (DX)(BX*4), Y0, Y0
	VADDPS 32(DX)(BX*4), Y1, Y1
	VMOVUPS Y0, (DI)(BX*4)
	VMOVUPS Y1, 32(DI)(BX*4)
	ADDQ $16, BX
	CMPQ BX, CX
	JLT  loop
	VZEROUPPER
	RET

// func avx2AddReLU(z, x, y *float32, n int)
TEXT ·avx2AddReLU(SB), NOSPLIT, $0-32
	MOVQ z+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ y+16(FP), DX
	MOVQ n+24(FP), CX
	XORL BX, BX
	VXORPS Y2, Y2, Y2
loop:
	VMOVUPS (SI)(BX*4), Y0
	VMOVUPS 32(SI)(BX*4), Y1
	VADDPS (DX)(BX*4), Y0, Y0
	VADDPS 32(DX)(BX*4), Y1, Y1
	VMAXPS Y0, Y2, Y0
	VMAXPS Y1, Y2, Y1
	VMOVUPS Y0, (DI)(BX*4)
	VMOVUPS Y1, 32(DI)(BX*4)
	ADDQ $16, BX
	CMPQ BX, CX
	JLT  loop
	VZEROUPPER
	RET

// func avx2Mask(d, dy, y *float32, n int)
TEXT ·avx2Mask(SB), NOSPLIT, $0-32
	MOVQ d+0(FP), DI
	MOVQ dy+8(FP), SI
	MOVQ y+16(FP), DX
	MOVQ n+24(FP), CX
	XORL BX, BX
	VXORPS Y2, Y2, Y2
loop:
	VCMPPS $1, (DX)(BX*4), Y2, Y0
	VCMPPS $1, 32(DX)(BX*4), Y2, Y1
	VANDPS (SI)(BX*4), Y0, Y0
	VANDPS 32(SI)(BX*4), Y1, Y1
	VMOVUPS Y0, (DI)(BX*4)
	VMOVUPS Y1, 32(DI)(BX*4)
	ADDQ $16, BX
	CMPQ BX, CX
	JLT  loop
	VZEROUPPER
	RET
