// Package engine is the contract between the method (package model) and the
// kernels that execute it. An engine owns the parameters of a query and a key
// encoder and compiles a network.Network into programs for one batch shape
// and mode; package enginetest checks any implementation against it.
//
// All host-side tensors are row-major float32; images are [B, C, H, W].
// Unless a method says otherwise, slices belong to the caller and are not
// kept after the call returns. Nothing here may be called concurrently on one
// State; different States are independent.
package engine

import (
	"errors"
	"fmt"

	"mochi/model/network"
)

// ErrUnsupported is wrapped by an engine that cannot do what was asked (a
// precision, a layer, a device); its message says what and why.
var ErrUnsupported = errors.New("not supported by this engine")

// ErrPrecision is ErrUnsupported where it is the precision that an engine or its
// device does not have.
var ErrPrecision error = precisionError{}

type precisionError struct{}

func (precisionError) Error() string { return ErrUnsupported.Error() }
func (precisionError) Unwrap() error { return ErrUnsupported }

// Precision is the format of activations and working weights. Master weights,
// statistics and accumulation are fp32 in every precision. TF32 is FP32 but for
// the factors of convolutions and linear layers, whose mantissas a GPU cuts to
// 10 bits, to multiply them on its tensor cores.
type Precision string

// The precisions of the command line.
const (
	FP32 Precision = "fp32"
	TF32 Precision = "tf32"
	BF16 Precision = "bf16"
)

// Config selects how an engine runs.
type Config struct {
	Precision Precision // default fp32
	Threads   int       // compute threads; 0 = all cores
	Device    int       // GPU number; ignored by CPU engines
	Tune      bool      // choose a library's algorithms by measurement, kept on this machine; ignored by CPU engines
}

// Info describes an engine that is running.
type Info struct {
	Name    string // gorgonia, onednn, cuda
	Device  string // "CPU, 2 threads, avx2 kernels"
	Threads int

	// Versions is of what it stands on, by name in small letters: "onednn" or
	// "driver", "cuda" (what the driver knows), "cudnn", "cublas", "nvrtc".
	// Read only.
	Versions map[string]string

	// Numerics names what decides the bits of a result: two engines with the
	// same Numerics and Precision compute the same from the same input, on
	// whatever machine and number of threads. Replicas of one job must have it
	// in common.
	Numerics string // "gorgonia fma"
}

// Engine makes states. It is safe for concurrent use.
type Engine interface {
	Info() Info
	// NewState allocates the tensors of one MoCo pair, all zero.
	NewState(net *network.Network) (State, error)
	// Products are the matrix products of evaluation.
	Products() Products
	// Contrast is the arithmetic of the loss.
	Contrast() Contrast
	Close() error
}

// Vector names one of a State's flat vectors.
type Vector int

// The vectors of a State.
const (
	QueryParams  Vector = iota // f_q, length net.NumParams()
	KeyParams                  // f_k, length net.NumParams()
	Momentum                   // SGD momentum, length net.NumParams()
	QueryBuffers               // BatchNorm running statistics of f_q, length net.NumBuffers()
	KeyBuffers                 // of f_k
)

// Vectors lists all of them in a fixed order (that of the recovery stream).
var Vectors = []Vector{QueryParams, KeyParams, Momentum, QueryBuffers, KeyBuffers}

// Encoder names one of the two encoders of a State.
type Encoder int

// The encoders.
const (
	Query Encoder = iota
	Key
)

// Mode is what a program is compiled for.
type Mode int

// The modes.
const (
	Train   Mode = iota // batch statistics, activations kept for Backward
	Forward             // batch statistics, forward only (the key encoder)
	Eval                // running statistics, forward only
)

// Spec is what a program is compiled for: one encoder, one batch shape.
type Spec struct {
	Encoder Encoder
	Batch   int // samples; in modes Train and Forward one BatchNorm group
	Mode    Mode
}

// State is the engine-owned parameters of a query and a key encoder.
type State interface {
	Network() *network.Network
	// Host returns a vector for reading: current after every call on this
	// State, engine-owned, valid until Close.
	Host(v Vector) []float32
	// Set overwrites a vector. It panics when the length differs.
	Set(v Vector, values []float32)
	// Compile prepares a program. Programs of one State share its parameters
	// and see every Update.
	Compile(spec Spec) (Program, error)
	// Update applies one optimiser step (see Update).
	Update(u Update) error
	Close() error
}

// Update is one committed step, in this order:
//
//	g ← Grads + WeightDecay·θ_q
//	v ← SGDMomentum·v + g              (v = g at the very first step: v starts at 0)
//	θ_q ← θ_q − LR·v
//	θ_k ← m·θ_k + (1−m)·θ_q            (He et al. 2020, Eq. 2; parameters only)
//	running ← 0.9·running + 0.1·statistic   (both encoders)
//
// With Trust it is LARS (package optim), and the first line, of each tensor:
//
//	u ← Grads + WeightDecay·θ_q,  q ← Trust·‖θ_q‖/‖u‖   (1 where either is 0)
//	g ← q·u
//
// but for vectors (BatchNorm's and biases), whose weight decay is 0 and q is 1.
//
// Every operation is rounded to float32 element by element, without fused
// multiply-add, in the order written, so that all engines agree to the bit;
// norms and q are float64 until q is there, sums in the order of optim.Lanes.
type Update struct {
	Grads           []float32 // mean gradient over the global batch, length NumParams
	QueryStatistics []float32 // mean over groups of the batch statistics, length NumBuffers
	KeyStatistics   []float32
	LR              float32
	SGDMomentum     float32 // 0.9
	WeightDecay     float32
	EncoderMomentum float32 // m
	Trust           float32 // η of LARS; 0: plain SGD
}

// Validate reports a vector that does not have the network's length.
func (u Update) Validate(net *network.Network) error {
	for _, v := range []struct {
		name      string
		got, want int
	}{
		{"gradients", len(u.Grads), net.NumParams()},
		{"query statistics", len(u.QueryStatistics), net.NumBuffers()},
		{"key statistics", len(u.KeyStatistics), net.NumBuffers()},
	} {
		if v.got != v.want {
			return fmt.Errorf("%d %s, %s has %d", v.got, v.name, net.Arch, v.want)
		}
	}
	return nil
}

// Program is one compiled network. It owns its activations.
type Program interface {
	Spec() Spec
	// Forward computes embeddings [B, Dim] (rows of length 1) from images
	// [B, C, H, W] into dst.
	Forward(images, dst []float32) error
	// Features copies the backbone features [B, FeatureDim] of the last
	// Forward into dst.
	Features(dst []float32)
	// Statistics copies the batch statistics of the last Forward into dst, in
	// the order of net.Buffers: mean, and variance with Bessel's correction
	// n/(n−1). Modes Train and Forward only.
	Statistics(dst []float32)
	// Backward computes the gradient of Σ(embeddings · dEmbeddings) with
	// respect to every parameter into grads (overwritten, length NumParams).
	// ready, if not nil, is called once per parameter index as soon as its
	// gradient is final, in backward order, from the calling goroutine; the
	// caller may read that part of grads from then on. Mode Train only, once
	// after each Forward.
	Backward(dEmbeddings, grads []float32, ready func(param int)) error
	Close() error
}

// Products are dense row-major matrix products in float32. The result for one
// output element does not depend on the number of threads.
type Products interface {
	// NT: c[m,n] = a[m,k] · b[n,k]ᵀ
	NT(m, n, k int, a, b, c []float32)
	// NN: c[m,n] = a[m,k] · b[k,n]
	NN(m, n, k int, a, b, c []float32)
}
