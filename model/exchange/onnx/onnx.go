// Package onnx writes an encoder as an ONNX model: IR version 8, operators of set
// 13, which every runtime since 2021 knows, and any batch. The messages are written
// field by field with google.golang.org/protobuf/encoding/protowire.
//
// Source: onnx/onnx, onnx/onnx.proto and docs/Operators.md.
package onnx

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"mochi/model/network"
)

// Versions of what is written.
const (
	irVersion = 8
	opset     = 13
)

// Names of the model's input, [batch, C, S, S], and of its outputs.
const (
	Input     = "input"
	Features  = "features"  // [batch, FeatureDim], of the backbone
	Embedding = "embedding" // [batch, Dim], rows of length 1
)

// Model is what is written.
type Model struct {
	Net      *network.Network // with its nodes
	Params   []float32
	Buffers  []float32
	Fold     bool // BatchNorms become part of the convolutions before them
	Metadata map[string]string
}

// Fields of the messages.
const (
	modelIR, modelProducer, modelGraph, modelOpset, modelMetadata    = 1, 2, 7, 8, 14
	graphNode, graphName, graphInitializer, graphInput, graphOutput  = 1, 2, 5, 11, 12
	nodeInput, nodeOutput, nodeName, nodeOp, nodeAttribute           = 1, 2, 3, 4, 5
	attrName, attrFloat, attrInt, attrInts, attrType                 = 1, 2, 3, 8, 20
	tensorDims, tensorType, tensorName, tensorRaw                    = 1, 2, 8, 9
	valueName, valueType, typeTensor, tensorElem, tensorShape        = 1, 2, 1, 1, 2
	shapeDim, dimValue, dimParam, opsetVersion, entryKey, entryValue = 1, 1, 2, 2, 1, 2

	typeFloat                                   = 1       // TensorProto.DataType
	attributeFloat, attributeInt, attributeInts = 1, 2, 7 // AttributeProto.AttributeType
)

// message is one that is written.
type message []byte

func (m *message) number(field protowire.Number, v int64) {
	*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.VarintType), uint64(v))
}

func (m *message) bytes(field protowire.Number, v []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, field, protowire.BytesType), v)
}

func (m *message) text(field protowire.Number, v string) { m.bytes(field, []byte(v)) }

// Marshal is the file. Equal models give equal bytes.
func Marshal(m Model) ([]byte, error) {
	g := &graph{Model: m, names: make([]string, len(m.Net.Nodes)), uses: make([]int, len(m.Net.Nodes))}
	for _, n := range m.Net.Nodes {
		for _, i := range n.Inputs {
			g.uses[i]++
		}
	}
	g.out.text(graphName, m.Net.Arch)
	for i, n := range m.Net.Nodes {
		if err := g.node(i, n); err != nil {
			return nil, err
		}
	}
	g.out.bytes(graphInput, value(Input, m.Net.Channels, m.Net.ImageSize, m.Net.ImageSize))
	g.out.bytes(graphOutput, value(Features, m.Net.FeatureDim))
	g.out.bytes(graphOutput, value(Embedding, m.Net.Dim))

	var file message
	file.number(modelIR, irVersion)
	file.text(modelProducer, "mochi")
	file.bytes(modelGraph, g.out)
	var set message
	set.number(opsetVersion, opset)
	file.bytes(modelOpset, set)
	for _, key := range slices.Sorted(maps.Keys(m.Metadata)) {
		var entry message
		entry.text(entryKey, key)
		entry.text(entryValue, m.Metadata[key])
		file.bytes(modelMetadata, entry)
	}
	return file, nil
}

// value describes an input or an output of any batch.
func value(name string, shape ...int) []byte {
	var dims, first, tensor, of, v message
	first.text(dimParam, "batch")
	dims.bytes(shapeDim, first)
	for _, n := range shape {
		var dim message
		dim.number(dimValue, int64(n))
		dims.bytes(shapeDim, dim)
	}
	tensor.number(tensorElem, typeFloat)
	tensor.bytes(tensorShape, dims)
	of.bytes(typeTensor, tensor)
	v.text(valueName, name)
	v.bytes(valueType, of)
	return v
}

// graph is a GraphProto under way.
type graph struct {
	Model
	out    message
	names  []string // of each node's output
	uses   []int    // of each node's output, by other nodes
	folded []int    // convolutions that wait for their BatchNorm
}

// node writes the operators of one node of the network.
func (g *graph) node(i int, n network.Node) error {
	var in []string
	for _, from := range n.Inputs {
		in = append(in, g.names[from])
	}
	name := n.Name
	if name == "" {
		name = fmt.Sprintf("node%d", i)
	}
	out := name + ".out"
	switch i {
	case g.Net.Feature:
		out = Features
	case g.Net.Output:
		out = Embedding
	}
	g.names[i] = out
	before := out
	if n.ReLU {
		before = name + ".linear"
	}
	switch n.Op {
	case network.OpInput:
		g.names[i] = Input
		return nil
	case network.OpConv:
		if g.Fold && g.uses[i] == 1 && g.feedsBatchNorm(i) {
			g.folded = append(g.folded, i)
			g.names[i] = in[0]
			return nil
		}
		weight := g.param(n.Params[0])
		g.op("Conv", name, append(in, weight), before, window(n)...)
	case network.OpBatchNorm:
		g.batchNorm(n, in, before)
	case network.OpAdd:
		g.op("Add", name, in, before)
	case network.OpReLU:
		g.op("Relu", name, in, before)
	case network.OpMaxPool:
		g.op("MaxPool", name, in, before, window(n)...)
	case network.OpGlobalAvgPool:
		g.op("GlobalAveragePool", name, in, name+".image")
		g.op("Flatten", name+".flatten", []string{name + ".image"}, before, integer("axis", 1))
	case network.OpLinear:
		g.op("Gemm", name, append(in, g.param(n.Params[0]), g.param(n.Params[1])), before, integer("transB", 1))
	case network.OpL2Normalize:
		g.initializer(name+".least", nil, []float32{1e-12})
		g.op("ReduceL2", name+".norm", in, name+".length", integers("axes", 1), integer("keepdims", 1))
		g.op("Max", name+".max", []string{name + ".length", name + ".least"}, name+".divisor")
		g.op("Div", name, append(in, name+".divisor"), before)
	default:
		return fmt.Errorf("onnx: operation %d of node %q has no operator here", n.Op, n.Name)
	}
	if n.ReLU {
		g.op("Relu", name+".relu", []string{before}, out)
	}
	return nil
}

