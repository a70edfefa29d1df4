//go:build gpu

package cuda

import (
	"errors"
	"fmt"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/library"
	"mochi/model/engine/cuda/plan"
	"mochi/model/engine/schedule"
)

// program implements engine.Program, for one BatchNorm group or several.
type program struct {
	s     *state
	calls engine.Calls
	plan  *plan.Plan

	arena     driver.Memory // tensors
	nchw      driver.Memory // images as they come
	stats     driver.Memory // batch statistics, [groups][NumBuffers]
	own       driver.Memory // gradients, [groups][NumParams], of more than one group; the state's are one group's
	vectors   driver.Memory // of norms
	norms     []coefficients
	partials  driver.Memory
	workspace int           // bytes that its algorithms need, of the engine's space
	filter    driver.Memory // a convolution's weight gradient as cuDNN writes it
	convs     map[use]*library.Conv

	input, output, dOutput driver.Pinned // images, embeddings and their gradient
	statistics             driver.Pinned
	download               *download
	staged                 *stage // images of the next Forward; nil: never asked for
	there                  bool   // this Forward's images were staged
	unstaged               bool   // there is no memory for it
	clock                  clock

	forward  replay // from images on the device to embeddings there
	backward []segment
	pending  bool // a Forward has kept activations for Backward
	closed   bool
}

// use is a layer as one convolution: of the whole batch, or of one group, whose
// weight gradients stay apart.
type use struct {
	layer int
	group bool
}

func (p *program) grads() int   { return p.plan.Groups * p.s.net.NumParams() }
func (p *program) buffers() int { return p.plan.Groups * p.s.net.NumBuffers() }

// mostWorkspace bounds what an algorithm of cuDNN may need, bytes.
const mostWorkspace = 1 << 30

func compile(s *state, spec engine.Spec, groups int) (made *program, err error) {
	switch {
	case groups < 1:
		return nil, fmt.Errorf("groups: %d; at least 1 is needed", groups)
	case groups > 1 && spec.Mode == engine.Eval:
		return nil, fmt.Errorf("%d groups in mode Eval: %w: it has no batch statistics, so one batch is as good", groups, engine.ErrUnsupported)
	}
	if err := errors.Join(spec.Validate(), engine.CheckPooling(s.net)); err != nil {
		return nil, err
	}
	p := &program{s: s, calls: engine.Calls{Engine: Name, Net: s.net, Spec: spec, Groups: groups}, convs: map[use]*library.Conv{}}
	if p.plan, err = plan.New(s.net, spec, groups, s.e.kind); err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			return
		}
		p.release()
		var full *driver.OutOfMemory
		if errors.As(err, &full) {
			err = s.tooLarge(p, err)
		}
	}()
	if err = p.allocate(); err != nil {
		return nil, err
	}
	if p.clock, err = newClock(s.e.device); err != nil {
		return nil, err
	}
	if err = p.convolutions(); err != nil {
		return nil, err
	}
	l := launcher{program: p, grads: p.gradients()}
	if spec.Mode == engine.Eval {
		p.forward.launches = l.running()
	}
	for _, o := range p.plan.Forward {
		launches, err := l.step(o)
		if err != nil {
			return nil, err
		}
		p.forward.launches = append(p.forward.launches, launches...)
	}
	if spec.Mode == engine.Train {
		if p.backward, err = p.segments(l); err != nil {
			return nil, err
		}
		p.download, err = newDownload(s, p.grads(), len(p.backward))
	}
	return p, err
}

func (p *program) allocate() (err error) {
	n := needsOf(p.s.net, p.plan)
	for _, b := range []struct {
		to    *driver.Memory
		bytes int
	}{{&p.arena, n.arena}, {&p.nchw, n.images}, {&p.partials, n.partials}, {&p.filter, n.filter}, {&p.vectors, n.vectors}, {&p.stats, n.statistics}, {&p.own, n.grads}} {
		if b.to == &p.own && b.bytes == 0 {
			continue
		}
		if *b.to, err = p.s.e.device.Alloc(b.bytes); err != nil {
			return err
		}
	}
	at := p.vectors.Pointer
	for _, norm := range p.plan.Norms {
		var c coefficients
		for _, v := range []*driver.Pointer{&c.mean, &c.invstd, &c.scale, &c.shift, &c.a, &c.b, &c.k} {
			*v = at
			at = at.Add(vector(p.plan.Groups * norm.Channels))
		}
		p.norms = append(p.norms, c)
	}
	for _, b := range []struct {
		to     *driver.Pinned
		values int
	}{{&p.input, p.calls.Images()}, {&p.output, p.calls.Embeddings()}, {&p.dOutput, p.calls.Embeddings()}, {&p.statistics, p.buffers()}} {
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
			y, at, samples := p.plan.Layers[o.Layer], p.use(o), p.plan.Batch
			if at.group {
				samples = p.calls.Spec.Batch
				for _, t := range o.In[:2] {
					if bytes := p.part(t); bytes%16 != 0 {
						return fmt.Errorf("%d groups: %w: one has %d bytes at %s, no multiple of the 16 that cuDNN asks",
							p.plan.Groups, engine.ErrUnsupported, bytes, p.s.net.Nodes[y.Node].Name)
					}
				}
			}
			if p.convs[at] == nil {
				c, err := p.s.e.dnn.NewConv(library.Geometry{N: samples, H: y.IH, W: y.IW, C: y.Padded, K: y.Out, OH: y.OH, OW: y.OW,
					Kernel: y.Kernel, Stride: y.Stride, Pad: y.Pad, BF16: y.Type == schedule.BF16, TF32: p.s.e.tf32})
				if err != nil {
					return err
				}
				p.convs[at] = c
			}
			if err := p.choose(p.convs[at], dir, o); err != nil {
				return err
			}
			space = max(space, p.convs[at].Workspace())
		}
	}
	p.workspace = space
	return p.s.e.reserve(space)
}

