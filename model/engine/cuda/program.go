//go:build gpu

package cuda

import (
	"errors"
	"fmt"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/library"
	"mochi/model/engine/cuda/plan"
	"mochi/model/engine/onednn/schedule"
	"mochi/model/network"
)

// program implements engine.Program.
type program struct {
	s    *state
	spec engine.Spec
	plan *plan.Plan

	arena    driver.Memory // tensors
	nchw     driver.Memory // images as they come
	stats    driver.Memory // batch statistics, [NumBuffers]
	vectors  driver.Memory // of norms
	norms    []coefficients
	partials driver.Memory
	filter   driver.Memory // a convolution's weight gradient as cuDNN writes it
	convs    map[int]*library.Conv

	input, output, dOutput driver.Pinned // images, embeddings and their gradient
	statistics             driver.Pinned
	download               *download

	forward  []launch
	backward []segment
	pending  bool // a Forward has kept activations for Backward
	closed   bool
}

func (p *program) inputs() int {
	return p.spec.Batch * p.s.net.Channels * p.s.net.ImageSize * p.s.net.ImageSize
}
func (p *program) outputs() int { return p.spec.Batch * p.s.net.Dim }

// maxPoolKernel is the largest window of the pooling kernels.
const maxPoolKernel = 15

// mostWorkspace bounds what an algorithm of cuDNN may need, bytes.
const mostWorkspace = 1 << 30

func compile(s *state, spec engine.Spec) (made *program, err error) {
	switch {
	case spec.Batch < 1:
		return nil, fmt.Errorf("batch: %d; at least 1 sample is needed", spec.Batch)
	case spec.Encoder != engine.Query && spec.Encoder != engine.Key:
		return nil, fmt.Errorf("there is no encoder %d", spec.Encoder)
	case spec.Mode < engine.Train || spec.Mode > engine.Eval:
		return nil, fmt.Errorf("there is no mode %d", spec.Mode)
	}
	for _, n := range s.net.Nodes {
		if n.Op == network.OpMaxPool && n.Kernel > maxPoolKernel {
			return nil, fmt.Errorf("max pooling of %d×%d pixels: %w: at most %d×%d", n.Kernel, n.Kernel, engine.ErrUnsupported, maxPoolKernel, maxPoolKernel)
		}
	}
	p := &program{s: s, spec: spec, convs: map[int]*library.Conv{}}
	if p.plan, err = plan.New(s.net, spec, s.e.kind); err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			return
		}
		p.release()
		var full *driver.OutOfMemory
		if errors.As(err, &full) {
			err = s.tooLarge(spec, err)
		}
	}()
	if err = p.allocate(); err != nil {
		return nil, err
	}
	if err = p.convolutions(); err != nil {
		return nil, err
	}
	l := launcher{program: p, grads: s.grads.Pointer}
	if spec.Mode == engine.Eval {
		p.forward = l.running()
	}
	for _, o := range p.plan.Forward {
		launches, err := l.step(o)
		if err != nil {
			return nil, err
		}
		p.forward = append(p.forward, launches...)
	}
	if spec.Mode == engine.Train {
		if p.backward, err = p.segments(l); err != nil {
			return nil, err
		}
		p.download, err = newDownload(s, len(p.backward))
	}
	return p, err
}

// needs are the bytes of device memory of a program, by what they are for;
// what the state and cuDNN's algorithms need comes on top.
type needs struct{ arena, images, partials, filter, vectors, statistics int }

func (n needs) sum() int {
	return n.arena + n.images + n.partials + n.filter + n.vectors + n.statistics
}

func needsOf(net *network.Network, p *plan.Plan) needs {
	n := needs{arena: p.Arena, images: 4 * p.Batch * net.Channels * net.ImageSize * net.ImageSize,
		partials: 4 * p.Partials, filter: p.Filter, statistics: 4 * net.NumBuffers()}
	for _, norm := range p.Norms {
		n.vectors += 7 * vector(norm.Channels)
	}
	return n
}

// vector is the bytes of a vector of channels, at a multiple of 256.
func vector(channels int) int { return (4*channels + 255) / 256 * 256 }

func (p *program) allocate() (err error) {
	n := needsOf(p.s.net, p.plan)
	for _, b := range []struct {
		to    *driver.Memory
		bytes int
	}{{&p.arena, n.arena}, {&p.nchw, n.images}, {&p.partials, n.partials}, {&p.filter, n.filter}, {&p.vectors, n.vectors}, {&p.stats, n.statistics}} {
		if *b.to, err = p.s.e.device.Alloc(b.bytes); err != nil {
			return err
		}
	}
	at := p.vectors.Pointer
	for _, norm := range p.plan.Norms {
		var c coefficients
		for _, v := range []*driver.Pointer{&c.mean, &c.invstd, &c.scale, &c.shift, &c.a, &c.b, &c.k} {
			*v = at
			at = at.Add(vector(norm.Channels))
		}
		p.norms = append(p.norms, c)
	}
	for _, b := range []struct {
		to     *driver.Pinned
		values int
	}{{&p.input, p.inputs()}, {&p.output, p.outputs()}, {&p.dOutput, p.outputs()}, {&p.statistics, p.s.net.NumBuffers()}} {
		if *b.to, err = p.s.e.device.AllocPinned(b.values); err != nil {
			return err
		}
	}
	return nil
}