// feedsBatchNorm says whether the node that takes node i is a BatchNorm.
func (g *graph) feedsBatchNorm(i int) bool {
	for _, n := range g.Net.Nodes {
		if slices.Contains(n.Inputs, i) {
			return n.Op == network.OpBatchNorm
		}
	}
	return false
}

// batchNorm writes a BatchNorm with its running statistics, or the convolution
// before it with both in its weights: W·γ/√(σ²+ε), β − μ·γ/√(σ²+ε).
func (g *graph) batchNorm(n network.Node, in []string, out string) {
	if at := slices.Index(g.folded, n.Inputs[0]); at < 0 {
		in = append(in, g.param(n.Params[0]), g.param(n.Params[1]), g.buffer(n.Buffers[0]), g.buffer(n.Buffers[1]))
		g.op("BatchNormalization", n.Name, in, out, float("epsilon", network.BatchNormEpsilon))
		return
	}
	conv := g.Net.Nodes[n.Inputs[0]]
	weight := g.Net.Params[conv.Params[0]]
	gamma, beta := g.values(g.Net.Params[n.Params[0]], g.Params), g.values(g.Net.Params[n.Params[1]], g.Params)
	mean, variance := g.values(g.Net.Buffers[n.Buffers[0]], g.Buffers), g.values(g.Net.Buffers[n.Buffers[1]], g.Buffers)
	w := slices.Clone(g.values(weight, g.Params))
	bias := make([]float32, len(gamma))
	each := len(w) / len(gamma)
	for c := range gamma {
		scale := float64(gamma[c]) / math.Sqrt(float64(variance[c])+network.BatchNormEpsilon)
		bias[c] = float32(float64(beta[c]) - float64(mean[c])*scale)
		for i := c * each; i < (c+1)*each; i++ {
			w[i] = float32(float64(w[i]) * scale)
		}
	}
	g.initializer(weight.Name, weight.Shape, w)
	g.initializer(conv.Name+".bias", []int{len(bias)}, bias)
	g.op("Conv", conv.Name, append(in, weight.Name, conv.Name+".bias"), out, window(conv)...)
}

func (g *graph) values(t network.Tensor, flat []float32) []float32 {
	return flat[t.Offset : t.Offset+t.Size]
}

// param writes a parameter and returns its name.
func (g *graph) param(i int) string {
	t := g.Net.Params[i]
	g.initializer(t.Name, t.Shape, g.values(t, g.Params))
	return t.Name
}

func (g *graph) buffer(i int) string {
	t := g.Net.Buffers[i]
	g.initializer(t.Name, t.Shape, g.values(t, g.Buffers))
	return t.Name
}

// initializer writes a constant.
func (g *graph) initializer(name string, shape []int, values []float32) {
	raw := make([]byte, 0, 4*len(values))
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	var t message
	for _, n := range shape {
		t.number(tensorDims, int64(n))
	}
	t.number(tensorType, typeFloat)
	t.text(tensorName, name)
	t.bytes(tensorRaw, raw)
	g.out.bytes(graphInitializer, t)
}

// op writes a node.
func (g *graph) op(kind, name string, in []string, out string, attributes ...message) {
	var n message
	for _, i := range in {
		n.text(nodeInput, i)
	}
	n.text(nodeOutput, out)
	n.text(nodeName, name)
	n.text(nodeOp, kind)
	for _, a := range attributes {
		n.bytes(nodeAttribute, a)
	}
	g.out.bytes(graphNode, n)
}

// window are the attributes of a convolution or a pooling.
func window(n network.Node) []message {
	k, s, p := int64(n.Kernel), int64(n.Stride), int64(n.Pad)
	return []message{integers("kernel_shape", k, k), integers("strides", s, s), integers("pads", p, p, p, p)}
}

func integers(name string, values ...int64) message {
	var a message
	a.text(attrName, name)
	for _, v := range values {
		a.number(attrInts, v)
	}
	a.number(attrType, attributeInts)
	return a
}

func integer(name string, v int64) message {
	var a message
	a.text(attrName, name)
	a.number(attrInt, v)
	a.number(attrType, attributeInt)
	return a
}

func float(name string, v float32) message {
	var a message
	a.text(attrName, name)
	a = protowire.AppendFixed32(protowire.AppendTag(a, attrFloat, protowire.Fixed32Type), math.Float32bits(v))
	a.number(attrType, attributeFloat)
	return a
}
