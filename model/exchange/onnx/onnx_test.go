package onnx_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
	"mochi/model/exchange/onnx"
	"mochi/model/network"
)

// field is one field of a message.
type field struct {
	number protowire.Number
	value  uint64 // of a number
	bytes  []byte
}

func parse(t *testing.T, b []byte) []field {
	t.Helper()
	var list []field
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal("no tag")
		}
		b = b[n:]
		f := field{number: number}
		switch kind {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			f.value = uint64(v)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		}
		if n < 0 {
			t.Fatalf("field %d is cut short", number)
		}
		b = b[n:]
		list = append(list, f)
	}
	return list
}

func all(list []field, number protowire.Number) (out [][]byte) {
	for _, f := range list {
		if f.number == number {
			out = append(out, f.bytes)
		}
	}
	return out
}

func text(list []field, number protowire.Number) string { return string(all(list, number)[0]) }

// array is a value of the interpreter.
type array struct {
	shape []int
	data  []float64
}

func filled(shape ...int) array {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return array{shape, make([]float64, n)}
}

// interpreter runs a model, as docs/Operators.md says, and nothing else.
type interpreter struct {
	t      *testing.T
	values map[string]array
}

func run(t *testing.T, model []byte, images array) map[string]array {
	t.Helper()
	file := parse(t, model)
	graph := parse(t, all(file, 7)[0])
	m := &interpreter{t, map[string]array{"input": images}}
	for _, b := range all(graph, 5) {
		tensor := parse(t, b)
		var shape []int
		for _, f := range tensor {
			if f.number == 1 {
				shape = append(shape, int(f.value))
			}
		}
		a, raw := filled(shape...), all(tensor, 9)[0]
		if len(raw) != 4*len(a.data) {
			t.Fatalf("%s: %d bytes for shape %v", text(tensor, 8), len(raw), shape)
		}
		for i := range a.data {
			a.data[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
		}
		if _, twice := m.values[text(tensor, 8)]; twice {
			t.Errorf("%s is there twice", text(tensor, 8))
		}
		m.values[text(tensor, 8)] = a
	}
	for _, b := range all(graph, 1) {
		m.node(parse(t, b))
	}
	return m.values
}

func (m *interpreter) node(n []field) {
	var in []array
	for _, name := range all(n, 1) {
		a, ok := m.values[string(name)]
		if !ok {
			m.t.Fatalf("%s of %s is not there yet", name, text(n, 3))
		}
		in = append(in, a)
	}
	attributes := map[string][]int{}
	for _, b := range all(n, 5) {
		a := parse(m.t, b)
		name := text(a, 1)
		for _, f := range a {
			if f.number == 3 || f.number == 8 {
				attributes[name] = append(attributes[name], int(f.value))
			}
		}
	}
	m.values[text(n, 2)] = m.apply(text(n, 4), in, attributes)
}

func (m *interpreter) apply(op string, in []array, a map[string][]int) array {
	x := in[0]
	out := array{x.shape, make([]float64, len(x.data))}
	each := func(f func(i int) float64) array {
		for i := range out.data {
			out.data[i] = f(i)
		}
		return out
	}
	switch op {
	case "Conv", "MaxPool":
		return windows(op, in, a)
	case "BatchNormalization":
		plane := x.shape[2] * x.shape[3]
		return each(func(i int) float64 {
			c := i / plane % x.shape[1]
			return (x.data[i]-in[3].data[c])/math.Sqrt(in[4].data[c]+1e-5)*in[1].data[c] + in[2].data[c]
		})
	case "Relu":
		return each(func(i int) float64 { return max(0, x.data[i]) })
	case "Add":
		return each(func(i int) float64 { return x.data[i] + in[1].data[i] })
	case "Max": // with a scalar
		return each(func(i int) float64 { return max(x.data[i], in[1].data[0]) })
	case "Div": // by a column
		width := x.shape[1]
		return each(func(i int) float64 { return x.data[i] / in[1].data[i/width] })
	case "Flatten":
		return array{[]int{x.shape[0], len(x.data) / x.shape[0]}, x.data}
	case "GlobalAveragePool":
		plane := x.shape[2] * x.shape[3]
		out = filled(x.shape[0], x.shape[1], 1, 1)
		for i, v := range x.data {
			out.data[i/plane] += v / float64(plane)
		}
		return out
	case "ReduceL2":
		out = filled(x.shape[0], 1)
		for i, v := range x.data {
			out.data[i/x.shape[1]] += v * v
		}
		return each(func(i int) float64 { return math.Sqrt(out.data[i]) })
	case "Gemm":
		w, b := in[1], in[2]
		out = filled(x.shape[0], w.shape[0])
		return each(func(i int) float64 {
			row, col := i/w.shape[0], i%w.shape[0]
			sum := b.data[col]
			for k := range x.shape[1] {
				sum += x.data[row*x.shape[1]+k] * w.data[col*x.shape[1]+k]
			}
			return sum
		})
	}
	m.t.Fatalf("operator %s", op)
	return out
}

// windows slides a kernel or a maximum.
func windows(op string, in []array, a map[string][]int) array {
	x, k, s, p := in[0], a["kernel_shape"][0], a["strides"][0], a["pads"][0]
	b, c, h, w := x.shape[0], x.shape[1], x.shape[2], x.shape[3]
	oh, ow, oc := (h+2*p-k)/s+1, (w+2*p-k)/s+1, c
	if op == "Conv" {
		oc = in[1].shape[0]
	}
	out := filled(b, oc, oh, ow)
	for i := range out.data {
		n, o, y0, x0 := i/(oc*oh*ow), i/(oh*ow)%oc, i/ow%oh*s-p, i%ow*s-p
		sum, most := 0.0, math.Inf(-1)
		if op == "Conv" && len(in) > 2 {
			sum = in[2].data[o]
		}
		for ky := max(0, -y0); ky < min(k, h-y0); ky++ {
			for kx := max(0, -x0); kx < min(k, w-x0); kx++ {
				at := func(ch int) float64 { return x.data[((n*c+ch)*h+y0+ky)*w+x0+kx] }
				if op == "MaxPool" {
					most = max(most, at(o))
					continue
				}
				for ch := range c {
					sum += at(ch) * in[1].data[((o*c+ch)*k+ky)*k+kx]
				}
			}
		}
		if out.data[i] = sum; op == "MaxPool" {
			out.data[i] = most
		}
	}
	return out
}

// A model, run as the standard says, gives the engine's features and embeddings in
// evaluation mode, of any batch, folded or not; and the same bytes every time.
func TestModelsGiveTheEnginesFeatures(t *testing.T) {
	for _, c := range []struct {
		arch, head string
		size       int
	}{{"resnet8", network.HeadLinear, 12}, {"resnet18", network.HeadMLP, 32}, {"resnet50", network.HeadLinear, 32}, {"resnet18-cifar-pad2", network.HeadMLP, 8}} {
		net, err := network.Build(c.arch, network.Options{Channels: 3, ImageSize: c.size, Dim: 5, Head: c.head, Width: 4})
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		params, buffers := net.Init(3)
		for i := range params {
			params[i] += float32(0.05 * rng.NormFloat64())
		}
		for i := range buffers {
			buffers[i] += float32(0.4 * rng.Float64())
		}
		const batch = 3
		images := make([]float32, batch*3*c.size*c.size)
		for i := range images {
			images[i] = float32(rng.NormFloat64())
		}
		features, embedding := engines(t, net, params, buffers, images, batch)
		for _, fold := range []bool{false, true} {
			m := onnx.Model{Net: net, Params: params, Buffers: buffers, Fold: fold, Metadata: map[string]string{"b": "2", "a": "1"}}
			model, err := onnx.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := onnx.Marshal(m); err != nil || !bytes.Equal(model, again) {
				t.Errorf("%s: two models of one encoder differ (%v)", c.arch, err)
			}
			for _, n := range []int{1, batch} {
				in := filled(n, 3, c.size, c.size)
				for i := range in.data {
					in.data[i] = float64(images[i])
				}
				values := run(t, model, in)
				near(t, fmt.Sprintf("%s, folded %v, batch %d: features", c.arch, fold, n), values[onnx.Features], features[:n*net.FeatureDim])
				near(t, fmt.Sprintf("%s, folded %v, batch %d: embedding", c.arch, fold, n), values[onnx.Embedding], embedding[:n*net.Dim])
			}
		}
	}
}

// engines computes with the plain engine.
func engines(t *testing.T, net *network.Network, params, buffers, images []float32, batch int) (features, embedding []float32) {
	t.Helper()
	eng, err := gorgonia.New(engine.Config{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	state, err := eng.NewState(net)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	state.Set(engine.QueryParams, params)
	state.Set(engine.QueryBuffers, buffers)
	p, err := state.Compile(engine.Spec{Encoder: engine.Query, Batch: batch, Mode: engine.Eval})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	features, embedding = make([]float32, batch*net.FeatureDim), make([]float32, batch*net.Dim)
	if err := p.Forward(images, embedding); err != nil {
		t.Fatal(err)
	}
	p.Features(features)
	return features, embedding
}

func near(t *testing.T, what string, got array, want []float32) {
	t.Helper()
	if len(got.data) != len(want) || got.shape[1] != len(want)/got.shape[0] {
		t.Errorf("%s: shape %v, want %d values", what, got.shape, len(want))
		return
	}
	var worst, most float64
	for i := range want {
		worst, most = max(worst, math.Abs(got.data[i]-float64(want[i]))), max(most, math.Abs(float64(want[i])))
	}
	if !(worst <= 1e-5*most) || most == 0 {
		t.Errorf("%s: off by %g of %g", what, worst, most)
	}
}

// The head of the file: versions that runtimes know, any batch, the metadata.
func TestHeader(t *testing.T) {
	net, err := network.Build("resnet8", network.Options{Channels: 3, ImageSize: 12, Dim: 5, Head: network.HeadLinear})
	if err != nil {
		t.Fatal(err)
	}
	params, buffers := net.Init(1)
	model, err := onnx.Marshal(onnx.Model{Net: net, Params: params, Buffers: buffers, Metadata: map[string]string{"arch": "resnet8"}})
	if err != nil {
		t.Fatal(err)
	}
	file := parse(t, model)
	if file[0].number != 1 || file[0].value != 8 || parse(t, all(file, 8)[0])[0].value > 17 {
		t.Error("IR version or operator set")
	}
	entry := parse(t, all(file, 14)[0])
	if text(entry, 1) != "arch" || text(entry, 2) != "resnet8" {
		t.Error("metadata")
	}
	graph := parse(t, all(file, 7)[0])
	in := parse(t, all(graph, 11)[0])
	shape := parse(t, all(parse(t, all(parse(t, all(in, 2)[0]), 1)[0]), 2)[0])
	if text(in, 1) != "input" || text(parse(t, shape[0].bytes), 2) != "batch" || parse(t, shape[1].bytes)[0].value != 3 || len(shape) != 4 {
		t.Error("input")
	}
	if len(all(graph, 12)) != 2 {
		t.Error("outputs")
	}
}
