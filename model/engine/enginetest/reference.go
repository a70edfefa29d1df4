package enginetest

import (
	"fmt"
	"math"
	"slices"

	"mochi/model/engine"
	"mochi/model/network"
)

// reference executes a network in float64, one obvious loop a layer. It is
// slow and is meant to be right by inspection.
//
// With bf16 it rounds what an engine of that precision stores: weights of
// convolutions, feature maps, and the gradients of feature maps, each when it
// is complete. BatchNorm, addition and ReLU in a row are one operation, rounded
// once. Vectors, statistics and the gradients of parameters are not rounded.
// With a trace it goes on with what the engine stored instead (see engine.Tracer).
type reference struct {
	net     *network.Network
	batch   int
	mode    engine.Mode
	bf16    bool
	trace   *trace // what is stored, instead of rounding; may be nil
	params  []float64
	buffers []float64

	values     [][]float64 // by node, [batch, Out...]
	statistics []float64   // as net.Buffers; modes Train and Forward
}

func (s suite) reference(net *network.Network, batch int, mode engine.Mode, params, buffers []float32) *reference {
	r := newReference(net, batch, mode, params, buffers)
	if r.bf16 = s.promise.Precision == engine.BF16; r.bf16 {
		for i := range net.Nodes {
			if n := &net.Nodes[i]; n.Op == network.OpConv {
				r.round(r.param(n, 0))
			}
		}
	}
	return r
}

func newReference(net *network.Network, batch int, mode engine.Mode, params, buffers []float32) *reference {
	return &reference{net: net, batch: batch, mode: mode, params: widen(params), buffers: widen(buffers),
		statistics: make([]float64, net.NumBuffers())}
}

// round rounds to bf16.
func (r *reference) round(v []float64) {
	for i, x := range v {
		v[i] = roundBF16(x)
	}
}

// keep stores the output of node i: rounded, or as the trace has it.
func (r *reference) keep(i int, y []float64) {
	n := &r.net.Nodes[i]
	if r.trace != nil {
		if stored, ok := r.trace.outputs[i]; ok {
			r.trace.follow(fmt.Sprintf("output of node %d, %s", i, n.Name), y, stored)
		} else if n.Op == network.OpConv || n.Op == network.OpBatchNorm || n.Op == network.OpMaxPool {
			r.trace.t.Errorf("the output of %s is not in the trace", n.Name)
		}
	}
	r.round(y)
}

// keepGradient stores what node i hands to its input.
func (r *reference) keepGradient(i int, dx []float64) {
	n := &r.net.Nodes[i]
	if r.trace != nil {
		if stored, ok := r.trace.gradients[i]; ok {
			r.trace.follow(fmt.Sprintf("gradient of the input of node %d, %s", i, n.Name), dx, stored)
		} else if n.Inputs[0] > 0 && (n.Op == network.OpConv || n.Op == network.OpBatchNorm || n.Op == network.OpMaxPool) {
			r.trace.t.Errorf("the gradient of the input of %s is not in the trace", n.Name)
		}
	}
	r.round(dx)
}

// stored says whether node i is a feature map that is rounded: not a BatchNorm
// that an addition takes in.
func (r *reference) stored(i int) bool {
	n := &r.net.Nodes[i]
	if !r.bf16 || len(n.Out) != 3 {
		return false
	}
	if n.Op != network.OpBatchNorm || n.ReLU {
		return true
	}
	readers, adds := 0, 0
	for j := range r.net.Nodes {
		for _, in := range r.net.Nodes[j].Inputs {
			if in == i {
				readers++
				if r.net.Nodes[j].Op == network.OpAdd {
					adds++
				}
			}
		}
	}
	return readers != 1 || adds != 1
}

