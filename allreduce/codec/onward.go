package codec

import "unsafe"

// Pass adds x to the elements in packed, where they lie: what Pack makes of what Add
// gives, in one pass over x, which stays as it is. len(packed) must be len(x)·w.Size().
func (w Wire) Pass(packed []byte, x []float32) {
	size := w.Size()
	mustFit(len(x), size, len(packed))
	done := passFast(w, packed, x)
	packed, x = packed[done*size:], x[done:]
	var some [64]float32
	for len(x) > 0 {
		sum := some[:copy(some[:], x)]
		part := packed[:len(sum)*size]
		w.Add(sum, part)
		copy(part, w.Pack(part, sum)) // fp32 is not packed there but lies in some
		packed, x = packed[len(part):], x[len(sum):]
	}
}

// Keep is Add and then Round of x, and leaves the same elements in packed. len(packed)
// must be len(x)·w.Size().
func (w Wire) Keep(x []float32, packed []byte) {
	size := w.Size()
	mustFit(len(x), size, len(packed))
	done := keepFast(w, packed, x)
	packed, x = packed[done*size:], x[done:]
	w.Add(x, packed)
	w.Round(x)
	copy(packed, w.Pack(packed, x))
}

// Store is Unpack past the caches, where the processor can: right for what will not be
// read again soon, since memory is not read before it is written (twice as fast).
func (w Wire) Store(dst []float32, src []byte) {
	mustFit(len(dst), w.Size(), len(src))
	head := min(len(dst), int(-uintptr(unsafe.Pointer(unsafe.SliceData(dst)))%32)/4) // to where the kernels begin
	size := w.Size()
	w.Unpack(dst[:head], src[:head*size])
	dst, src = dst[head:], src[head*size:]
	done := storeFast(w, dst, src)
	w.Unpack(dst[done:], src[done*size:])
}
