//go:build gpu

package cuda

import (
	"errors"
	"math"
	"slices"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/emulator"
	"mochi/model/engine/cuda/plan"
	"mochi/model/engine/schedule"
	"mochi/model/network"
)

// Every step in bf16 gives what the same step in fp32 gives from the same
// input, rounded: the outputs of a step are compared, and then those of bf16
// are what both go on with. So nothing that a network amplifies hides or makes
// a fault; that fp32 computes what it should is TestConformance's to show.
// TestConformanceBF16 holds what is stored in training against float64; this
// is also about mode Eval, the coefficients, and networks with an MLP head.
func TestBF16StepByStep(t *testing.T) {
	resnet, err := network.Build("resnet18", network.Options{Channels: 3, ImageSize: 35, Dim: 4, Head: network.HeadMLP, Width: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, net := range []*network.Network{small(t), resnet} {
		for _, mode := range []engine.Mode{engine.Train, engine.Eval} {
			spec := engine.Spec{Batch: 3, Mode: mode}
			fs, full := ready(t, start(t, engine.Config{}), net, spec)
			hs, half := ready(t, start(t, engine.Config{Precision: engine.BF16}), net, spec)
			params, _ := net.Init(1)
			for i, x := range values(len(params), 3) {
				params[i] += 0.1 * x
			}
			for _, n := range net.Nodes {
				if n.Op == network.OpConv { // working copies are rounded; so must those of fp32 be
					w := net.Params[n.Params[0]]
					for i, x := range params[w.Offset : w.Offset+w.Size] {
						params[w.Offset+i] = rounded(x)
					}
				}
			}
			fs.Set(engine.QueryParams, params)
			hs.Set(engine.QueryParams, params)
			pair{t, full, half}.run()
		}
	}
	emulator.Record(t)
}

func rounded(x float32) float32 {
	bits := math.Float32bits(x)
	return math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff)
}

// pair is a program in both precisions.
type pair struct {
	t          *testing.T
	full, half *program
}

func (p pair) run() {
	images, d := values(p.full.calls.Images(), 7), values(p.full.calls.Embeddings(), 8)
	for i, x := range images {
		images[i] = rounded(x)
	}
	for _, q := range []*program{p.full, p.half} {
		copy(q.input.Floats(len(images)), images)
		copy(q.dOutput.Floats(len(d)), d)
		for _, f := range (launcher{program: q}).running() {
			p.do(q, f)
		}
	}
	steps := func(q *program) []plan.Step { return slices.Concat(q.plan.Forward, q.plan.Backward) }
	all, halves := steps(p.full), steps(p.half)
	for i, o := range all {
		h := halves[i]
		if h.Kind != o.Kind {
			p.t.Fatal("the two plans differ")
		}
		for j, in := range o.In {
			if in != plan.None && p.full.plan.Tensors[in].Type != schedule.Byte {
				p.store(p.full, in, p.load(p.half, h.In[j]))
			}
		}
		p.step(p.full, o)
		p.step(p.half, h)
		for j, out := range o.Out {
			if out == plan.None || p.full.plan.Tensors[out].Type == schedule.Byte {
				continue
			}
			p.compare("output", i, o, p.load(p.half, h.Out[j]), p.load(p.full, out), p.half.plan.Tensors[h.Out[j]].Type == schedule.BF16)
		}
		if o.Kind == schedule.Sums && o.In[1] != plan.None {
			// Its sums are those of what it stored, rounded.
			g := p.load(p.half, h.Out[0])
			p.store(p.full, o.In[0], g)
			p.store(p.full, o.In[1], make([]float32, len(g)))
			p.step(p.full, o)
		}
		for _, param := range o.Ready {
			at := p.full.s.net.Params[param]
			get := func(q *program) []float32 {
				return p.floats(q, q.gradients().Add(4*at.Offset), at.Size)
			}
			p.compare("gradient of "+at.Name, i, o, get(p.half), get(p.full), o.Kind == schedule.WeightGrad && len(at.Shape) == 4)
		}
		for _, n := range o.Norm {
			if n != plan.None { // both go on with the coefficients of bf16, whose input they are
				p.share(n)
			}
		}
	}
}

func (p pair) step(q *program, o plan.Step) {
	launches, err := launcher{program: q, grads: q.gradients()}.step(o)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range launches {
		p.do(q, f)
	}
}

// compare allows one unit of bf16 where the value was rounded (a tie may fall
// either way), and else what sums of fp32 differ by.
func (p pair) compare(what string, i int, o plan.Step, got, want []float32, isRounded bool) {
	p.t.Helper()
	scale := float32(0)
	for _, w := range want {
		scale = max(scale, float32(math.Abs(float64(w))))
	}
	for j, w := range want {
		tolerance := 1e-5 * float64(scale)
		if isRounded {
			tolerance += math.Abs(float64(w)) / 256
		}
		if d := math.Abs(float64(got[j] - w)); !(d <= tolerance) {
			p.t.Errorf("%s, step %d, kind %d, %s: value %d is %g, in fp32 %g", p.full.s.net.Arch, i, o.Kind, what, j, got[j], w)
			return
		}
	}
}

func (p pair) do(q *program, f launch) {
	p.t.Helper()
	leave, err := q.s.e.enter()
	if err != nil {
		p.t.Fatal(err)
	}
	defer leave()
	if err := errors.Join(f(), q.s.e.work.Synchronize()); err != nil {
		p.t.Fatal(err)
	}
}

func (p pair) floats(q *program, at driver.Pointer, n int) []float32 {
	v := make([]float32, n)
	p.do(q, func() error { return q.s.e.work.Download(v, at) })
	return v
}

// load is a tensor without padding, widened.
func (p pair) load(q *program, t int) []float32 {
	x := q.plan.Tensors[t]
	n := q.plan.Values(t)
	at := q.arena.Add(x.Offset)
	all := make([]float32, n)
	if x.Type == schedule.BF16 {
		for i, bits := range p.floats(q, at, (n+1)/2) {
			all[2*i] = math.Float32frombits(math.Float32bits(bits) << 16)
			if 2*i+1 < n {
				all[2*i+1] = math.Float32frombits(math.Float32bits(bits) &^ 0xffff)
			}
		}
	} else {
		copy(all, p.floats(q, at, n))
	}
	channels := x.C
	if t == q.plan.Images {
		channels = q.s.net.Channels
	}
	var v []float32
	for i := 0; i < n; i += x.C {
		v = append(v, all[i:i+channels]...)
		for _, padding := range all[i+channels : i+x.C] {
			if padding != 0 {
				p.t.Fatal("the padding of images is not zero")
			}
		}
	}
	return v
}

// store writes a tensor of the fp32 program.
func (p pair) store(q *program, t int, v []float32) {
	x := q.plan.Tensors[t]
	channels := len(v) / (q.plan.Values(t) / x.C)
	all := make([]float32, q.plan.Values(t))
	for i := range len(v) / channels {
		copy(all[i*x.C:], v[i*channels:(i+1)*channels])
	}
	p.do(q, func() error { return q.s.e.work.Upload(q.arena.Add(x.Offset), all) })
}

// share gives the fp32 program the coefficients of a norm in bf16.
func (p pair) share(n int) {
	c, f := p.half.norms[n], p.full.norms[n]
	channels := p.half.plan.Norms[n].Channels
	for _, v := range [][2]driver.Pointer{{c.mean, f.mean}, {c.invstd, f.invstd}, {c.scale, f.scale}, {c.shift, f.shift}, {c.a, f.a}, {c.b, f.b}, {c.k, f.k}} {
		values := p.floats(p.half, v[0], channels)
		p.do(p.full, func() error { return p.full.s.e.work.Upload(v[1], values) })
	}
}