// forward returns embeddings [batch, Dim] of images [batch, C, H, W].
func (r *reference) forward(images []float64) []float64 {
	r.values = make([][]float64, len(r.net.Nodes))
	r.values[0] = slices.Clone(images)
	if r.stored(0) {
		r.keep(0, r.values[0])
	}
	for i := 1; i < len(r.net.Nodes); i++ {
		n := &r.net.Nodes[i]
		x := r.values[n.Inputs[0]]
		in := r.net.Nodes[n.Inputs[0]].Out
		y := make([]float64, r.batch*volume(n.Out))
		r.values[i] = y
		switch n.Op {
		case network.OpConv:
			r.eachTap(n, in, func(b, o, c, yi, xi, wi int) { y[yi] += x[xi] * r.param(n, 0)[wi] })
		case network.OpBatchNorm:
			mean, variance := r.moments(n, in, x)
			each(r.batch, in, func(c, at int) {
				y[at] = r.param(n, 0)[c]*(x[at]-mean[c])/math.Sqrt(variance[c]+network.BatchNormEpsilon) + r.param(n, 1)[c]
			})
		case network.OpAdd:
			for j, v := range r.values[n.Inputs[1]] {
				y[j] = x[j] + v
			}
		case network.OpMaxPool:
			for j := range y {
				y[j] = math.Inf(-1)
			}
			r.eachWindow(n, in, func(yi, xi int) { y[yi] = math.Max(y[yi], x[xi]) })
		case network.OpGlobalAvgPool:
			area := in[1] * in[2]
			for j, v := range x {
				y[j/area] += v / float64(area)
			}
		case network.OpLinear:
			for b := range r.batch {
				for o := range n.Out[0] {
					y[b*n.Out[0]+o] = r.param(n, 1)[o]
					for k := range in[0] {
						y[b*n.Out[0]+o] += x[b*in[0]+k] * r.param(n, 0)[o*in[0]+k]
					}
				}
			}
		case network.OpReLU:
			copy(y, x)
		case network.OpL2Normalize:
			d := n.Out[0]
			for b := range r.batch {
				norm := math.Max(length(x[b*d:(b+1)*d]), 1e-12)
				for k := range d {
					y[b*d+k] = x[b*d+k] / norm
				}
			}
		}
		if n.ReLU || n.Op == network.OpReLU {
			for j := range y {
				y[j] = math.Max(y[j], 0)
			}
		}
		if r.stored(i) {
			r.keep(i, y)
		}
	}
	return r.values[r.net.Output]
}

// backward returns the gradient of Σ(embeddings · dEmbeddings) with respect to
// the parameters, after a forward.
func (r *reference) backward(dEmbeddings []float64) []float64 {
	grads := make([]float64, len(r.params))
	d := make([][]float64, len(r.net.Nodes)) // by node
	for i := range d {
		d[i] = make([]float64, len(r.values[i]))
	}
	// A sum of more than two gradients is stored after every addition.
	arrived := make([]int, len(d))
	arrive := func(node, at int, part []float64) {
		if r.bf16 && len(r.net.Nodes[at].Out) == 3 {
			r.keepGradient(node, part)
			if arrived[at]++; arrived[at] > 2 {
				r.round(d[at])
			}
		}
		for j, v := range part {
			d[at][j] += v
		}
	}
	copy(d[r.net.Output], dEmbeddings)
	for i := len(r.net.Nodes) - 1; i > 0; i-- {
		n := &r.net.Nodes[i]
		from := n.Inputs[0]
		x, dx := r.values[from], make([]float64, len(d[from]))
		y, dy := r.values[i], d[i]
		in := r.net.Nodes[n.Inputs[0]].Out
		grad := func(j int) []float64 {
			t := r.net.Params[n.Params[j]]
			return grads[t.Offset : t.Offset+t.Size]
		}
		if n.ReLU || n.Op == network.OpReLU {
			for j := range dy {
				if y[j] <= 0 {
					dy[j] = 0
				}
			}
		}
		if r.bf16 && len(n.Out) == 3 {
			r.round(dy)
		}
		switch n.Op {
		case network.OpConv:
			r.eachTap(n, in, func(b, o, c, yi, xi, wi int) {
				grad(0)[wi] += dy[yi] * x[xi]
				dx[xi] += dy[yi] * r.param(n, 0)[wi]
			})
		case network.OpBatchNorm:
			r.backwardBatchNorm(n, in, x, dy, normGradients{dx, grad(0), grad(1)})
		case network.OpAdd:
			copy(dx, dy)
			arrive(i, n.Inputs[1], slices.Clone(dy))
		case network.OpMaxPool:
			taken := make([]bool, len(dy)) // the first maximum of a window gets it all
			r.eachWindow(n, in, func(yi, xi int) {
				if !taken[yi] && x[xi] == y[yi] {
					taken[yi] = true
					dx[xi] += dy[yi]
				}
			})
		case network.OpGlobalAvgPool:
			area := in[1] * in[2]
			for j := range dx {
				dx[j] += dy[j/area] / float64(area)
			}
		case network.OpLinear:
			for b := range r.batch {
				for o := range n.Out[0] {
					g := dy[b*n.Out[0]+o]
					grad(1)[o] += g
					for k := range in[0] {
						grad(0)[o*in[0]+k] += g * x[b*in[0]+k]
						dx[b*in[0]+k] += g * r.param(n, 0)[o*in[0]+k]
					}
				}
			}
		case network.OpReLU:
			copy(dx, dy)
		case network.OpL2Normalize:
			w := n.Out[0]
			for b := range r.batch {
				row := func(v []float64) []float64 { return v[b*w : (b+1)*w] }
				norm, dot := length(row(x)), 0.0
				if norm < 1e-12 {
					norm = 1e-12 // y = x·1e12: the direction does not matter
				} else {
					for k := range w {
						dot += row(y)[k] * row(dy)[k]
					}
				}
				for k := range w {
					row(dx)[k] += (row(dy)[k] - dot*row(y)[k]) / norm
				}
			}
		}
		arrive(i, from, dx)
	}
	return grads
}

