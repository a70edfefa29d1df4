// Package onednn is the CPU engine: convolutions by oneDNN (libdnnl, version 2
// or 3) through cgo, everything between them by own kernels, fp32 or bf16. It
// is there with the build tag onednn.
//
// What makes it fast is less the library than the schedule (package schedule):
// every thread owns a part of the batch and runs one-thread primitives on
// slices of it that stay in the cache, and only BatchNorm makes threads wait
// for each other. Normalised values are computed again instead of kept. In
// bf16, weight gradients come from an own kernel that adds up over slices.
//
//	engine.go, state.go,
//	program.go            the contract of package engine
//	plan.go               a schedule written down for C
//	exec.h                the C side as Go sees it: engine.c, state.c (parameters
//	                      and working copies), program.c (primitives, buffers),
//	                      exec.c (running); mirror.go checks its numbers
//	internal.h,           what those C files share: a thread, a compiled
//	program.h             program; team.c (threads and barriers), memory.c (what
//	                      does not come is an error), dnnl_shim.c (the library,
//	                      one face for its versions)
//	kernels.h, kernel_*   what oneDNN does not do, or does slower; kernel_vec.h:
//	                      vectors of each level; kernel_each.h: a body for each
//	contrast/             the loss, a package of its own
//	testhooks.go          what tests call of all this, with the tag testhooks:
//	                      go test -tags onednn,testhooks ./model/engine/onednn/...
//
// Promises. The same input gives the same bits from run to run, and on one and
// two threads; more threads cut the batch into more parts, which changes the
// order of summation and with it the last bits. In bf16, feature maps and
// working weights are rounded to bf16; parameters, statistics, sums, vectors
// (the head) and the loss stay fp32. That holds on every processor: where there
// are no bf16 dot products (AVX-512 before Cooper Lake and Zen 4, AVX2), slices
// are widened to fp32 for a convolution and its result is rounded, which saves
// memory but no time. oneDNN's own stand-in for the instructions takes three
// times as long as fp32.
//
// Cost. Compiling makes the primitives, some seconds for ResNet-50. A training
// program keeps the outputs of convolutions and residual blocks; gradients
// live where activations have died; other programs of the same State borrow
// that memory while no backward is pending. A step allocates nothing in Go.
package onednn

// Name is what Info and the command line call this engine.
const Name = "onednn"
