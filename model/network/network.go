// Package network describes an encoder as data: a small graph of layers with
// named parameters, that an engine compiles. It knows shapes, names and
// initial values; it executes nothing.
//
// Names, layouts and initial distributions are torchvision's, so that a
// checkpoint's tensors load elsewhere: convolution weights are
// [out, in, kh, kw], linear weights [out, in], BatchNorm has weight, bias,
// running_mean and running_var.
package network

// Op is the kind of a node.
type Op int

// The operations an engine must know.
const (
	OpInput         Op = iota // images [B, Channels, H, W]
	OpConv                    // convolution without bias, weight [Out, In, Kernel, Kernel]
	OpBatchNorm               // per-channel normalisation, optionally followed by ReLU
	OpAdd                     // element-wise sum of two inputs, optionally followed by ReLU
	OpMaxPool                 // Kernel×Kernel maximum, padding counts as −∞
	OpGlobalAvgPool           // [B, C, H, W] → [B, C]
	OpLinear                  // x·Wᵀ + b, weight [Out, In], bias [Out]
	OpReLU                    // max(x, 0); gradient 0 at exactly 0
	OpL2Normalize             // x / max(‖x‖₂, 1e-12) per row
)

// BatchNorm's constants, torch's defaults.
const (
	BatchNormEpsilon  = 1e-5
	BatchNormMomentum = 0.1 // running ← (1−0.1)·running + 0.1·batch, batch variance unbiased
)

// Node is one operation of the graph. Nodes are in topological order and node
// 0 is the input.
type Node struct {
	Op     Op
	Name   string // torchvision's module name, such as "layer1.0.conv1"; "" where a node owns no parameter
	Inputs []int  // indices into Network.Nodes
	Out    []int  // output shape of one sample: [C, H, W] or [C]

	Kernel, Stride, Pad int  // OpConv, OpMaxPool
	ReLU                bool // OpBatchNorm, OpAdd: a ReLU follows, fused

	Params  []int // indices into Network.Params: conv {weight}, batch norm {weight, bias}, linear {weight, bias}
	Buffers []int // indices into Network.Buffers: batch norm {running_mean, running_var}
}

// Init says how a parameter starts.
type Init int

// Initial distributions, torchvision's.
const (
	InitZero          Init = iota // all 0: BatchNorm bias, running mean
	InitOne                       // all 1: BatchNorm weight, running variance
	InitKaimingFanOut             // N(0, √(2/(out·kh·kw))): convolutions
	InitLinearUniform             // U(−1/√fan_in, 1/√fan_in): torch's Linear weight and bias
)

// Tensor is one named parameter or buffer. All parameters of a network lie in
// one flat float32 vector, in the order of Network.Params, without gaps; so do
// all buffers.
type Tensor struct {
	Name   string // "layer1.0.conv1.weight"
	Shape  []int
	Offset int // of its first element in the flat vector
	Size   int // number of elements
	Init   Init
	FanIn  int // InitLinearUniform: inputs of the layer (a bias's too)
	FanOut int // InitKaimingFanOut: out·kh·kw
}

// Network is an encoder: a backbone up to global average pooling and a head
// that ends in OpL2Normalize; a classifier's ends in OpLinear, and its logits stand
// wherever embeddings do.
type Network struct {
	Arch       string
	Channels   int // of the input, 3 for RGB
	ImageSize  int // height and width of the input, pixels
	Dim        int // d, length of an embedding
	FeatureDim int // length of the backbone's feature vector

	Nodes   []Node
	Feature int // index of the node whose output is the backbone feature, [B, FeatureDim]
	Output  int // index of the node whose output is the embedding, [B, Dim], rows of length 1 (a classifier's: logits)

	Params  []Tensor
	Buffers []Tensor
}

// NumParams is the length of the flat parameter vector, in float32.
func (n *Network) NumParams() int { return flatLen(n.Params) }

// NumBuffers is the length of the flat buffer vector, in float32.
func (n *Network) NumBuffers() int { return flatLen(n.Buffers) }

func flatLen(ts []Tensor) int {
	if len(ts) == 0 {
		return 0
	}
	last := ts[len(ts)-1]
	return last.Offset + last.Size
}
