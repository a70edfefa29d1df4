package cpu

import "math"

// MaxPool is the geometry of a maximum over square windows of tensors
// [B, C, H, W]; padding counts as −∞.
type MaxPool struct {
	C, H, W             int
	Kernel, Stride, Pad int // Pad at most Kernel/2
}

// OutH is the height of the output, pixels.
func (p MaxPool) OutH() int { return (p.H+2*p.Pad-p.Kernel)/p.Stride + 1 }

// OutW is the width of the output, pixels.
func (p MaxPool) OutW() int { return (p.W+2*p.Pad-p.Kernel)/p.Stride + 1 }

// MaxPoolForward computes y [batch, C, OutH, OutW] from x [batch, C, H, W] and
// keeps in argmax, of y's length, which pixel of its plane every maximum came
// from: the first in row order, or the first NaN.
func (t *Team) MaxPoolForward(p MaxPool, batch int, x, y []float32, argmax []int32) {
	need("MaxPoolForward", "x", len(x), batch*p.C*p.H*p.W)
	need("MaxPoolForward", "y", len(y), batch*p.C*p.OutH()*p.OutW())
	need("MaxPoolForward", "argmax", len(argmax), len(y))
	t.maxPool(batch, maxPool{MaxPool: p, x: x, y: y, argmax: argmax})
}

// MaxPoolBackward computes dx [batch, C, H, W]: every dy goes to the pixel
// that argmax names.
func (t *Team) MaxPoolBackward(p MaxPool, batch int, dy []float32, argmax []int32, dx []float32) {
	need("MaxPoolBackward", "dx", len(dx), batch*p.C*p.H*p.W)
	need("MaxPoolBackward", "dy", len(dy), batch*p.C*p.OutH()*p.OutW())
	need("MaxPoolBackward", "argmax", len(argmax), len(dy))
	t.maxPool(batch, maxPool{MaxPool: p, backward: true, x: dx, y: dy, argmax: argmax})
}

// maxPool is the job of both passes; a task is one plane.
type maxPool struct {
	MaxPool
	backward bool
	x, y     []float32
	argmax   []int32
}

func (t *Team) maxPool(batch int, j maxPool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.jobs.maxPool = j
	t.do(batch*j.C, &t.jobs.maxPool)
	t.jobs.maxPool = maxPool{}
}

func (j *maxPool) task(_ *worker, plane int) {
	in, out := j.H*j.W, j.OutH()*j.OutW()
	x := j.x[plane*in:][:in]
	y, argmax := j.y[plane*out:][:out], j.argmax[plane*out:][:out]
	if j.backward {
		clear(x)
		for i, v := range y {
			x[argmax[i]] += v
		}
		return
	}
	outW := j.OutW()
	for i := range y {
		y[i], argmax[i] = j.window(x, i/outW*j.Stride-j.Pad, i%outW*j.Stride-j.Pad)
	}
}

// window finds the maximum of the window whose corner is (top, left).
func (j *maxPool) window(x []float32, top, left int) (best float32, at int32) {
	best, at = float32(math.Inf(-1)), -1
	for r := max(top, 0); r < min(top+j.Kernel, j.H); r++ {
		for c := max(left, 0); c < min(left+j.Kernel, j.W); c++ {
			v := x[r*j.W+c]
			if at < 0 || v > best || v != v && best == best {
				best, at = v, int32(r*j.W+c)
			}
		}
	}
	return best, at
}

// GlobalAvgPoolForward computes y [rows], the mean of every row of
// x [rows, pixels]; rows = B·C. It sums in float64.
func (t *Team) GlobalAvgPoolForward(rows, pixels int, x, y []float32) {
	need("GlobalAvgPoolForward", "x", len(x), rows*pixels)
	need("GlobalAvgPoolForward", "y", len(y), rows)
	t.avgPool(avgPool{rows: rows, pixels: pixels, x: x, y: y})
}

// GlobalAvgPoolBackward computes dx [rows, pixels] = dy [rows] / pixels.
func (t *Team) GlobalAvgPoolBackward(rows, pixels int, dy, dx []float32) {
	need("GlobalAvgPoolBackward", "dx", len(dx), rows*pixels)
	need("GlobalAvgPoolBackward", "dy", len(dy), rows)
	t.avgPool(avgPool{rows: rows, pixels: pixels, backward: true, x: dx, y: dy})
}

// avgPool is the job of both passes; a task is a few rows.
type avgPool struct {
	rows, pixels int
	backward     bool
	x, y         []float32
}

const avgPoolRows = 64

func (t *Team) avgPool(j avgPool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.jobs.avgPool = j
	t.do(ceil(j.rows, avgPoolRows), &t.jobs.avgPool)
	t.jobs.avgPool = avgPool{}
}

func (j *avgPool) task(_ *worker, task int) {
	for r := task * avgPoolRows; r < min((task+1)*avgPoolRows, j.rows); r++ {
		x := j.x[r*j.pixels:][:j.pixels]
		if j.backward {
			g := j.y[r] / float32(j.pixels)
			for i := range x {
				x[i] = g
			}
			continue
		}
		var sum float64
		for _, v := range x {
			sum += float64(v)
		}
		j.y[r] = float32(sum / float64(j.pixels))
	}
}
