// Package schedule plans how a CPU runs a network: it turns the graph of
// layers into a list of phases that a plain executor walks through. It knows
// no kernels and runs nothing.
//
// The idea is to keep memory traffic low. A batch is cut into lanes, one or
// more for every thread, and a lane into slices small enough for the cache. A
// phase is a few operations done slice after slice: normalise the input of a
// convolution, convolve, add up the statistics of the output. Only BatchNorm
// needs the whole batch at once, so it is what ends a phase. Normalised values
// are not kept but computed again where they are needed, from the output of
// the convolution: one reading instead of a writing and a reading, and half of
// the memory.
//
//	lower.go, backward.go  layers → operations
//	phase.go               operations → phases
//	slice.go               size of a phase's slices
//	place.go               where every tensor lies, by lifetime
//
// What the result depends on is the batch and the number of lanes, never the
// number of threads.
package schedule

import (
	"fmt"

	"mochi/model/engine"
	"mochi/model/network"
)

// Type is how a tensor's values are stored.
type Type int

// Feature maps are stored in the precision of the program, vectors and what
// comes of them in fp32.
const (
	F32  Type = iota
	BF16      // the upper half of a float32
	Byte      // the maximum's place in a pooling window
)

// Size is the number of bytes of a value.
func (t Type) Size() int { return [...]int{4, 2, 1}[t] }

// Space says in which memory a tensor lies.
type Space int

// The memories of a program.
const (
	Arena   Space = iota // whole tensors, shared by lifetime
	Kept                 // whole tensors that survive the run of other programs
	Scratch              // a thread's: one slice, gone at the end of it
)

// None is a missing tensor, norm or layer of an Op.
const None = -1

// Tensor is a value [Batch, H, W, C]; vectors have H = W = 1.
type Tensor struct {
	H, W, C int
	Type    Type
	Space   Space
	Offset  int // bytes from the start of its space

	first, last int // phases of the first write and the last read
}

// Bytes is the size of one sample.
func (t Tensor) Bytes() int { return t.H * t.W * t.C * t.Type.Size() }

// Kind is what an Op does.
type Kind int

// The operations. in and out are tensors of the Op.
const (
	Images        Kind = iota // out0 ← the caller's images
	Conv                      // out0 ← in0 * weight of Layer
	Stats                     // sums of Norm[0] ← in0
	Apply                     // out0 ← f(Norm[0](in0) + in1), or + Norm[1](in1); f is ReLU or nothing
	MaxPool                   // out0, out1 (places; may be None) ← in0, or ← ReLU(Norm[0](in0))
	AvgPool                   // out0 ← mean over pixels of in0
	Add                       // out0 ← in0 + in1
	ReLU                      // out0 ← max(in0, 0)
	Bias                      // out0 ← in0 + bias of Layer
	Normalize                 // out0, out1 (lengths) ← in0
	Gradient                  // out0 ← the caller's gradient of the embeddings
	Sums                      // g = Mask·(in0 + in1); out0 ← g unless None; gradient sums of Norm ← g, in3, in4. in2: output that masks
	GradApply                 // out0, out1 ← gradients of in3, in4 under Norm, from Mask·in0
	WeightGrad                // weight gradient of Layer ← in0 (or f(Norm[0](in0))), in1
	DataGrad                  // out0 ← gradient of the input of Layer, from in0
	MaxPoolGrad               // out0 ← in0, places in1
	AvgPoolGrad               // out0 ← in0
	ReLUGrad                  // out0 ← in0 where in1 > 0
	BiasGrad                  // bias gradient of Layer ← in0
	NormalizeGrad             // out0 ← in0, output in1, lengths in2

	Kinds // how many
)

// Mask says where a ReLU let a value pass.
type Mask int

// The masks.
const (
	MaskNone   Mask = iota
	MaskSelf        // where the normalised value was positive
	MaskOutput      // where the output, in2, is positive
)

// Op is one operation on a slice.
type Op struct {
	Kind  Kind
	In    [5]int
	Out   [2]int
	Norm  [2]int // indices into Schedule.Norms
	Layer int    // index into Schedule.Layers
	ReLU  bool
	Mask  Mask
}

