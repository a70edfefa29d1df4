//go:build onednn

package onednn

/*
#include "exec.h"
*/
import "C"

import (
	"unsafe"

	"mochi/model/engine"
	"mochi/model/engine/schedule"
	"mochi/model/network"
)

// ownWeightGrad says whether the own kernel takes a layer's weight gradient.
func (e *cpuEngine) ownWeightGrad(l schedule.Layer) bool {
	if l.Linear || l.Pad != l.Kernel/2 {
		return false
	}
	c := C.mk_conv{in: C.int(l.In), out: C.int(l.Out), kernel: C.int(l.Kernel), stride: C.int(l.Stride), pad: C.int(l.Pad),
		ih: C.int(l.IH), iw: C.int(l.IW), oh: C.int(l.OH), ow: C.int(l.OW), _type: C.mk_type(l.Type)}
	return C.mk_wgrad_fits(&c) != 0
}

// plan writes a schedule down for C.
func (e *cpuEngine) plan(net *network.Network, spec engine.Spec, s *schedule.Schedule) (C.ox_plan, error) {
	phases := append(s.Forward[:len(s.Forward):len(s.Forward)], s.Backward...)
	p := C.ox_plan{
		batch: C.int32_t(s.Batch), lanes: C.int32_t(s.Lanes), encoder: C.int32_t(spec.Encoder), mode: C.int32_t(spec.Mode), _type: e.kind,
		tensors: C.int32_t(len(s.Tensors)), layers: C.int32_t(len(s.Layers)), norms: C.int32_t(len(s.Norms)),
		phases: C.int32_t(len(phases)), forward: C.int32_t(len(s.Forward)),
		arena: C.int64_t(s.Arena), kept: C.int64_t(s.Kept), scratch: C.int64_t(s.Scratch),
		params: C.int64_t(net.NumParams()), buffers: C.int64_t(net.NumBuffers()),
		pixels: C.int64_t(net.ImageSize * net.ImageSize), channels: C.int32_t(net.Channels), epsilon: network.BatchNormEpsilon,
	}
	for _, ph := range phases {
		p.ops += C.int32_t(len(ph.Ops))
		p.tails += C.int32_t(len(ph.Tails))
		for _, lane := range ph.Slices {
			p.slices += C.int32_t(len(lane))
		}
	}
	if C.ox_plan_new(&p, e.err) != 0 {
		C.ox_plan_free(&p)
		return p, e.message()
	}
	tensors := unsafe.Slice(p.tensor, len(s.Tensors))
	for i, x := range s.Tensors {
		tensors[i] = C.ox_tensor{space: C.int32_t(x.Space), _type: C.int32_t(x.Type),
			h: C.int32_t(x.H), w: C.int32_t(x.W), c: C.int32_t(x.C), offset: C.int64_t(x.Offset)}
	}
	param := func(i int) C.int64_t {
		if i == schedule.None {
			return -1
		}
		return C.int64_t(net.Params[i].Offset)
	}
	layers := unsafe.Slice(p.layer, len(s.Layers))
	for i, l := range s.Layers {
		layers[i] = C.ox_layer{in: C.int32_t(l.In), out: C.int32_t(l.Out), ih: C.int32_t(l.IH), iw: C.int32_t(l.IW),
			oh: C.int32_t(l.OH), ow: C.int32_t(l.OW), kernel: C.int32_t(l.Kernel), stride: C.int32_t(l.Stride), pad: C.int32_t(l.Pad),
			linear: flag(l.Linear), pool: flag(l.Pool), _type: C.int32_t(l.Type), own: flag(l.OwnGrad),
			weight: param(l.Weight), bias: param(l.Bias)}
	}
	norms := unsafe.Slice(p.norm, len(s.Norms))
	for i, n := range s.Norms {
		node := net.Nodes[n.Node]
		norms[i] = C.ox_norm{channels: C.int32_t(n.Channels), pixels: C.int32_t(n.Pixels),
			gamma: param(node.Params[0]), beta: param(node.Params[1]),
			mean: C.int64_t(net.Buffers[node.Buffers[0]].Offset), _var: C.int64_t(net.Buffers[node.Buffers[1]].Offset)}
	}
	fillPhases(&p, phases)
	return p, nil
}

func fillPhases(p *C.ox_plan, phases []schedule.Phase) {
	ops, tails := unsafe.Slice(p.op, int(p.ops)), unsafe.Slice(p.tail, int(p.tails))
	out, slices := unsafe.Slice(p.phase, len(phases)), unsafe.Slice(p.slice, int(p.slices))
	width := int(p.lanes) + 1
	bounds := unsafe.Slice(p.lane_slice, len(phases)*width)
	op, tail, slice := 0, 0, 0
	for i, ph := range phases {
		out[i] = C.ox_phase{op: C.int32_t(op), ops: C.int32_t(len(ph.Ops)), tail: C.int32_t(tail), tails: C.int32_t(len(ph.Tails)),
			split: C.int32_t(ph.Split), slice: C.int32_t(i * width)}
		for _, o := range ph.Ops {
			c := &ops[op]
			*c = C.ox_op{kind: C.int32_t(o.Kind), layer: C.int32_t(o.Layer), relu: flag(o.ReLU), mask: C.int32_t(o.Mask)}
			for j, t := range o.In {
				c.in[j] = C.int32_t(t)
			}
			for j, t := range o.Out {
				c.out[j] = C.int32_t(t)
			}
			for j, n := range o.Norm {
				c.norm[j] = C.int32_t(n)
			}
			op++
		}
		for _, t := range ph.Tails {
			tails[tail] = C.ox_tail{kind: C.int32_t(t.Kind), index: C.int32_t(t.Index)}
			tail++
		}
		bounds[i*width] = C.int32_t(slice)
		for lane, list := range ph.Slices {
			for _, s := range list {
				slices[slice] = C.ox_slice{first: C.int32_t(s.First), n: C.int32_t(s.N)}
				slice++
			}
			bounds[i*width+lane+1] = C.int32_t(slice)
		}
	}
}

func flag(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}
