// Package kernel computes the layers of a ResNet on CPUs in pure Go and Go
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
// Where the speed comes from: see tile.go (one micro-kernel for everything)
// and conv.go (convolution as a matrix product over shifted views of a padded
// image, after the direct methods of Georganas et al., "Anatomy of
// High-Performance Deep Learning Convolutions on SIMD Architectures", SC 2018).
package kernel
