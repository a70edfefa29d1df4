//go:build gpu

package cuda

import (
	"fmt"
	"strings"
	"sync"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/kernel"
	"mochi/model/engine/cuda/library"
	"mochi/model/engine/cuda/plan"
	"mochi/model/engine/schedule"
	"mochi/model/network"
)

// coefficients are a BatchNorm's vectors on the device, [groups][channels] each:
// statistics, y = x·scale + shift, and dx = a·g + b·x + k.
type coefficients struct{ mean, invstd, scale, shift, a, b, k driver.Pointer }

// launch puts one step into the work stream.
type launch func() error

// launcher makes launches of a program's steps. All addresses are known when
// it works, so a launch looks nothing up.
type launcher struct {
	*program
	grads driver.Pointer // flat gradients, [groups][NumParams]
}

// tensor is the address of a tensor, 0 for None.
func (l launcher) tensor(t int) driver.Pointer {
	if t == plan.None {
		return 0
	}
	return l.arena.Add(l.plan.Tensors[t].Offset)
}

// norm is a norm's coefficients, all 0 for None.
func (l launcher) norm(n int) coefficients {
	if n == plan.None {
		return coefficients{}
	}
	return l.norms[n]
}

// param is the address of a parameter among the masters.
func (l launcher) param(i int) driver.Pointer {
	return l.s.masters(l.calls.Spec.Encoder).Add(4 * l.s.net.Params[i].Offset)
}

// grad is the address of a parameter's gradient of one group.
func (l launcher) grad(group, i int) driver.Pointer {
	return l.grads.Add(4 * (group*l.s.net.NumParams() + l.s.net.Params[i].Offset))
}

// of is the address of one group of a tensor.
func (l launcher) of(group, t int) driver.Pointer { return l.tensor(t).Add(group * l.part(t)) }

// eachGroup are the launches of what stays apart.
func (l launcher) eachGroup(f func(group int) []launch) (launches []launch) {
	for g := range l.plan.Groups {
		launches = append(launches, f(g)...)
	}
	return launches
}

// weight is the address of a convolution's working copy.
func (l launcher) weight(y plan.Layer) driver.Pointer {
	return l.s.copies[l.calls.Spec.Encoder].Add(y.Copy * l.s.e.kind.Size())
}

func (l launcher) kernel(name string, g kernel.Launch, args ...any) launch {
	checkKinds(name, args)
	return l.s.e.kernels.Prepare(l.s.e.work, name, g, args...)
}

// checkKinds panics where arguments are not what the kernels' table says: the
// driver would take them as they are.
func checkKinds(name string, args []any) {
	k, ok := signatures()[name]
	if !ok || len(k.Params) != len(args) {
		panic(fmt.Sprintf("engine cuda: kernel %s (in the table: %v) with %d arguments", name, ok, len(args)))
	}
	for i, p := range k.Params {
		fits := false
		switch args[i].(type) {
		case driver.Pointer:
			fits = strings.HasSuffix(string(p.Kind), "*")
		case int32:
			fits = p.Kind == kernel.Int
		case int64:
			fits = p.Kind == kernel.Long || p.Kind == kernel.ULong
		case float32:
			fits = p.Kind == kernel.Float
		}
		if !fits {
			panic(fmt.Sprintf("engine cuda: kernel %s: %s is a %s, not a %T", name, p.Name, p.Kind, args[i]))
		}
	}
}

// signatures is the kernels' table by name.
var signatures = sync.OnceValue(func() map[string]kernel.Kernel {
	m := map[string]kernel.Kernel{}
	for _, k := range kernel.Table {
		for _, name := range symbols(k) {
			m[name] = k
		}
	}
	return m
})

// typed is the name of a kernel for the type of tensor t.
func (l launcher) typed(base string, t int) (name string, kind kernel.Type) {
	if l.plan.Tensors[t].Type == schedule.BF16 {
		kind = kernel.BF16
	}
	return kernel.Name(base, kind), kind
}

