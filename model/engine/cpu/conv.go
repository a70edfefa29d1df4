package cpu

import "fmt"

// Conv is the geometry of a convolution with square kernels and without bias:
// x [B, InC, H, W] → y [B, OutC, OutH, OutW], weights w [OutC, InC, Kernel,
// Kernel],
//
//	y[b,o,i,j] = Σ_{c,u,v} w[o,c,u,v] · x[b, c, i·Stride+u−Pad, j·Stride+v−Pad]
type Conv struct {
	InC, OutC           int
	H, W                int // of the input, pixels
	Kernel, Stride, Pad int
}

// OutH is the height of the output, pixels.
func (c Conv) OutH() int { return (c.H+2*c.Pad-c.Kernel)/c.Stride + 1 }

// OutW is the width of the output, pixels.
func (c Conv) OutW() int { return (c.W+2*c.Pad-c.Kernel)/c.Stride + 1 }

// Validate says what is wrong with the geometry, if anything.
func (c Conv) Validate() error {
	if c.InC < 1 || c.OutC < 1 || c.H < 1 || c.W < 1 || c.Kernel < 1 || c.Stride < 1 || c.Pad < 0 {
		return fmt.Errorf("convolution %+v: sizes must be at least 1 and Pad at least 0", c)
	}
	if c.H+2*c.Pad < c.Kernel || c.W+2*c.Pad < c.Kernel {
		return fmt.Errorf("convolution %+v: the padded image is smaller than the kernel", c)
	}
	return nil
}

// Convolution is a Conv prepared for execution by a Team. It is not safe for
// concurrent use (its Team may be shared).
type Convolution struct {
	Conv
	team     *Team
	forward  correlation
	backward correlation
	flipped  []float32 // weights in the order of backward
	flips    [][]int   // taps ky·Kernel + kx of each phase of backward
}

// NewConvolution prepares a convolution; it panics when c is not valid.
func NewConvolution(t *Team, c Conv) *Convolution {
	if err := c.Validate(); err != nil {
		panic("kernel: " + err.Error())
	}
	return &Convolution{
		Conv:     c,
		team:     t,
		forward:  forwardCorrelation(c),
		backward: backwardCorrelation(c),
		flipped:  make([]float32, c.OutC*c.InC*c.Kernel*c.Kernel),
		flips:    c.phaseTaps(),
	}
}

// Forward computes y [batch, OutC, OutH, OutW] from x [batch, InC, H, W] and
// w [OutC, InC, Kernel, Kernel].
func (c *Convolution) Forward(batch int, x, w, y []float32) {
	c.check("Convolution.Forward", batch, "x", x, w, "y", y)
	c.team.mu.Lock()
	defer c.team.mu.Unlock()
	c.team.correlate(correlate{correlation: &c.forward, batch: batch, src: x, weights: w, dst: y})
}

// BackwardData computes dx [batch, InC, H, W], the gradient with respect to
// the input, from dy [batch, OutC, OutH, OutW] and w.
func (c *Convolution) BackwardData(batch int, dy, w, dx []float32) {
	c.check("Convolution.BackwardData", batch, "dx", dx, w, "dy", dy)
	c.team.mu.Lock()
	defer c.team.mu.Unlock()
	c.team.jobs.flip = flip{c, w}
	c.team.do(c.InC, &c.team.jobs.flip)
	c.team.jobs.flip = flip{}
	c.team.correlate(correlate{correlation: &c.backward, batch: batch, src: dy, weights: c.flipped, dst: dx})
}

// check panics unless the buffers have the lengths that the shape asks for.
func (c *Convolution) check(op string, batch int, in string, x, w []float32, out string, y []float32) {
	if batch < 1 {
		panic(fmt.Sprintf("kernel: %s: batch %d, want at least 1", op, batch))
	}
	need(op, in, len(x), batch*c.InC*c.H*c.W)
	need(op, "weights", len(w), c.OutC*c.InC*c.Kernel*c.Kernel)
	need(op, out, len(y), batch*c.OutC*c.OutH()*c.OutW())
}

