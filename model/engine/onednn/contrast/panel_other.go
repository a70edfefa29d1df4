//go:build onednn && !amd64

package contrast

import (
	"mochi/model/engine"
	"mochi/model/engine/cpu"
)

// New makes panels of package cpu: the kernels in C are for AVX-512.
func New(avx512 bool) engine.Contrast { return cpu.Contrast{} }