// shape is a tensor as [batch][pixels][channels].
func (l launcher) shape(t int) (pixels, channels int) {
	x := l.plan.Tensors[t]
	return x.H * x.W, x.C
}

// null is a missing pointer.
const null = driver.Pointer(0)

// step turns one step of the plan into launches.
func (l launcher) step(o plan.Step) ([]launch, error) {
	switch o.Kind {
	case schedule.Images:
		return []launch{l.images(o)}, nil
	case schedule.Gradient:
		to := l.tensor(o.Out[0])
		return []launch{func() error { return l.s.e.work.Upload(to, l.dOutput.Floats(l.calls.Embeddings())) }}, nil
	case schedule.Conv, schedule.WeightGrad, schedule.DataGrad:
		return l.product(o), nil
	case schedule.Stats, schedule.Apply, schedule.Sums, schedule.GradApply:
		return l.batchNorm(o), nil
	case schedule.MaxPool, schedule.MaxPoolGrad, schedule.AvgPool, schedule.AvgPoolGrad:
		return l.pool(o), nil
	case schedule.Add, schedule.ReLU, schedule.ReLUGrad, schedule.Bias, schedule.BiasGrad, schedule.Normalize, schedule.NormalizeGrad:
		return l.elements(o), nil
	}
	return nil, fmt.Errorf("step of kind %d: %w", o.Kind, engine.ErrUnsupported)
}

// images turns those that bring has brought into the first tensor.
func (l launcher) images(o plan.Step) launch {
	net := l.s.net
	pixels, padded := l.shape(o.Out[0])
	name, _ := l.typed("images", o.Out[0])
	return l.kernel(name, kernel.Images(l.plan.Batch, pixels), l.nchw.Pointer, int32(net.Channels), int32(padded), int32(pixels), l.tensor(o.Out[0]))
}

// product is a convolution, by cuDNN, or a linear layer, by cuBLAS.
func (l launcher) product(o plan.Step) []launch {
	e, y, rows := l.s.e, l.plan.Layers[o.Layer], l.plan.Batch
	in0, out := l.tensor(o.In[0]), l.tensor(o.Out[0])
	if y.Linear {
		w := l.param(y.Weight)
		switch o.Kind {
		case schedule.Conv:
			return []launch{func() error { return e.heads.Product(rows, y.Out, y.In, in0, false, w, true, out) }}
		case schedule.DataGrad:
			return []launch{func() error { return e.heads.Product(rows, y.In, y.Out, in0, false, w, false, out) }}
		}
		return l.eachGroup(func(g int) []launch {
			x, dy, dw := l.of(g, o.In[0]), l.of(g, o.In[1]), l.grad(g, y.Weight)
			return []launch{func() error { return e.heads.Product(y.Out, y.In, l.calls.Spec.Batch, dy, true, x, false, dw) }}
		})
	}
	c, w := l.convs[l.use(o)], l.weight(y)
	switch o.Kind {
	case schedule.Conv:
		return []launch{func() error { return c.Run(library.Forward, in0, w, out, e.space) }}
	case schedule.DataGrad:
		return []launch{func() error { return c.Run(library.DataGrad, in0, w, out, e.space) }}
	}
	taps := y.Kernel * y.Kernel
	return l.eachGroup(func(g int) []launch {
		x, dy := l.of(g, o.In[0]), l.of(g, o.In[1])
		return []launch{
			func() error { return c.Run(library.FilterGrad, x, dy, l.filter.Pointer, e.space) },
			l.kernel(kernel.Name("weights_grad", e.kind), kernel.Flat(y.Out*y.In*taps), int32(y.Out), int32(y.In), int32(taps), int32(y.Padded),
				l.filter.Pointer, l.grad(g, y.Weight)),
		}
	})
}

