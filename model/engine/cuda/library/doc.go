// Package library opens cuDNN, cuBLAS and NVRTC at run time, by a list of
// sonames, and calls the few functions of them that the engine needs. It is
// there with the build tag gpu.
//
//	open.go      looking for a library; what is missing is named with what was looked for
//	dnn.go       convolutions by cuDNN 8 or 9 (NHWC, fp32 or bf16, fp32 sums)
//	blas.go      fp32 matrix products by cuBLAS 11, 12 or 13
//	compiler.go  kernels by NVRTC 11, 12 or 13, for the device at hand
//	cache.go     what NVRTC compiled, on disk
//
// No header of these libraries is needed to build: the functions, types and
// numbers used here are those of NVIDIA's API references (cuDNN 8.9 and 9,
// cuBLAS 12, NVRTC 12), which are the same in the versions above.
//
// A Go caller must have made the device current (driver.Device.Enter). Handles
// are not safe for concurrent use.
package library