// choose takes an algorithm: by cuDNN's ranking, or the one that was measured
// on this machine, now or before.
func (p *program) choose(c *library.Conv, dir library.Direction, o plan.Step) error {
	e := p.s.e
	if e.choices == nil {
		_, err := c.Choose(dir, mostWorkspace)
		return err
	}
	measure := func() (a library.Algorithm, err error) {
		free, err := e.device.Free()
		if err != nil {
			return a, err
		}
		room, err := c.Room(dir, min(mostWorkspace, int(free/2)))
		if err != nil {
			return a, err
		}
		space, err := e.device.Alloc(room)
		if err != nil {
			return a, err
		}
		defer func() { err = errors.Join(err, space.Release()) }()
		l := launcher{program: p}
		x, w, to := l.tensor(o.In[0]), l.weight(p.plan.Layers[o.Layer]), l.tensor(o.Out[0])
		if dir == library.FilterGrad {
			w, to = l.tensor(o.In[1]), p.filter.Pointer
		}
		return c.Measure(dir, x, w, to, space)
	}
	key := fmt.Sprintf("%s, cuDNN %s, %v of %v", e.device.Name, library.VersionDNN(e.dnn.Version), dir, c)
	for again := range 2 {
		a, err := e.choices.Get(key, measure)
		if err != nil {
			return err
		}
		if err = c.Use(dir, a, mostWorkspace); err == nil || again > 0 {
			return err
		}
		if err := e.choices.Forget(key); err != nil { // what was kept is of no use any more
			return err
		}
	}
	return nil
}

// use is the convolution of a step.
func (p *program) use(o plan.Step) use {
	return use{o.Layer, o.Kind == schedule.WeightGrad && p.plan.Groups > 1}
}

// gradients is where a backward leaves them on the device.
func (p *program) gradients() driver.Pointer {
	if p.own.Pointer != 0 {
		return p.own.Pointer
	}
	return p.s.grads.Pointer
}

// part is the bytes of one group of a tensor.
func (p *program) part(t int) int {
	return p.plan.Values(t) / p.plan.Groups * p.plan.Tensors[t].Type.Size()
}

func (p *program) Spec() engine.Spec { return p.calls.Spec }

func (p *program) Forward(images, dst []float32) error {
	if err := p.calls.Forward(p.closed, images, dst); err != nil {
		return err
	}
	p.pending = false
	if err := p.runForward(images, dst); err != nil {
		return p.calls.Fail("forward", err)
	}
	p.pending = p.calls.Spec.Mode == engine.Train
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
	work := p.s.e.work
	if err := errors.Join(p.clock.begin.Record(work), p.take(images), p.bring()); err != nil {
		return errors.Join(err, work.Synchronize())
	}
	if err := p.s.e.put(&p.forward); err != nil {
		return errors.Join(err, work.Synchronize())
	}
	if err := p.clock.forward.Record(work); err != nil {
		return err
	}
	if err := work.Download(p.output.Floats(len(dst)), p.arena.Add(p.plan.Tensors[p.plan.Output].Offset)); err != nil {
		return err
	}
	if p.calls.Spec.Mode != engine.Eval {
		if err := work.Download(p.statistics.Floats(p.buffers()), p.stats.Pointer); err != nil {
			return err
		}
	}
	if err := work.Synchronize(); err != nil {
		return err
	}
	if err := p.clock.forwardDone(&p.s.e.spent); err != nil {
		return err
	}
	copy(dst, p.output.Floats(len(dst)))
	return nil
}

func (p *program) Features(dst []float32) {
	p.calls.Features(p.closed, dst)
	leave, err := p.s.e.enter()
	if err == nil {
		defer leave()
		if err = p.s.e.work.Download(dst, p.arena.Add(p.plan.Tensors[p.plan.Feature].Offset)); err == nil {
			err = p.s.e.work.Synchronize()
		}
	}
	if err != nil {
		panic(p.calls.Fail("features", err))
	}
}

func (p *program) Statistics(dst []float32) {
	p.calls.Statistics(p.closed, dst)
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
	for _, m := range []*driver.Memory{&p.arena, &p.nchw, &p.stats, &p.vectors, &p.partials, &p.filter, &p.own} {
		all = append(all, m.Release())
	}
	for _, m := range []*driver.Pinned{&p.input, &p.output, &p.dOutput, &p.statistics} {
		all = append(all, m.Release())
	}
	if p.download != nil {
		all = append(all, p.download.close())
	}
	if p.staged != nil {
		all = append(all, p.unstage(), p.s.e.uploads.Synchronize(), p.staged.release())
	}
	all = append(all, p.forward.graph.Close(), p.clock.close())
	for i := range p.backward {
		all = append(all, p.backward[i].replay.graph.Close())
	}
	return errors.Join(all...)
}
