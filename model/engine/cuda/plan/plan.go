// Package plan turns a network into a list of steps on the whole batch, which
// is one BatchNorm group or more. Every tensor has its offset in one block of
// memory; what the steps need besides is counted. It knows no device and runs
// nothing.
//
// What is computed in which order is package schedule's lowering, with
// every normalised map that a convolution reads stored: a library's
// convolution has no room for a BatchNorm in front of it. Where the lowering
// ends phases is of no concern to a GPU, and slices do not exist: a step is
// one kernel on the batch, and what completes a BatchNorm follows its sums.
package plan

import (
	"maps"
	"slices"

	"mochi/model/engine"
	"mochi/model/engine/cuda/kernel"
	"mochi/model/engine/schedule"
	"mochi/model/network"
	"mochi/model/optim"
)

// None is a missing tensor, norm or layer.
const None = schedule.None

// Step is one operation on the batch. Sums complete their norms, and Ready
// lists the parameters whose gradients are final after it.
type Step struct {
	schedule.Op
	Ready []int
}

// Tensor is a value [Batch, H, W, C] at Offset bytes of the arena.
type Tensor struct {
	H, W, C int
	Type    schedule.Type
	Offset  int
}

// Layer is a convolution, a linear layer or the window of a pooling.
type Layer struct {
	schedule.Layer
	Padded int // channels of the input as stored, ≥ In
	Copy   int // of a convolution: first value of its weights among the working copies
}

// Plan is a program's steps and memory.
type Plan struct {
	Groups   int // BatchNorm groups
	Batch    int // samples of all groups
	Tensors  []Tensor
	Layers   []Layer
	Norms    []schedule.Norm
	Forward  []Step
	Backward []Step // mode Train only
	Unused   []int  // parameters that do not reach the embedding: gradient zero

	Images, Feature, Output int // tensors

	Arena    int // bytes, all tensors
	Partials int // float32 values, the largest partial sums of a step
	Filter   int // bytes, the largest gradient of a convolution's weights
}

// alignment of tensors, bytes: what the kernels and cuDNN ask is 16; whole
// lines of memory are faster.
const alignment = 256

// New plans a program of so many BatchNorm groups, of spec.Batch samples each.
// t is the format of feature maps.
func New(net *network.Network, spec engine.Spec, groups int, t kernel.Type) (*Plan, error) {
	kind := schedule.F32
	if t == kernel.BF16 {
		kind = schedule.BF16
	}
	s, err := schedule.New(net, schedule.Options{Spec: spec, Type: kind, Lanes: 1, Stored: true,
		OwnWeightGrad: func(schedule.Layer) bool { return false }})
	if err != nil {
		return nil, err
	}
	p := &Plan{Groups: groups, Batch: groups * spec.Batch, Norms: s.Norms, Unused: s.Unused, Feature: s.Feature, Output: s.Output}
	for _, x := range s.Tensors {
		p.Tensors = append(p.Tensors, Tensor{H: x.H, W: x.W, C: x.C, Type: x.Type})
	}
	p.Forward, p.Backward = p.steps(net, s.Layers, s.Forward), p.steps(net, s.Layers, s.Backward)
	p.Images = p.Forward[0].Out[0]
	padded := Padded(net, t)
	p.Tensors[p.Images].C = padded
	_, copies := Weights(net, t)
	for _, l := range s.Layers {
		y := Layer{Layer: l, Padded: l.In, Copy: None}
		if !l.Linear && !l.Pool {
			y.Copy = int(copies[l.Weight].To)
			y.Padded = int(copies[l.Weight].Padded)
			p.Filter = max(p.Filter, l.Type.Size()*l.Out*l.Kernel*l.Kernel*y.Padded)
		}
		p.Layers = append(p.Layers, y)
	}
	p.place()
	p.Partials = p.partials(t)
	return p, nil
}

// steps are the operations of phases, one after the other.
func (p *Plan) steps(net *network.Network, layers []schedule.Layer, phases []schedule.Phase) (steps []Step) {
	for _, ph := range phases {
		for _, o := range ph.Ops {
			step := Step{Op: o}
			switch o.Kind {
			case schedule.Sums:
				for _, n := range o.Norm {
					if n != None {
						step.Ready = append(step.Ready, net.Nodes[p.Norms[n].Node].Params...)
					}
				}
			case schedule.WeightGrad:
				step.Ready = []int{layers[o.Layer].Weight}
			case schedule.BiasGrad:
				step.Ready = []int{layers[o.Layer].Bias}
			}
			steps = append(steps, step)
		}
	}
	return steps
}

