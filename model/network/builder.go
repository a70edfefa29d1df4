package network

import (
	"fmt"
	"math"
)

// Builder appends nodes to a network and keeps shapes, parameters and buffers
// in step. The first mistake is kept and returned by Build; until then every
// method is safe to call, so that a description reads without error handling.
//
// Nodes, parameters and buffers are numbered in the order of the calls.
type Builder struct {
	net Network
	err error
}

// NewBuilder starts a network on images [channels, size, size]; node 0 is the
// input.
func NewBuilder(arch string, channels, size int) *Builder {
	b := &Builder{net: Network{Arch: arch, Channels: channels, ImageSize: size}}
	if channels < 1 || size < 1 {
		b.fail("input", "images of %d channels and %d×%d pixels; both must be at least 1", channels, size, size)
	}
	b.net.Nodes = []Node{{Op: OpInput, Out: []int{channels, size, size}}}
	return b
}

// Conv appends a square convolution without bias, [C, H, W] → [out, H', W'],
// H' = (H + 2·pad − kernel)/stride + 1 rounded down.
func (b *Builder) Conv(name string, input, out, kernel, stride, pad int) int {
	in, ok := b.image(name, input)
	if !ok || !b.positive(name, "output channels", out) {
		return 0
	}
	h, w, ok := b.window(name, in, kernel, stride, pad)
	if !ok {
		return 0
	}
	weight := b.param(Tensor{Name: name + ".weight", Shape: []int{out, in[0], kernel, kernel},
		Init: InitKaimingFanOut, FanOut: out * kernel * kernel})
	return b.node(Node{Op: OpConv, Name: name, Inputs: []int{input}, Out: []int{out, h, w},
		Kernel: kernel, Stride: stride, Pad: pad, Params: []int{weight}})
}

// BatchNorm appends a per-channel normalisation of [C, H, W], followed by a
// ReLU where relu is set.
func (b *Builder) BatchNorm(name string, input int, relu bool) int {
	in, ok := b.image(name, input)
	if !ok {
		return 0
	}
	c := in[0]
	return b.node(Node{Op: OpBatchNorm, Name: name, Inputs: []int{input}, Out: clone(in), ReLU: relu,
		Params: []int{
			b.param(Tensor{Name: name + ".weight", Shape: []int{c}, Init: InitOne}),
			b.param(Tensor{Name: name + ".bias", Shape: []int{c}, Init: InitZero}),
		},
		Buffers: []int{
			b.buffer(Tensor{Name: name + ".running_mean", Shape: []int{c}, Init: InitZero}),
			b.buffer(Tensor{Name: name + ".running_var", Shape: []int{c}, Init: InitOne}),
		}})
}

// Add appends the element-wise sum of two nodes of equal shape, followed by a
// ReLU where relu is set.
func (b *Builder) Add(x, y int, relu bool) int {
	if !b.known("add", x) || !b.known("add", y) {
		return 0
	}
	p, q := b.net.Nodes[x].Out, b.net.Nodes[y].Out
	if fmt.Sprint(p) != fmt.Sprint(q) {
		b.fail("add", "inputs have shapes %v and %v; they must be equal", p, q)
		return 0
	}
	return b.node(Node{Op: OpAdd, Inputs: []int{x, y}, Out: clone(p), ReLU: relu})
}

// MaxPool appends a square maximum; padding counts as −∞.
func (b *Builder) MaxPool(input, kernel, stride, pad int) int {
	in, ok := b.image("maxpool", input)
	if !ok {
		return 0
	}
	if 2*pad > kernel {
		b.fail("maxpool", "padding %d is more than half of the kernel %d: a window could hold no pixel", pad, kernel)
		return 0
	}
	h, w, ok := b.window("maxpool", in, kernel, stride, pad)
	if !ok {
		return 0
	}
	return b.node(Node{Op: OpMaxPool, Inputs: []int{input}, Out: []int{in[0], h, w},
		Kernel: kernel, Stride: stride, Pad: pad})
}

// GlobalAvgPool appends the mean over H and W, [C, H, W] → [C].
func (b *Builder) GlobalAvgPool(input int) int {
	in, ok := b.image("global average pool", input)
	if !ok {
		return 0
	}
	return b.node(Node{Op: OpGlobalAvgPool, Inputs: []int{input}, Out: []int{in[0]}})
}

