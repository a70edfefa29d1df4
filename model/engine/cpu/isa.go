package cpu

import (
	"fmt"
	"slices"
)

// ISA names the instruction set of the kernels.
type ISA string

// The instruction sets.
const (
	AVX512  ISA = "avx512"
	AVX2    ISA = "avx2"
	Generic ISA = "generic" // plain Go, any architecture
)

// Describe names the instruction set that NewTeam uses on this CPU: "avx512",
// "avx2" or "generic".
func Describe() string { return string(Available()[0]) }

// Numerics names the instruction sets that give the same bits as those NewTeam
// uses on this CPU: "fma" for AVX2 and AVX-512, or "generic".
func Numerics() string {
	if Available()[0] == Generic {
		return string(Generic)
	}
	return "fma"
}

func instructionsOf(isa ISA) instructions {
	if !slices.Contains(Available(), isa) {
		panic(fmt.Sprintf("engine/cpu: this CPU has no %q kernels, only %q", isa, Available()))
	}
	return implementation(isa)
}