// partials is the largest number of partial sums of a step.
func (p *Plan) partials(t kernel.Type) (most int) {
	for _, s := range slices.Concat(p.Forward, p.Backward) {
		sums := 0
		switch s.Kind {
		case schedule.Stats:
			sums = 2
		case schedule.Sums:
			sums = 1
			for _, n := range s.Norm {
				if n != None {
					sums++
				}
			}
		default:
			continue
		}
		x := p.Tensors[s.In[0]]
		tile := kernel.Sums(t, p.Groups, p.Batch/p.Groups*x.H*x.W, x.C, sums)
		most = max(most, p.Groups*tile.Chunks*sums*x.C)
	}
	return most
}

// place gives every tensor that is used an offset: the largest first, each at
// the lowest address that is free during its life. The embeddings live to the
// end of forward, features for ever.
func (p *Plan) place() {
	life := map[int]*schedule.Interval{} // in steps
	steps := slices.Concat(p.Forward, p.Backward)
	for i, s := range steps {
		for _, t := range slices.Concat(s.In[:], s.Out[:]) {
			if t == None {
				continue
			}
			if life[t] == nil {
				life[t] = &schedule.Interval{Tensor: t, First: i, Size: p.Bytes(t)}
			}
			life[t].Last = i
		}
	}
	life[p.Feature].Last = len(steps)
	life[p.Output].Last = max(life[p.Output].Last, len(p.Forward))
	var all []schedule.Interval
	for _, t := range slices.Sorted(maps.Keys(life)) {
		all = append(all, *life[t])
	}
	p.Arena = schedule.Assign(all)
	for _, v := range all {
		p.Tensors[v.Tensor].Offset = v.Offset
	}
}

// Bytes is the size of a tensor of the whole batch, aligned.
func (p *Plan) Bytes(t int) int {
	x := p.Tensors[t]
	return (p.Values(t)*x.Type.Size() + alignment - 1) / alignment * alignment
}

// Values is the number of values of a tensor.
func (p *Plan) Values(t int) int {
	x := p.Tensors[t]
	return p.Batch * x.H * x.W * x.C
}

// Padded is the number of channels with which images are stored: more than
// they have where only convolutions read them, so that tensor cores can.
func Padded(net *network.Network, t kernel.Type) int {
	for _, n := range net.Nodes {
		if slices.Contains(n.Inputs, 0) && n.Op != network.OpConv {
			return net.Channels
		}
	}
	v := t.Vector()
	return (net.Channels + v - 1) / v * v
}

// Pieces are LARS's tables: all parameters in pieces, and the pieces of those
// that adapt.
func Pieces(net *network.Network) (pieces []kernel.Piece, tensors []kernel.Tensor) {
	tensors = make([]kernel.Tensor, len(net.Params))
	for i, p := range optim.Pieces(net) {
		if t := &tensors[p.Tensor]; optim.Adapts(net.Params[p.Tensor]) {
			t.First, t.Pieces = int32(i)-t.Pieces, t.Pieces+1
		}
		pieces = append(pieces, kernel.Piece{From: int64(p.From), Values: int32(p.To - p.From), Tensor: int32(p.Tensor)})
	}
	return pieces, tensors
}

// Weights lists the working copies of the convolutions' weights: entries of
// the kernel's table, and where each parameter's is (by index of
// Network.Params).
func Weights(net *network.Network, t kernel.Type) (table []kernel.Weight, at map[int]kernel.Weight) {
	at = map[int]kernel.Weight{}
	values := int64(0)
	for _, n := range net.Nodes {
		if n.Op != network.OpConv {
			continue
		}
		w := net.Params[n.Params[0]]
		in := w.Shape[1]
		padded := in
		if n.Inputs[0] == 0 {
			padded = Padded(net, t)
		}
		e := kernel.Weight{From: int64(w.Offset), To: values, Out: int32(w.Shape[0]), In: int32(in),
			Taps: int32(w.Shape[2] * w.Shape[3]), Padded: int32(padded)}
		table = append(table, e)
		at[n.Params[0]] = e
		size := int64(w.Shape[0]) * int64(w.Shape[2]*w.Shape[3]) * int64(padded)
		values += (size + alignment/2 - 1) / (alignment / 2) * (alignment / 2)
	}
	return table, at
}

// Copies is the number of values of all working copies.
func Copies(table []kernel.Weight) int {
	if len(table) == 0 {
		return 0
	}
	last := table[len(table)-1]
	return int(last.To) + int(last.Out)*int(last.Taps)*int(last.Padded)
}
