package cpu

// correlation computes images from images by sliding filters over them, as a
// matrix product for every sample: weights [outC, taps] times the views of the
// input that the taps see. It serves convolution forward (one phase) and
// backward with respect to the data (one phase for each residue of the
// position modulo the stride, so that no tap ever meets a hole).
type correlation struct {
	in               view
	outC, outH, outW int
	stride           int // outputs of one phase lie this far apart
	phases           []phase
}

// phase is the outputs at (y + i·stride, x + j·stride), i < h, j < w.
type phase struct {
	y, x, h, w int
	taps       []int // start in the view, for every column of the weights
	weights    int   // start of this phase's weights [outC, taps]
}

// positions is the number of columns of the product, vain ones included.
func (c *correlation) positions(p *phase) int { return (p.h-1)*c.in.pitch + p.w }

// direct says that the product can be written in place.
func (c *correlation) direct() bool {
	return c.stride == 1 && c.in.pitch == c.outW
}

// groupSize is how many samples of the given length (view and result) a task
// works on at once: what fits the second-level cache (512 KiB), or more where
// the weights are so large that fetching them again costs more.
func groupSize(sample, weights int) int {
	return max(1, max(128<<10, weights/4)/sample)
}

// correlate is the job of one correlation; a task is a few samples.
type correlate struct {
	*correlation
	batch, group      int
	src, weights, dst []float32
}

func (t *Team) correlate(j correlate) {
	j.group = min(groupSize(j.in.size()+j.scratch(), len(j.weights)), ceil(j.batch, t.Threads()))
	t.jobs.correlate = j
	t.do(ceil(j.batch, j.group), &t.jobs.correlate)
	t.jobs.correlate = correlate{}
}

// scratch is the length of one sample's result before it is scattered.
func (j *correlate) scratch() int {
	if j.direct() {
		return 0
	}
	most := 0
	for i := range j.phases {
		most = max(most, j.positions(&j.phases[i]))
	}
	return j.outC * most
}

func (j *correlate) task(w *worker, task int) {
	first := task * j.group
	count := min(j.group, j.batch-first)
	inSize, outSize := j.in.channels*j.in.h*j.in.w, j.outC*j.outH*j.outW
	src, dst := j.src[first*inSize:], j.dst[first*outSize:]

	viewSize, scratch := j.in.size(), j.scratch()
	memory := w.memory(count * (viewSize + scratch))
	views, results := memory[:count*viewSize], memory[count*viewSize:]
	if j.in.plain() {
		views, viewSize = src, inSize
	} else {
		for s := range count {
			j.in.stage(w.set, views[s*viewSize:], src[s*inSize:])
		}
	}
	if j.direct() {
		results, scratch = dst, outSize
	}
	for i := range j.phases {
		ph := &j.phases[i]
		j.multiply(w, ph, count, views, viewSize, results, scratch)
		if !j.direct() {
			for s := range count {
				j.scatter(w.set, ph, dst[s*outSize:], results[s*scratch:])
			}
		}
	}
}

// multiply computes one phase of count samples. Strips of the weights are the
// outer loop, so that each is fetched once for all samples.
func (j *correlate) multiply(w *worker, ph *phase, count int, views []float32, viewSize int, results []float32, resultSize int) {
	if ph.h <= 0 || ph.w <= 0 {
		return
	}
	n, k := j.positions(ph), len(ph.taps)
	p := product{m: j.outC, n: n, terms: 1, a: j.weights[ph.weights:], lda: k, astep: 1, brow: ph.taps, ldc: n}
	for from := 0; from < max(k, 1); from += depth {
		for s := range count {
			p.b, p.c = views[s*viewSize:], results[s*resultSize:]
			w.multiplyStrip(&p, from, min(from+depth, k))
		}
	}
}

// scatter moves one sample's result [outC, positions] to where it belongs.
func (j *correlate) scatter(set *instructions, ph *phase, dst, result []float32) {
	if ph.h <= 0 || ph.w <= 0 {
		return
	}
	n := j.positions(ph)
	for c := range j.outC {
		from, to := result[c*n:], dst[c*j.outH*j.outW:]
		if j.stride == 1 {
			set.copyRows(to, j.outW, from, j.in.pitch, ph.h, ph.w, 0)
			continue
		}
		for y := range ph.h {
			row := to[(ph.y+y*j.stride)*j.outW+ph.x:]
			for x, v := range from[y*j.in.pitch:][:ph.w] {
				row[x*j.stride] = v
			}
		}
	}
}
