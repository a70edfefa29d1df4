package cpu

// BackwardWeights computes dw [OutC, InC, Kernel, Kernel], the gradient with
// respect to the weights, from x [batch, InC, H, W] and dy [batch, OutC, OutH,
// OutW]:
//
//	dw[o,c,u,v] = Σ_{b,i,j} dy[b,o,i,j] · x[b, c, i·Stride+u−Pad, j·Stride+v−Pad]
//
// For each sample it is the product of the views of x (one row for every tap,
// read in place) and dy, transposed so that output channels are contiguous.
// Samples are summed in chunks that depend on the shape alone, and the chunks
// in order.
func (c *Convolution) BackwardWeights(batch int, x, dy, dw []float32) {
	c.check("Convolution.BackwardWeights", batch, "x", x, dw, "dy", dy)
	t := c.team
	t.mu.Lock()
	defer t.mu.Unlock()

	j := weightGradient{Convolution: c, batch: batch, x: x, dy: dy, dw: dw}
	j.chunks = 8
	if len(dw) > 16<<10 {
		j.chunks = 4
	}
	if len(dw) > 1<<20 {
		j.chunks = 2
	}
	j.chunks = max(1, min(j.chunks, batch))
	j.blocks = max(1, c.InC/32)
	if len(t.partial) < j.chunks*len(dw) {
		t.partial = make([]float32, j.chunks*len(dw))
	}
	j.partial = t.partial[:j.chunks*len(dw)]

	t.jobs.weightGradient = j
	t.do(j.chunks*j.blocks, &t.jobs.weightGradient)
	t.jobs.weightSum = weightSum(j)
	t.do(ceil(len(dw)/c.OutC, weightSumTaps), &t.jobs.weightSum)
	t.jobs.weightGradient, t.jobs.weightSum = weightGradient{}, weightSum{}
}

// weightGradient is the job of the partial sums; a task is one chunk of
// samples and one block of input channels.
type weightGradient struct {
	*Convolution
	batch, chunks, blocks int
	x, dy, dw             []float32
	partial               []float32 // [chunks, InC·Kernel·Kernel, OutC]
}

func (j *weightGradient) task(w *worker, task int) {
	chunk, block := task/j.blocks, task%j.blocks
	first, last := j.batch*chunk/j.chunks, j.batch*(chunk+1)/j.chunks
	from, to := j.InC*block/j.blocks, j.InC*(block+1)/j.blocks

	ph := j.forward.phases[0]
	n := j.forward.positions(&ph)
	in := j.forward.in
	in.channels = to - from
	viewSize, dySize := in.size(), n*j.OutC
	if in.plain() {
		viewSize = 0
	}
	group := max(1, min(last-first, groupSize(viewSize+dySize, len(j.dw)*(to-from)/j.InC)))
	memory := w.memory(group*(viewSize+dySize) + j.OutC*ph.h*in.pitch)
	views, memory := memory[:group*viewSize], memory[group*viewSize:]
	dys, padded := memory[:group*dySize], memory[group*dySize:]

	k2 := j.Kernel * j.Kernel
	p := product{
		m: (to - from) * k2, n: j.OutC,
		a: views, arows: ph.taps[:(to-from)*k2], astep: 1, aterm: viewSize,
		b: dys, brow: w.rows(n, j.OutC), bterm: dySize,
		c: j.partial[(chunk*j.InC+from)*k2*j.OutC:], ldc: j.OutC,
	}
	for s := first; s < last; s += p.terms {
		p.terms = min(group, last-s)
		for i := range p.terms {
			if !in.plain() {
				in.stage(w.set, views[i*viewSize:], j.x[((s+i)*j.InC+from)*j.H*j.W:])
			}
			j.stageGradient(w.set, dys[i*dySize:], padded, j.dy[(s+i)*j.OutC*ph.h*ph.w:])
		}
		if in.plain() {
			p.a, p.aterm = j.x[(s*j.InC+from)*j.H*j.W:], j.InC*j.H*j.W
		}
		w.multiply(&p)
		p.acc = true
	}
}

// stageGradient writes one sample of dy [OutC, OutH, OutW] as [positions,
// OutC], with zeros at the vain positions. padded has room for dy with them.
func (j *weightGradient) stageGradient(set *instructions, dst, padded, dy []float32) {
	h, w, pitch := j.OutH(), j.OutW(), j.forward.in.pitch
	n := (h-1)*pitch + w
	if pitch > w {
		set.copyRows(padded, pitch, dy, w, j.OutC*h, w, pitch-w)
		dy = padded
	}
	set.transpose(dst, j.OutC, dy, h*pitch, j.OutC, n)
}

// weightSum is the job that adds the chunks; a task is a few taps.
type weightSum weightGradient

const weightSumTaps = 64

func (j *weightSum) task(w *worker, task int) {
	taps := j.InC * j.Kernel * j.Kernel
	first := task * weightSumTaps
	count := min(weightSumTaps, taps-first)
	n := count * j.OutC
	sum := j.partial[first*j.OutC:][:n]
	if j.chunks > 1 {
		sum = w.memory(n)
		copy(sum, j.partial[first*j.OutC:])
		for chunk := 1; chunk < j.chunks; chunk++ {
			w.set.add(sum, sum, j.partial[(chunk*taps+first)*j.OutC:][:n])
		}
	}
	w.set.transpose(j.dw[first:], taps, sum, j.OutC, count, j.OutC)
}
