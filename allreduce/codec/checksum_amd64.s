#include "textflag.h"

// FOLD replaces z, four times 128 bits, by what they are 256 bytes further on, plus the
// 64 bytes at o(SI). Z4: the factors. t: scratch.
#define FOLD(z, t, o) \
	VPCLMULQDQ $0x00, Z4, z, t;      \
	VPCLMULQDQ $0x11, Z4, z, z;      \
	VPTERNLOGQ $0x96, o(SI), t, z

// UNFOLD stores what was folded at DX; the CRC of that is the CRC of all.
#define UNFOLD \
	VMOVDQU64 Z0, (DX);    \
	VMOVDQU64 Z1, 64(DX);  \
	VMOVDQU64 Z2, 128(DX); \
	VMOVDQU64 Z3, 192(DX); \
	VZEROUPPER

// func foldAVX512(state *[256]byte, by *[2]uint64, p *byte, n int) uint32
// n is a positive multiple of 256.
TEXT ·foldAVX512(SB), NOSPLIT, $0-36
	MOVQ state+0(FP), DX
	MOVQ by+8(FP), BX
	MOVQ p+16(FP), SI
	MOVQ n+24(FP), CX
	VBROADCASTI32X4 (BX), Z4
	VMOVDQU64 (DX), Z0
	VMOVDQU64 64(DX), Z1
	VMOVDQU64 128(DX), Z2
	VMOVDQU64 192(DX), Z3

fold:
	FOLD(Z0, Z5, 0)
	FOLD(Z1, Z6, 64)
	FOLD(Z2, Z7, 128)
	FOLD(Z3, Z8, 192)
	ADDQ $256, SI
	SUBQ $256, CX
	JNZ  fold
	UNFOLD
	XORL AX, AX
	MOVL $32, CX

foldRest:
	CRC32Q (DX), AX
	ADDQ   $8, DX
	DECQ   CX
	JNZ    foldRest
	MOVL   AX, ret+32(FP)
	RET

// FOLDCOPY is FOLD that also copies what it adds to o(DI). t, u: scratch.
#define FOLDCOPY(z, t, u, o) \
	VMOVDQU64 o(SI), u;              \
	VPCLMULQDQ $0x00, Z4, z, t;      \
	VPCLMULQDQ $0x11, Z4, z, z;      \
	VMOVDQU64 u, o(DI);              \
	VPTERNLOGQ $0x96, u, t, z

// func foldCopyAVX512(state *[256]byte, by *[2]uint64, dst, p *byte, n int) uint32
// n is a positive multiple of 256.
TEXT ·foldCopyAVX512(SB), NOSPLIT, $0-44
	MOVQ state+0(FP), DX
	MOVQ by+8(FP), BX
	MOVQ dst+16(FP), DI
	MOVQ p+24(FP), SI
	MOVQ n+32(FP), CX
	VBROADCASTI32X4 (BX), Z4
	VMOVDQU64 (DX), Z0
	VMOVDQU64 64(DX), Z1
	VMOVDQU64 128(DX), Z2
	VMOVDQU64 192(DX), Z3

foldCopy:
	FOLDCOPY(Z0, Z5, Z9, 0)
	FOLDCOPY(Z1, Z6, Z10, 64)
	FOLDCOPY(Z2, Z7, Z11, 128)
	FOLDCOPY(Z3, Z8, Z12, 192)
	ADDQ $256, SI
	ADDQ $256, DI
	SUBQ $256, CX
	JNZ  foldCopy
	UNFOLD
	XORL AX, AX
	MOVL $32, CX

foldCopyRest:
	CRC32Q (DX), AX
	ADDQ   $8, DX
	DECQ   CX
	JNZ    foldCopyRest
	MOVL   AX, ret+40(FP)
	RET