func (l launcher) batchNorm(o plan.Step) []launch {
	pixels, channels := l.shape(o.In[0])
	groups, rows := l.plan.Groups, l.calls.Spec.Batch*pixels
	_, kind := l.typed("", o.In[0])
	n0, n1 := l.norm(o.Norm[0]), l.norm(o.Norm[1])
	in, out := func(i int) driver.Pointer { return l.tensor(o.In[i]) }, l.tensor(o.Out[0])
	switch o.Kind {
	case schedule.Stats:
		return l.statistics(o, rows, channels, kind)
	case schedule.Apply:
		tile := kernel.Rows(kind, groups, rows, channels)
		return []launch{l.kernel(kernel.Name("bn_apply", kind), tile.Launch, in(0), n0.scale, n0.shift, in(1), n1.scale, n1.shift,
			flag(o.ReLU), int64(rows), int32(channels), int32(tile.Chunk), out)}
	case schedule.GradApply:
		tile := kernel.Rows(kind, groups, rows, channels)
		return []launch{l.kernel(kernel.Name("bn_grad_apply", kind), tile.Launch, in(0), int32(o.Mask), null, int32(1),
			in(3), n0.scale, n0.shift, n0.a, n0.b, n0.k, out, null, null, null, null, null, int64(rows), int32(channels), int32(tile.Chunk))}
	}
	branches := 0
	for _, n := range o.Norm {
		if n != plan.None {
			branches++
		}
	}
	tile := kernel.Sums(kind, groups, rows, channels, 1+branches)
	launches := []launch{l.kernel(kernel.Name("bn_grad_sums", kind), tile.Launch, in(0), in(1), int32(o.Mask), in(2), out, int32(branches),
		in(3), n0.scale, n0.shift, n0.mean, in(4), n1.mean, int64(rows), int32(channels), int32(tile.Chunk), l.partials.Pointer)}
	for branch, c := range []coefficients{n0, n1}[:branches] {
		params := l.s.net.Nodes[l.plan.Norms[o.Norm[branch]].Node].Params
		launches = append(launches, l.kernel("bn_grad_fold", kernel.Fold(groups, channels), l.partials.Pointer, int64(rows), int32(channels), int32(tile.Chunk),
			int32(branches), int32(branch), l.param(params[0]), c.mean, c.invstd, l.grad(0, params[0]), l.grad(0, params[1]), int64(l.s.net.NumParams()), c.a, c.b, c.k))
	}
	return launches
}

// statistics are a batch's, in two passes: partial sums, and their fold.
func (l launcher) statistics(o plan.Step, rows, channels int, kind kernel.Type) []launch {
	c, node := l.norm(o.Norm[0]), l.s.net.Nodes[l.plan.Norms[o.Norm[0]].Node]
	tile := kernel.Sums(kind, l.plan.Groups, rows, channels, 2)
	x := l.tensor(o.In[0])
	statistic := func(i int) driver.Pointer { return l.stats.Add(4 * l.s.net.Buffers[node.Buffers[i]].Offset) }
	return []launch{
		l.kernel(kernel.Name("bn_stats", kind), tile.Launch, x, int64(rows), int32(channels), int32(tile.Chunk), l.partials.Pointer),
		l.kernel("bn_fold", kernel.Fold(l.plan.Groups, channels), l.partials.Pointer, int64(rows), int32(channels), int32(tile.Chunk),
			l.param(node.Params[0]), l.param(node.Params[1]), float32(network.BatchNormEpsilon), c.mean, c.invstd, c.scale, c.shift,
			statistic(0), statistic(1), int32(l.s.net.NumBuffers())),
	}
}

// running gives every norm the coefficients of mode Eval.
func (l launcher) running() (launches []launch) {
	buffers := l.s.running(l.calls.Spec.Encoder)
	for i, n := range l.plan.Norms {
		c, node := l.norms[i], l.s.net.Nodes[n.Node]
		buffer := func(i int) driver.Pointer { return buffers.Add(4 * l.s.net.Buffers[node.Buffers[i]].Offset) }
		launches = append(launches, l.kernel("bn_fold_eval", kernel.Flat(n.Channels), int32(n.Channels), buffer(0), buffer(1),
			l.param(node.Params[0]), l.param(node.Params[1]), float32(network.BatchNormEpsilon), c.scale, c.shift))
	}
	return launches
}

