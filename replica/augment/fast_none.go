//go:build !simd

package augment

// fast is empty: this build has no vector code.
type fast struct{}

func newFast() fast { return fast{} }

func (*Worker) applyFast(*Image, Params, []float32) bool { return false }
