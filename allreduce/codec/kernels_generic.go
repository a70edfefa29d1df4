//go:build !amd64

package codec

// Without assembly the fast kernels handle nothing and leave all to Go.

func addFP32Fast(dst []float32, src []byte) int    { return 0 }
func addBF16Fast(dst []float32, src []byte) int    { return 0 }
func unpackBF16Fast(dst []float32, src []byte) int { return 0 }
func packBF16Fast(dst []byte, src []float32) int   { return 0 }
func roundBF16Fast(x []float32) int                { return 0 }
func passFast(Wire, []byte, []float32) int         { return 0 }
func keepFast(Wire, []byte, []float32) int         { return 0 }
func storeFast(Wire, []float32, []byte) int        { return 0 }