func (l launcher) pool(o plan.Step) []launch {
	in, out, batch := l.tensor(o.In[0]), l.tensor(o.Out[0]), l.plan.Batch
	switch o.Kind {
	case schedule.AvgPool:
		name, kind := l.typed("avgpool", o.In[0])
		pixels, channels := l.shape(o.In[0])
		return []launch{l.kernel(name, kernel.AvgPool(kind, batch, pixels, channels), in, int32(pixels), int32(channels), out)}
	case schedule.AvgPoolGrad:
		name, kind := l.typed("avgpool_grad", o.Out[0])
		pixels, channels := l.shape(o.Out[0])
		tile := kernel.Rows(kind, batch, pixels, channels)
		return []launch{l.kernel(name, tile.Launch, in, int64(pixels), int32(channels), int32(tile.Chunk), out)}
	}
	y := l.plan.Layers[o.Layer]
	window := []any{int32(y.In), int32(y.IH), int32(y.IW), int32(y.OH), int32(y.OW), int32(y.Kernel), int32(y.Stride), int32(y.Pad)}
	if o.Kind == schedule.MaxPoolGrad {
		name, kind := l.typed("maxpool_grad", o.In[0])
		args := append([]any{in, l.tensor(o.In[1])}, append(window, out)...)
		return []launch{l.kernel(name, kernel.Pool(kind, batch, y.IH, y.IW, y.In), args...)}
	}
	name, kind := l.typed("maxpool", o.In[0])
	c := l.norm(o.Norm[0])
	args := append([]any{in, c.scale, c.shift, int32(l.calls.Spec.Batch)}, append(window, out, l.tensor(o.Out[1]))...)
	return []launch{l.kernel(name, kernel.Pool(kind, batch, y.OH, y.OW, y.In), args...)}
}

// elements are the steps on values or rows alone.
func (l launcher) elements(o plan.Step) []launch {
	in := func(i int) driver.Pointer { return l.tensor(o.In[i]) }
	out, batch := l.tensor(o.Out[0]), l.plan.Batch
	n := l.plan.Values(o.In[0])
	_, channels := l.shape(o.In[0])
	one := func(base string, args ...any) []launch {
		name, _ := l.typed(base, o.In[0])
		return []launch{l.kernel(name, kernel.Flat(n), append([]any{int64(n)}, args...)...)}
	}
	switch o.Kind {
	case schedule.Add:
		return one("add", in(0), in(1), out)
	case schedule.ReLU:
		return one("relu", in(0), out)
	case schedule.ReLUGrad:
		return one("relu_grad", in(1), in(0), out)
	case schedule.Bias:
		return one("bias", int32(channels), in(0), l.param(l.plan.Layers[o.Layer].Bias), int32(0), out)
	case schedule.BiasGrad:
		name, kind := l.typed("bias_grad", o.In[0])
		return l.eachGroup(func(g int) []launch {
			return []launch{l.kernel(name, kernel.AvgPool(kind, 1, l.calls.Spec.Batch, channels), l.of(g, o.In[0]), int32(l.calls.Spec.Batch), int32(channels),
				l.grad(g, l.plan.Layers[o.Layer].Bias))}
		})
	case schedule.Normalize:
		return []launch{l.kernel("l2norm", kernel.PerRow(batch), int32(batch), int32(channels), in(0), out, l.tensor(o.Out[1]))}
	}
	return []launch{l.kernel("l2norm_grad", kernel.PerRow(batch), int32(batch), int32(channels), in(1), in(2), in(0), out)}
}

func flag(b bool) int32 {
	if b {
		return 1
	}
	return 0
}