func forwardCorrelation(c Conv) correlation {
	k, outH, outW := c.Kernel, c.OutH(), c.OutW()
	in := newView(view{
		channels: c.InC, h: c.H, w: c.W,
		stride: c.Stride, phases: min(k, c.Stride),
		top: c.Pad, left: c.Pad,
		rows: outH + (k-1)/c.Stride,
	}, outW+(k-1)/c.Stride, c.Pad, outW)
	whole := phase{h: outH, w: outW}
	for ch := range c.InC {
		for ky := range k {
			for kx := range k {
				whole.taps = append(whole.taps, in.start(ch, ky, kx))
			}
		}
	}
	return correlation{in: in, outC: c.OutC, outH: outH, outW: outW, stride: 1, phases: []phase{whole}}
}

// backwardCorrelation turns the sum around: dx at row y = s·i + r is the sum
// over the taps ky ≡ r + Pad (mod s) of w[ky] · dy[i + (r+Pad−ky)/s], and the
// same for columns.
func backwardCorrelation(c Conv) correlation {
	s := c.Stride
	top, bottom := reach(c, c.H, c.OutH())
	left, right := reach(c, c.W, c.OutW())
	in := newView(view{
		channels: c.OutC, h: c.OutH(), w: c.OutW(),
		stride: 1, phases: 1,
		top: top, left: left,
		rows: top + c.OutH() + bottom,
	}, left+c.OutW()+right, right, ceil(c.W, s))
	corr := correlation{in: in, outC: c.InC, outH: c.H, outW: c.W, stride: s}
	weights := 0
	for i, taps := range c.phaseTaps() {
		ry, rx := i/s, i%s
		ph := phase{y: ry, x: rx, h: ceil(c.H-ry, s), w: ceil(c.W-rx, s), weights: weights}
		for ch := range c.OutC {
			for _, tap := range taps {
				dy, dx := (ry+c.Pad-tap/c.Kernel)/s, (rx+c.Pad-tap%c.Kernel)/s
				ph.taps = append(ph.taps, in.start(ch, top+dy, left+dx))
			}
		}
		weights += c.InC * len(ph.taps)
		corr.phases = append(corr.phases, ph)
	}
	return corr
}

// phaseTaps lists the taps ky·Kernel + kx that contribute to each of the
// Stride×Stride phases of dx.
func (c Conv) phaseTaps() [][]int {
	taps := make([][]int, c.Stride*c.Stride)
	for ry := range c.Stride {
		for rx := range c.Stride {
			for tap := range c.Kernel * c.Kernel {
				ky, kx := tap/c.Kernel, tap%c.Kernel
				if (ry+c.Pad-ky)%c.Stride == 0 && (rx+c.Pad-kx)%c.Stride == 0 {
					taps[ry*c.Stride+rx] = append(taps[ry*c.Stride+rx], tap)
				}
			}
		}
	}
	return taps
}

// reach is how many zeros before and behind a row (or column) of dy of length
// out the taps see, to compute n rows of dx.
func reach(c Conv, n, out int) (before, behind int) {
	for r := range min(c.Stride, n) {
		for k := range c.Kernel {
			if (r+c.Pad-k)%c.Stride == 0 {
				shift := (r + c.Pad - k) / c.Stride
				before = max(before, -shift)
				behind = max(behind, ceil(n-r, c.Stride)-1+shift-(out-1))
			}
		}
	}
	return before, behind
}

// flip is the job that writes the weights as the matrices [InC, taps] of
// backward's phases; a task is one input channel.
type flip struct {
	*Convolution
	w []float32
}

func (j *flip) task(_ *worker, in int) {
	k2 := j.Kernel * j.Kernel
	for i := range j.backward.phases {
		ph, taps := &j.backward.phases[i], j.flips[i]
		dst := j.flipped[ph.weights+in*len(ph.taps):][:len(ph.taps)]
		for out := range j.OutC {
			filter := j.w[(out*j.InC+in)*k2:][:k2]
			for _, tap := range taps {
				dst[0] = filter[tap]
				dst = dst[1:]
			}
		}
	}
}
