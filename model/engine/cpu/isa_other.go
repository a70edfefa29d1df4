//go:build !amd64

package cpu

// Available lists the instruction sets of this CPU, fastest first.
func Available() []ISA { return []ISA{Generic} }

func implementation(ISA) instructions { return genericInstructions() }