// normGradients are what BatchNorm's backward adds to: [like x], [channels] and
// [channels].
type normGradients struct{ x, gamma, beta []float64 }

// backwardBatchNorm differentiates y = γ·x̂ + β, x̂ = (x−μ)/σ, through μ and σ
// (Ioffe and Szegedy 2015, section 3).
func (r *reference) backwardBatchNorm(n *network.Node, in []int, x, dy []float64, d normGradients) {
	mean, variance := r.moments(n, in, x)
	sigma := make([]float64, len(mean))
	for c, v := range variance {
		sigma[c] = math.Sqrt(v + network.BatchNormEpsilon)
	}
	each(r.batch, in, func(c, at int) {
		d.gamma[c] += dy[at] * (x[at] - mean[c]) / sigma[c]
		d.beta[c] += dy[at]
	})
	count := float64(r.batch * in[1] * in[2])
	each(r.batch, in, func(c, at int) {
		hat := (x[at] - mean[c]) / sigma[c]
		d.x[at] += r.param(n, 0)[c] / sigma[c] * (dy[at] - d.beta[c]/count - hat*d.gamma[c]/count)
	})
}

// moments returns what BatchNorm n normalises x with: those of the batch (and
// records the statistics), or in mode Eval the running ones.
func (r *reference) moments(n *network.Node, in []int, x []float64) (mean, variance []float64) {
	buffer := func(j int, all []float64) []float64 {
		t := r.net.Buffers[n.Buffers[j]]
		return all[t.Offset : t.Offset+t.Size]
	}
	if r.mode == engine.Eval {
		return buffer(0, r.buffers), buffer(1, r.buffers)
	}
	mean, variance = make([]float64, in[0]), make([]float64, in[0])
	count := float64(r.batch * in[1] * in[2])
	each(r.batch, in, func(c, at int) { mean[c] += x[at] / count })
	each(r.batch, in, func(c, at int) { variance[c] += (x[at] - mean[c]) * (x[at] - mean[c]) / count })
	copy(buffer(0, r.statistics), mean)
	for c, v := range variance {
		buffer(1, r.statistics)[c] = v * count / (count - 1)
	}
	return mean, variance
}

// eachTap visits every product of a convolution: output yi, input xi, weight wi.
func (r *reference) eachTap(n *network.Node, in []int, visit func(b, o, c, yi, xi, wi int)) {
	k := n.Kernel
	for b := range r.batch {
		for o := range n.Out[0] {
			for i := range n.Out[1] {
				for j := range n.Out[2] {
					yi := ((b*n.Out[0]+o)*n.Out[1]+i)*n.Out[2] + j
					for c := range in[0] {
						for u := range k {
							for v := range k {
								h, w := i*n.Stride+u-n.Pad, j*n.Stride+v-n.Pad
								if h >= 0 && h < in[1] && w >= 0 && w < in[2] {
									visit(b, o, c, yi, ((b*in[0]+c)*in[1]+h)*in[2]+w, ((o*in[0]+c)*k+u)*k+v)
								}
							}
						}
					}
				}
			}
		}
	}
}

// eachWindow visits every pixel xi of every pooling window yi.
func (r *reference) eachWindow(n *network.Node, in []int, visit func(yi, xi int)) {
	for plane := range r.batch * in[0] {
		for i := range n.Out[1] {
			for j := range n.Out[2] {
				for u := range n.Kernel {
					for v := range n.Kernel {
						h, w := i*n.Stride+u-n.Pad, j*n.Stride+v-n.Pad
						if h >= 0 && h < in[1] && w >= 0 && w < in[2] {
							visit((plane*n.Out[1]+i)*n.Out[2]+j, (plane*in[1]+h)*in[2]+w)
						}
					}
				}
			}
		}
	}
}

func (r *reference) param(n *network.Node, j int) []float64 {
	t := r.net.Params[n.Params[j]]
	return r.params[t.Offset : t.Offset+t.Size]
}

// each visits every element of [batch, C, H, W] with its channel.
func each(batch int, shape []int, visit func(c, at int)) {
	area := shape[1] * shape[2]
	for at := range batch * shape[0] * area {
		visit(at/area%shape[0], at)
	}
}

func length(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x * x
	}
	return math.Sqrt(sum)
}

func volume(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

func widen(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}
