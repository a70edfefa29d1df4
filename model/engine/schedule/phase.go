package schedule

import (
	"slices"

	"mochi/model/network"
)

// emit appends a bundle of operations that belong together to the current
// phase, or to a new one if it does not fit.
func (l *lowering) emit(ops []Op) {
	if len(ops) == 0 {
		return
	}
	if l.fresh || len(l.phases) == 0 || !l.fits(&l.phases[len(l.phases)-1], ops) {
		l.phases = append(l.phases, Phase{})
		l.fresh = false
	}
	at := len(l.phases) - 1
	p := &l.phases[at]
	p.Ops = append(p.Ops, ops...)
	for _, o := range ops {
		for _, t := range o.Out {
			if t != None && l.tensors[t].first == None {
				l.tensors[t].first, l.tensors[t].last = at, at
			}
		}
		for _, t := range o.In {
			if t != None {
				l.tensors[t].last = at
			}
		}
		p.end(l.net, l, o)
	}
}

// end adds to the phase what its operations leave for the threads together.
func (p *Phase) end(net *network.Network, l *lowering, o Op) {
	tail := func(k TailKind, index int, params ...int) {
		t := Tail{k, index}
		if !slices.Contains(p.Tails, t) {
			p.Tails = append(p.Tails, t)
			p.Ready = append(p.Ready, params...)
		}
	}
	switch o.Kind {
	case Stats:
		tail(Fold, o.Norm[0])
	case Sums:
		for _, n := range o.Norm {
			if n != None {
				tail(GradFold, n, net.Nodes[l.norms[n].Node].Params...)
			}
		}
	case WeightGrad:
		tail(StoreWeights, o.Layer, l.layers[o.Layer].Weight)
	case BiasGrad:
		tail(StoreBias, o.Layer, l.layers[o.Layer].Bias)
	}
}

// fits says whether ops may join p. They may not
//   - where they need what only the end of p completes;
//   - with a second convolution, whose slices want another size, unless it
//     reads the same input;
//   - with feature maps beside vectors: a vector's slice is the whole lane.
func (l *lowering) fits(p *Phase, ops []Op) bool {
	for _, o := range ops {
		if l.needs(p, o) {
			return false
		}
	}
	have, want := convolution(p.Ops), convolution(ops)
	if have != nil && want != nil && (have.Kind != Conv || want.Kind != Conv || have.In[0] != want.In[0]) {
		return false
	}
	wantVector, _ := l.vectors(ops)
	haveVector, pooled := l.vectors(p.Ops)
	return wantVector == haveVector && !(pooled && wantVector)
}

// needs says whether o reads a norm that the end of p completes.
func (l *lowering) needs(p *Phase, o Op) bool {
	switch o.Kind {
	case Apply, MaxPool, GradApply, WeightGrad:
		for _, n := range o.Norm {
			if n != None && (slices.Contains(p.Tails, Tail{Fold, n}) || slices.Contains(p.Tails, Tail{GradFold, n})) {
				return true
			}
		}
	}
	return false
}

// convolution is the first operation of ops with a weight.
func convolution(ops []Op) *Op {
	for i := range ops {
		switch ops[i].Kind {
		case Conv, WeightGrad, DataGrad:
			return &ops[i]
		}
	}
	return nil
}

// vectors says whether ops work on vectors alone, and whether they make
// vectors of feature maps.
func (l *lowering) vectors(ops []Op) (only, pooled bool) {
	only = true
	for _, o := range ops {
		pooled = pooled || o.Kind == AvgPool
		switch o.Kind {
		case AvgPool, AvgPoolGrad, Images, Conv, Stats, Apply, MaxPool, Sums, GradApply, WeightGrad, DataGrad, MaxPoolGrad:
			if o.Layer == None || !l.layers[o.Layer].Linear {
				only = false
			}
		case Add, ReLU, ReLUGrad:
			if t := l.tensors[o.Out[0]]; t.H*t.W > 1 || t.Type != F32 {
				only = false
			}
		}
	}
	return only, pooled
}