// Layer is a convolution, or a linear layer as a 1×1 convolution on one pixel,
// or the window of a pooling.
type Layer struct {
	Node                int // index into Network.Nodes
	In, Out             int // channels
	IH, IW, OH, OW      int
	Kernel, Stride, Pad int
	Linear              bool // a row is a pixel
	Pool                bool
	Type                Type // of both operands
	OwnGrad             bool // Options.OwnWeightGrad
	Weight, Bias        int  // indices into Network.Params; None
}

// Norm is a BatchNorm.
type Norm struct {
	Node     int
	Channels int
	Pixels   int // of one sample
}

// Tail is what the threads do together at the end of a phase.
type Tail struct {
	Kind  TailKind
	Index int // a Norm, or a Layer
}

// TailKind is the kind of a Tail.
type TailKind int

// The kinds of tails.
const (
	Fold         TailKind = iota // statistics of a norm are complete
	GradFold                     // gradient sums of a norm are complete: its parameters' gradients too
	StoreWeights                 // the weight gradient of a layer is complete
	StoreBias                    // the bias gradient of a layer is complete

	TailKinds // how many
)

// Slice is what a phase does at a time: N units from unit First on. A unit is
// a sample, or a Split-th of its rows.
type Slice struct{ First, N int }

// Phase is a list of operations that every lane does slice by slice; all lanes
// end one before any begins the next.
type Phase struct {
	Ops    []Op
	Tails  []Tail
	Split  int       // units of a sample
	Slices [][]Slice // by lane
	Ready  []int     // parameters whose gradients are final after this phase
}

// Schedule is a planned program.
type Schedule struct {
	Batch, Lanes int
	Tensors      []Tensor
	Layers       []Layer
	Norms        []Norm
	Forward      []Phase
	Backward     []Phase // mode Train only

	Feature, Output int   // tensors
	Unused          []int // parameters that do not reach the embedding: gradient zero

	Arena, Kept, Scratch int // bytes; Scratch of one thread

	width int // bytes of a feature map's value while a convolution reads or writes it
}

// Options are what a schedule is made for.
type Options struct {
	Spec  engine.Spec
	Type  Type // of feature maps
	Wide  bool // convolutions widen their slices to fp32
	Lanes int  // parts of the batch, ≥ 1
	// OwnWeightGrad says whether a layer's weight gradient reads the input of
	// the BatchNorm in front and adds up over slices at no cost.
	OwnWeightGrad func(Layer) bool
	// Stored says that a BatchNorm in front of a convolution is stored, not
	// computed again where it is read: for an engine whose convolutions come
	// from a library and run on the whole batch (cuda).
	Stored bool
}

// New plans a program of net.
func New(net *network.Network, o Options) (*Schedule, error) {
	if o.Spec.Mode != engine.Eval {
		for _, n := range net.Nodes {
			if in := net.Nodes[max(0, first(n.Inputs))].Out; n.Op == network.OpBatchNorm && o.Spec.Batch*in[1]*in[2] < 2 {
				return nil, fmt.Errorf("%s: BatchNorm over a single value: a batch of %d at %d×%d pixels", n.Name, o.Spec.Batch, in[1], in[2])
			}
		}
	}
	l := newLowering(net, o)
	l.forward()
	forward := len(l.phases)
	if o.Spec.Mode == engine.Train {
		l.backward()
	}
	s := &Schedule{Batch: o.Spec.Batch, Lanes: o.Lanes, Tensors: l.tensors, Layers: l.layers, Norms: l.norms,
		Feature: l.value[net.Feature], Output: l.value[net.Output], Unused: l.unused()}
	s.Forward, s.Backward = l.phases[:forward:forward], l.phases[forward:]
	if s.width = o.Type.Size(); o.Wide {
		s.width = F32.Size()
	}
	s.slices(l.phases)
	s.place(l.phases)
	return s, nil
}

func first(v []int) int {
	if len(v) == 0 {
		return None
	}
	return v[0]
}
