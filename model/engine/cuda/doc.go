// Package cuda is the GPU engine: convolutions by cuDNN, products by cuBLAS,
// everything between them by own kernels, fp32 or bf16. It is there with the
// build tag gpu. It has run on the emulated GPU of package emulator only, not
// yet on a real one.
//
//	plan/      network → steps on the batch and their memory, in pure Go
//	engine.go, state.go, program.go   the contract of package engine
//	steps.go   plan → launches, made once when a program is compiled
//	graph.go   those launches as CUDA graphs from the second time on
//	download.go  gradients to the host while backward runs
//	stage.go   images to the device before the forward that reads them
//	offload.go, room.go, mirror.go   the loss, its memory, the queue's keys
//	clock.go   time by the device's own clock
//	lars.go    updates with layer-wise rates
//	memory.go  what a step needs, and the largest that fits
//	kernel/    own kernels in CUDA C
//	compiled.go, fallback/   those kernels compiled: at start by NVRTC, and
//	           where there is none, by the NVRTC of the machine that built
//	driver/    the CUDA driver by gorgonia.org/cu
//	library/   cuDNN, cuBLAS and NVRTC, opened at run time
//	emulator/  a GPU for tests
//
// Feature maps are NHWC. In bf16, feature maps, working copies of the weights
// and, out of cuDNN, the convolutions' weight gradients are rounded to bf16;
// parameters, statistics, sums, vectors (the head) and the update are fp32.
// fp32 is without TF32; precision tf32 is fp32 with convolutions and linear
// layers on tensor cores, which read 10 bits of a mantissa. Products of
// evaluation are fp32 in every precision.
//
// A program runs one BatchNorm group, or several together (engine.Grouped):
// one launch a step instead of one a group, except for the gradients of
// weights, which stay apart.
//
// Promises. The same input gives the same bits from run to run on the same
// kind of device with the same libraries: only deterministic algorithms are
// taken, and those by cuDNN's own ranking, which depends on the device's kind
// and the version alone, not by a measurement, which two replicas might decide
// differently. With Config.Tune the fastest is taken, measured once a machine
// and kept there; Info.Numerics then names the machine's choices, so that only
// replicas that have them in common work together.
//
// The parts of the loss (engine.Offload) are the same bits whatever batch and
// shards they are computed with, because products have a constant shape and own
// kernels look at one query and one shard.
//
// Graphs. A forward, and each part of a backward after which gradients leave,
// is launched kernel by kernel the first time, captured the second, and one
// call from the third on. Copies to and from pinned memory and the events of
// the clock and of gradients that have come stay outside, so that the host waits
// as before. An update is a few launches with another learning rate each time,
// and is not captured; nor is the loss. Where the driver has no graphs, or
// something cannot be captured, kernels are launched one by one and Info.Device
// says why; MOCHI_CUDA_GRAPHS=off asks for that.
//
// Cost. Host vectors are copied when they are asked for, not at every update.
// The keys of the queue are copied to the device once, and then those that are
// new. The loss goes there and back twice: once it is known how many hard
// negatives lie in which shard, the points are drawn; with them the parts,
// shards·queries·(d+9) floats, come to the host, which folds them. Where the
// device does not take a loss (thousands of shards) its panels are the CPU's, of
// package gorgonia/kernel.
package cuda

// Name is what Info and the command line call this engine.
const Name = "cuda"