// convolutions chooses the algorithms of every direction that a step runs.
func (p *program) convolutions() error {
	space := 0
	for _, steps := range [][]plan.Step{p.plan.Forward, p.plan.Backward} {
		for _, o := range steps {
			dir, ok := map[schedule.Kind]library.Direction{schedule.Conv: library.Forward, schedule.DataGrad: library.DataGrad,
				schedule.WeightGrad: library.FilterGrad}[o.Kind]
			if !ok || p.plan.Layers[o.Layer].Linear {
				continue
			}
			y := p.plan.Layers[o.Layer]
			if p.convs[o.Layer] == nil {
				c, err := p.s.e.dnn.NewConv(library.Geometry{N: p.spec.Batch, H: y.IH, W: y.IW, C: y.Padded, K: y.Out, OH: y.OH, OW: y.OW,
					Kernel: y.Kernel, Stride: y.Stride, Pad: y.Pad, BF16: y.Type == schedule.BF16})
				if err != nil {
					return err
				}
				p.convs[o.Layer] = c
			}
			if _, err := p.convs[o.Layer].Choose(dir, mostWorkspace); err != nil {
				return err
			}
			space = max(space, p.convs[o.Layer].Workspace())
		}
	}
	return p.s.e.reserve(space)
}

// tooLarge says what a program needs and the largest batch that would fit.
func (s *state) tooLarge(spec engine.Spec, cause error) error {
	free, err := s.e.device.Free()
	if err != nil {
		return errors.Join(cause, err)
	}
	need := func(batch int) int {
		smaller := spec
		smaller.Batch = batch
		p, err := plan.New(s.net, smaller, s.e.kind)
		if err != nil {
			return 1 << 62
		}
		return needsOf(s.net, p).sum()
	}
	fits := 0
	for low, high := 1, spec.Batch; low <= high; {
		middle := (low + high) / 2
		if int64(need(middle)) <= free {
			fits, low = middle, middle+1
		} else {
			high = middle - 1
		}
	}
	advice := fmt.Sprintf("the largest batch that fits beside what is there is about %d", fits)
	if fits == 0 {
		advice = "not even a batch of 1 fits beside what is there"
	}
	return fmt.Errorf("a batch of %d needs %d MiB of device memory, %d MiB are free; %s: %w", spec.Batch, need(spec.Batch)>>20, free>>20, advice, cause)
}

func (p *program) Spec() engine.Spec { return p.spec }

func (p *program) Forward(images, dst []float32) error {
	if err := p.check("forward", length{"images", len(images), p.inputs()}, length{"destination", len(dst), p.outputs()}); err != nil {
		return err
	}
	p.pending = false
	if err := p.runForward(images, dst); err != nil {
		return p.fail("forward", err)
	}
	p.pending = p.spec.Mode == engine.Train
	return nil
}

func (p *program) runForward(images, dst []float32) error {
	if err := p.s.usable(); err != nil {
		return err
	}
	leave, err := p.s.e.enter()
	if err != nil {
		return err
	}
	defer leave()
	copy(p.input.Floats(len(images)), images)
	work := p.s.e.work
	for _, f := range p.forward {
		if err := f(); err != nil {
			return errors.Join(err, work.Synchronize())
		}
	}
	if err := work.Download(p.output.Floats(len(dst)), p.arena.Add(p.plan.Tensors[p.plan.Output].Offset)); err != nil {
		return err
	}
	if p.spec.Mode != engine.Eval {
		if err := work.Download(p.statistics.Floats(p.s.net.NumBuffers()), p.stats.Pointer); err != nil {
			return err
		}
	}
	if err := work.Synchronize(); err != nil {
		return err
	}
	copy(dst, p.output.Floats(len(dst)))
	return nil
}

func (p *program) Features(dst []float32) {
	p.must("features", length{"destination", len(dst), p.spec.Batch * p.s.net.FeatureDim})
	leave, err := p.s.e.enter()
	if err == nil {
		defer leave()
		if err = p.s.e.work.Download(dst, p.arena.Add(p.plan.Tensors[p.plan.Feature].Offset)); err == nil {
			err = p.s.e.work.Synchronize()
		}
	}
	if err != nil {
		panic(p.fail("features", err))
	}
}

func (p *program) Statistics(dst []float32) {
	if p.spec.Mode == engine.Eval {
		panic("engine cuda: statistics: a program in mode Eval has none")
	}
	p.must("statistics", length{"destination", len(dst), p.s.net.NumBuffers()})
	copy(dst, p.statistics.Floats(len(dst)))
}

func (p *program) Close() error {
	if p.closed {
		return nil
	}
	leave, err := p.s.e.enter()
	if err != nil {
		return err
	}
	defer leave()
	p.closed = true
	p.s.forget(p)
	return p.release()
}

func (p *program) release() error {
	var all []error
	for _, c := range p.convs {
		c.Close()
	}
	for _, m := range []*driver.Memory{&p.arena, &p.nchw, &p.stats, &p.vectors, &p.partials, &p.filter} {
		all = append(all, m.Release())
	}
	for _, m := range []*driver.Pinned{&p.input, &p.output, &p.dOutput, &p.statistics} {
		all = append(all, m.Release())
	}
	if p.download != nil {
		all = append(all, p.download.close())
	}
	return errors.Join(all...)
}

// length is an argument's length beside the right one.
type length struct {
	name      string
	got, want int
}

func (p *program) check(action string, lengths ...length) error {
	if p.closed {
		return p.fail(action, errors.New("the program is closed"))
	}
	for _, l := range lengths {
		if l.got != l.want {
			return p.fail(action, fmt.Errorf("%s: %d values, want %d", l.name, l.got, l.want))
		}
	}
	return nil
}

func (p *program) must(action string, l length) {
	if err := p.check(action, l); err != nil {
		panic(err)
	}
}

func (p *program) fail(action string, err error) error {
	return fmt.Errorf("engine cuda: %s of %s, batch %d: %w", action, p.s.net.Arch, p.spec.Batch, err)
}
