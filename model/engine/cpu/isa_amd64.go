package cpu

import "golang.org/x/sys/cpu"

// Available lists the instruction sets of this CPU, fastest first.
func Available() []ISA {
	list := []ISA{Generic}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		list = append([]ISA{AVX2}, list...)
		if cpu.X86.HasAVX512F {
			list = append([]ISA{AVX512}, list...)
		}
	}
	return list
}

func implementation(isa ISA) instructions {
	set := genericInstructions()
	switch isa {
	case AVX512:
		set.vectors, set.laneLoops = avx2Vectors(), avx2LaneLoops()
		set.rows = 8
		set.tiles = []microKernel{{48, true, avx512Tile8x48}, {32, true, avx512Tile8x32}, {16, true, avx512Tile8x16}}
	case AVX2:
		set.vectors, set.laneLoops = avx2Vectors(), avx2LaneLoops()
		set.rows = 4
		set.tiles = []microKernel{{24, false, avx2Tile4x24}, {16, false, avx2Tile4x16}, {8, true, avx2Tile4x8}}
	}
	return set
}

//go:noescape
func avx512Tile8x48(t *tile)

//go:noescape
func avx512Tile8x32(t *tile)

//go:noescape
func avx512Tile8x16(t *tile)

//go:noescape
func avx2Tile4x24(t *tile)

//go:noescape
func avx2Tile4x16(t *tile)

//go:noescape
func avx2Tile4x8(t *tile)
