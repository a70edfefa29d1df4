// Package cpu computes the layers of a ResNet on CPUs in pure Go and Go
// assembly, without cgo: matrix products, convolutions, BatchNorm, pooling and
// the element-wise rest, forward and backward, in float32.
//
// Tensors are dense and row-major: activations [B, C, H, W], convolution
// weights [O, I, k, k], linear weights [O, I]. Every function writes into
// buffers of the caller, keeps no reference to them after it returns and
// allocates nothing once its scratch memory has grown to the largest shape
// seen. Wrong lengths panic with a message that names the buffer: shapes are
// fixed when a network is compiled, so a wrong one is a broken invariant.
//
// Results depend on the inputs and on the instruction set alone, never on the
// number of threads: work is cut by shape, each output element is summed by
// one task in a fixed order, and partial sums are combined in index order.
// AVX2 and AVX-512 give the same bits (every element is one chain of fused
// multiply-adds over the reduction index); the generic code rounds products
// and sums separately, so its matrix products differ in the last bits.
// BatchNorm, pooling and element-wise results are equal on all three.
//
// A Team serialises what runs on it. Panics of argument checks come before any
// work starts, in the calling goroutine.
//
// Cost, on one core of a Sapphire Rapids Xeon that other work shared (best of
// many runs; medians under that load were half to nine tenths of it): with
// AVX-512, ResNet-20's 3×3 convolutions run at 100–130 GFLOP/s forward, 100–120
// backward to the data and 85–120 to the weights, the two strided layers at
// 60–75; with AVX2 at 45–75; in plain Go at 2–3. BatchNorm moves 18 GB/s. All
// kernels of a ResNet-20 step (28×28, batch 32) take 25 ms forward and 57 ms
// backward, and allocate nothing. To measure:
//
//	go test -run '^$' -bench . ./model/engine/cpu
//
// Where the speed comes from: see tile.go (one micro-kernel for everything)
// and conv.go (convolution as a matrix product over shifted views of a padded
// image, after the direct methods of Georganas et al., "Anatomy of
// High-Performance Deep Learning Convolutions on SIMD Architectures", SC 2018).
package cpu
