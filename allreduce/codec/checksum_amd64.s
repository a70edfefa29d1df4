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

// func foldWith512(state *[256]byte, by *[2]uint64, p *byte, n int) uint32
// n is a positive multiple of 256.
TEXT ·foldWith512(SB), NOSPLIT, $0-36
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

// func foldCopyWith512(state *[256]byte, by *[2]uint64, dst, p *byte, n int) uint32
// n is a positive multiple of 256.
TEXT ·foldCopyWith512(SB), NOSPLIT, $0-44
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

// FOLD256 replaces y, twice 128 bits, by what they are 256 bytes further on, plus the 32
// bytes at o(SI). Y15: the factors. t: scratch.
#define FOLD256(y, t, o) \
	VPCLMULQDQ $0x00, Y15, y, t; \
	VPCLMULQDQ $0x11, Y15, y, y; \
	VPXOR o(SI), t, t;           \
	VPXOR t, y, y

// FOLDCOPY256 is FOLD256 that also copies what it adds to o(DI). t, u: scratch.
#define FOLDCOPY256(y, t, u, o) \
	VMOVDQU o(SI), u;            \
	VPCLMULQDQ $0x00, Y15, y, t; \
	VPCLMULQDQ $0x11, Y15, y, y; \
	VMOVDQU u, o(DI);            \
	VPXOR u, t, t;               \
	VPXOR t, y, y

// STATE256 loads the state at DX, and UNFOLD256 stores it there.
#define STATE256 \
	VMOVDQU (DX), Y0;    \
	VMOVDQU 32(DX), Y1;  \
	VMOVDQU 64(DX), Y2;  \
	VMOVDQU 96(DX), Y3;  \
	VMOVDQU 128(DX), Y4; \
	VMOVDQU 160(DX), Y5; \
	VMOVDQU 192(DX), Y6; \
	VMOVDQU 224(DX), Y7

#define UNFOLD256 \
	VMOVDQU Y0, (DX);    \
	VMOVDQU Y1, 32(DX);  \
	VMOVDQU Y2, 64(DX);  \
	VMOVDQU Y3, 96(DX);  \
	VMOVDQU Y4, 128(DX); \
	VMOVDQU Y5, 160(DX); \
	VMOVDQU Y6, 192(DX); \
	VMOVDQU Y7, 224(DX); \
	VZEROUPPER

// func foldWith256(state *[256]byte, by *[2]uint64, p *byte, n int) uint32
// n is a positive multiple of 256.
TEXT ·foldWith256(SB), NOSPLIT, $0-36
	MOVQ state+0(FP), DX
	MOVQ by+8(FP), BX
	MOVQ p+16(FP), SI
	MOVQ n+24(FP), CX
	VBROADCASTI128 (BX), Y15
	STATE256

fold256:
	FOLD256(Y0, Y8, 0)
	FOLD256(Y1, Y9, 32)
	FOLD256(Y2, Y10, 64)
	FOLD256(Y3, Y11, 96)
	FOLD256(Y4, Y8, 128)
	FOLD256(Y5, Y9, 160)
	FOLD256(Y6, Y10, 192)
	FOLD256(Y7, Y11, 224)
	ADDQ $256, SI
	SUBQ $256, CX
	JNZ  fold256
	UNFOLD256
	XORL AX, AX
	MOVL $32, CX

fold256Rest:
	CRC32Q (DX), AX
	ADDQ   $8, DX
	DECQ   CX
	JNZ    fold256Rest
	MOVL   AX, ret+32(FP)
	RET

// func foldCopyWith256(state *[256]byte, by *[2]uint64, dst, p *byte, n int) uint32
// n is a positive multiple of 256.
TEXT ·foldCopyWith256(SB), NOSPLIT, $0-44
	MOVQ state+0(FP), DX
	MOVQ by+8(FP), BX
	MOVQ dst+16(FP), DI
	MOVQ p+24(FP), SI
	MOVQ n+32(FP), CX
	VBROADCASTI128 (BX), Y15
	STATE256

foldCopy256:
	FOLDCOPY256(Y0, Y8, Y12, 0)
	FOLDCOPY256(Y1, Y9, Y13, 32)
	FOLDCOPY256(Y2, Y10, Y14, 64)
	FOLDCOPY256(Y3, Y11, Y12, 96)
	FOLDCOPY256(Y4, Y8, Y13, 128)
	FOLDCOPY256(Y5, Y9, Y14, 160)
	FOLDCOPY256(Y6, Y10, Y12, 192)
	FOLDCOPY256(Y7, Y11, Y13, 224)
	ADDQ $256, SI
	ADDQ $256, DI
	SUBQ $256, CX
	JNZ  foldCopy256
	UNFOLD256
	XORL AX, AX
	MOVL $32, CX

foldCopy256Rest:
	CRC32Q (DX), AX
	ADDQ   $8, DX
	DECQ   CX
	JNZ    foldCopy256Rest
	MOVL   AX, ret+40(FP)
	RET

// func cpuid(leaf, subleaf uint32) (eax, ecx uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-16
	MOVL leaf+0(FP), AX
	MOVL subleaf+4(FP), CX
	CPUID
	MOVL AX, eax+8(FP)
	MOVL CX, ecx+12(FP)
	RET
