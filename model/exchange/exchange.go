// Package exchange gives encoders to other programs and takes theirs: which
// names, shapes and files torchvision, the code of MoCo, timm, Detectron2 and
// ONNX runtimes expect, and how files of the libraries for self-supervised
// learning name the same tensors. The formats of the files are packages below:
// pickle, torch, safetensors, onnx.
//
// Writing is a function of its input: the same encoder gives the same bytes.
// Reading executes nothing and takes nothing for granted: a file is hostile until
// it has turned out to be an encoder.
package exchange

import (
	"strings"

	"mochi/model/exchange/array"
	"mochi/model/network"
)

// Encoder is a network with its weights.
type Encoder struct {
	Net     *network.Network // with its nodes
	Params  []float32        // [Net.NumParams()]
	Buffers []float32        // [Net.NumBuffers()]
	Steps   int64            // that its BatchNorm statistics have seen
}

// Preprocessing is what is done with an image before it is given to an encoder.
type Preprocessing struct {
	Size      int // pixels a side of the input
	Resize    int // of the shorter side, before the centre is cut out
	Mean, Std [3]float32
}

// StateDict is the encoder's state as torch's Module.state_dict gives it: all
// tensors in the order of the modules, each BatchNorm with its counter of
// batches. Without head, what comes after the pooling is left out.
func (e Encoder) StateDict(prefix string, head bool) []array.Value {
	var list []array.Value
	add := func(t network.Tensor, flat []float32) {
		list = append(list, array.Value{Name: prefix + t.Name, Shape: t.Shape, Floats: flat[t.Offset : t.Offset+t.Size]})
	}
	for i, n := range e.Net.Nodes {
		if !head && i > e.Net.Feature {
			break
		}
		for _, p := range n.Params {
			add(e.Net.Params[p], e.Params)
		}
		for _, b := range n.Buffers {
			add(e.Net.Buffers[b], e.Buffers)
		}
		if n.Op == network.OpBatchNorm {
			list = append(list, array.Value{Name: prefix + n.Name + ".num_batches_tracked", Ints: []int64{e.Steps}})
		}
	}
	return list
}

// published is what an architecture's name stands for in torchvision and timm, ""
// where they have no such network.
func published(arch string) string {
	if network.LargeImages(arch) && strings.HasPrefix(arch, "resnet") && !strings.Contains(arch, "-") {
		return arch
	}
	return ""
}