// Linear appends x·Wᵀ + b, [in] → [out].
func (b *Builder) Linear(name string, input, out int) int {
	in, ok := b.vector(name, input)
	if !ok || !b.positive(name, "outputs", out) {
		return 0
	}
	return b.node(Node{Op: OpLinear, Name: name, Inputs: []int{input}, Out: []int{out},
		Params: []int{
			b.param(Tensor{Name: name + ".weight", Shape: []int{out, in}, Init: InitLinearUniform, FanIn: in}),
			b.param(Tensor{Name: name + ".bias", Shape: []int{out}, Init: InitLinearUniform, FanIn: in}),
		}})
}

// ReLU appends max(x, 0), for any shape.
func (b *Builder) ReLU(input int) int {
	if !b.known("relu", input) {
		return 0
	}
	return b.node(Node{Op: OpReLU, Inputs: []int{input}, Out: clone(b.net.Nodes[input].Out)})
}

// L2Normalize appends x / max(‖x‖₂, 1e-12), [d] → [d].
func (b *Builder) L2Normalize(input int) int {
	d, ok := b.vector("l2 normalize", input)
	if !ok {
		return 0
	}
	return b.node(Node{Op: OpL2Normalize, Inputs: []int{input}, Out: []int{d}})
}

// Build ends the description. feature is the backbone's last node and output
// the embedding, both of shape [n]; output must be an OpL2Normalize, or the OpLinear
// of a classifier, whose logits then take the place of embeddings.
func (b *Builder) Build(feature, output int) (*Network, error) {
	if f, ok := b.vector("feature", feature); ok {
		b.net.FeatureDim, b.net.Feature = f, feature
	}
	if d, ok := b.vector("output", output); ok {
		b.net.Dim, b.net.Output = d, output
		if op := b.net.Nodes[output].Op; op != OpL2Normalize && op != OpLinear {
			b.fail("output", "the embedding must come from an L2 normalisation, or logits from a linear layer")
		}
	}
	if b.err != nil {
		return nil, b.err
	}
	net := b.net
	return &net, nil
}

func (b *Builder) node(n Node) int {
	b.net.Nodes = append(b.net.Nodes, n)
	return len(b.net.Nodes) - 1
}

func (b *Builder) param(t Tensor) int {
	t.Offset, t.Size = b.net.NumParams(), volume(t.Shape)
	b.net.Params = append(b.net.Params, t)
	return len(b.net.Params) - 1
}

func (b *Builder) buffer(t Tensor) int {
	t.Offset, t.Size = b.net.NumBuffers(), volume(t.Shape)
	b.net.Buffers = append(b.net.Buffers, t)
	return len(b.net.Buffers) - 1
}

// window is the output size of a sliding window over in = [C, H, W].
func (b *Builder) window(name string, in []int, kernel, stride, pad int) (h, w int, ok bool) {
	if kernel < 1 || stride < 1 || pad < 0 {
		b.fail(name, "kernel %d, stride %d, padding %d; kernel and stride must be at least 1, padding at least 0", kernel, stride, pad)
		return 0, 0, false
	}
	if in[1]+2*pad < kernel || in[2]+2*pad < kernel {
		b.fail(name, "a %d×%d kernel does not fit into %d×%d pixels with padding %d", kernel, kernel, in[1], in[2], pad)
		return 0, 0, false
	}
	return (in[1]+2*pad-kernel)/stride + 1, (in[2]+2*pad-kernel)/stride + 1, true
}

func (b *Builder) image(name string, node int) ([]int, bool) {
	if !b.known(name, node) {
		return nil, false
	}
	out := b.net.Nodes[node].Out
	if len(out) != 3 {
		b.fail(name, "input has shape %v; [C, H, W] is needed", out)
		return nil, false
	}
	return out, true
}

func (b *Builder) vector(name string, node int) (int, bool) {
	if !b.known(name, node) {
		return 0, false
	}
	out := b.net.Nodes[node].Out
	if len(out) != 1 {
		b.fail(name, "input has shape %v; a vector is needed", out)
		return 0, false
	}
	return out[0], true
}

func (b *Builder) known(name string, node int) bool {
	if b.err == nil && (node < 0 || node >= len(b.net.Nodes)) {
		b.fail(name, "there is no node %d (there are %d)", node, len(b.net.Nodes))
	}
	return b.err == nil
}

func (b *Builder) positive(name, what string, n int) bool {
	if n < 1 || n > math.MaxInt32 {
		b.fail(name, "%d %s; at least 1 is needed", n, what)
	}
	return b.err == nil
}

func (b *Builder) fail(name, format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("network %s: %s: %s", b.net.Arch, name, fmt.Sprintf(format, args...))
	}
}

func volume(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

func clone(s []int) []int { return append([]int(nil), s...) }
