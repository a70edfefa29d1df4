package probe

import (
	"context"
	"math"

	"mochi/model/engine/cpu"
)

// Regression is multinomial logistic regression: it minimises
//
//	mean cross-entropy + L2/2·‖W‖²
//
// over W and b, which is scikit-learn's LogisticRegression with C = 1/(n·L2). The
// bias is not penalised. Parameters and their arithmetic are float64, the two
// matrix products of an evaluation float32.
type Regression struct {
	team *cpu.Team
	data Data
	L2   float64

	w      []float32 // [classes, dim] of the point in hand
	logits []float32 // [blockRows, classes]
	dw     []float32 // of a block
}

// NewRegression prepares one.
func NewRegression(team *cpu.Team, d Data) *Regression {
	size := d.Classes * d.Dim
	return &Regression{team: team, data: d, w: make([]float32, size), dw: make([]float32, size), logits: make([]float32, blockRows*d.Classes)}
}

// Start is where to begin: no weights, no bias.
func (g *Regression) Start() []float64 { return make([]float64, g.data.Classes*(g.data.Dim+1)) }

// Evaluate is the objective at p, W and then b, and its gradient, into grad.
func (g *Regression) Evaluate(p, grad []float64) float64 {
	d := g.data
	size := d.Classes * d.Dim
	for i := range g.w {
		g.w[i] = float32(p[i])
	}
	clear(grad)
	bias := p[size:]
	losses := make([]float64, blockRows)
	loss, scale := 0.0, 1/float64(d.Len())
	for first := 0; first < d.Len(); first += blockRows {
		rows := min(blockRows, d.Len()-first)
		x := d.X[first*d.Dim : (first+rows)*d.Dim]
		logits := g.logits[:rows*d.Classes]
		g.team.NT(rows, d.Classes, d.Dim, x, g.w, logits, false)
		g.team.Run(rows, func(r, _ int) {
			row := logits[r*d.Classes : (r+1)*d.Classes]
			for c := range row {
				row[c] += float32(bias[c])
			}
			losses[r] = softmax(row, int(d.Labels[first+r]), 1)
		})
		g.team.TN(d.Classes, d.Dim, rows, logits, x, g.dw, false)
		for i, v := range g.dw {
			grad[i] += float64(v) * scale
		}
		for r := range rows {
			loss += losses[r] * scale
			for c, v := range logits[r*d.Classes : (r+1)*d.Classes] {
				grad[size+c] += float64(v) * scale
			}
		}
	}
	for i, v := range p[:size] {
		loss += g.L2 / 2 * v * v
		grad[i] += g.L2 * v
	}
	return loss
}

// L-BFGS's settings: how many steps it remembers, when it is done and when it gives
// up.
const (
	memory      = 10
	gradientEnd = 1e-5 // largest component of the gradient
	mostSteps   = 1000
)

// Fit minimises from p on, in place, and returns the number of steps (Liu and
// Nocedal 1989; a line search by bisection to the weak Wolfe conditions, Lewis and
// Overton 2013). It ends, too, where float32 has no further descent to offer.
func (g *Regression) Fit(ctx context.Context, p []float64) (int, error) {
	n := len(p)
	grad, next, nextGrad, direction := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	var pairs []pair
	loss := g.Evaluate(p, grad)
	for step := range mostSteps {
		if err := ctx.Err(); err != nil {
			return step, err
		}
		if largest(grad) < gradientEnd {
			return step, nil
		}
		downhill(direction, grad, pairs)
		slope := dot(direction, grad)
		if !(slope < 0) { // rounding: begin anew along the gradient
			pairs = nil
			downhill(direction, grad, nil)
			slope = dot(direction, grad)
		}
		length := 1.0
		if len(pairs) == 0 {
			length = min(1, 1/math.Sqrt(-slope))
		}
		low, high, found := 0.0, math.Inf(1), false
		var nextLoss float64
		for range 40 {
			for i := range next {
				next[i] = p[i] + length*direction[i]
			}
			nextLoss = g.Evaluate(next, nextGrad)
			if !(nextLoss <= loss+1e-4*length*slope) {
				high = length
			} else if dot(nextGrad, direction) < 0.9*slope {
				low = length
			} else {
				found = true
				break
			}
			if length = (low + high) / 2; math.IsInf(high, 1) {
				length = 2 * low
			}
		}
		if !found && !(nextLoss < loss) {
			return step, nil
		}
		add := pair{s: make([]float64, n), y: make([]float64, n)}
		for i := range n {
			add.s[i], add.y[i] = next[i]-p[i], nextGrad[i]-grad[i]
		}
		if add.rho = dot(add.s, add.y); add.rho > 0 {
			if pairs = append(pairs, add); len(pairs) > memory {
				pairs = pairs[1:]
			}
		}
		copy(p, next)
		copy(grad, nextGrad)
		if loss-nextLoss <= 1e-9*math.Abs(loss) { // below float32's resolution
			return step + 1, nil
		}
		loss = nextLoss
	}
	return mostSteps, nil
}

// pair is a step s and the change y of the gradient on it; rho is s·y.
type pair struct {
	s, y []float64
	rho  float64
}

// downhill is the two-loop recursion: −H·grad.
func downhill(direction, grad []float64, pairs []pair) {
	copy(direction, grad)
	alpha := make([]float64, len(pairs))
	for i := len(pairs) - 1; i >= 0; i-- {
		alpha[i] = dot(pairs[i].s, direction) / pairs[i].rho
		axpy(-alpha[i], pairs[i].y, direction)
	}
	if n := len(pairs); n > 0 {
		scale := pairs[n-1].rho / dot(pairs[n-1].y, pairs[n-1].y)
		for i := range direction {
			direction[i] *= scale
		}
	}
	for i, q := range pairs {
		axpy(alpha[i]-dot(q.y, direction)/q.rho, q.s, direction)
	}
	for i := range direction {
		direction[i] = -direction[i]
	}
}

func dot(a, b []float64) (sum float64) {
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

func axpy(factor float64, x, y []float64) {
	for i, v := range x {
		y[i] += factor * v
	}
}

func largest(x []float64) (most float64) {
	for _, v := range x {
		most = max(most, math.Abs(v))
	}
	return most
}

// Penalties are what a regression chooses from: C of 10⁻⁶ to 10⁵ in quarter decades
// (DINOv2's log_regression.py), for n samples, the strongest first.
func Penalties(n int) (l2 []float64) {
	const steps = 44
	for i := range steps + 1 {
		l2 = append(l2, 1/(math.Pow(10, -6+11*float64(i)/steps)*float64(n)))
	}
	return l2
}

// patience is after how many weaker penalties in a row that are worse than the best
// none weaker is tried. The strongest ones all predict alike: they are not counted, nor
// is anything before one was better than the first.
const patience = 8

// Regress chooses the penalty on a tenth of the training set, each fit beginning
// where the stronger one ended, and fits the best (of equals the strongest) to
// all of it.
func Regress(ctx context.Context, t Task) (*Outcome, error) {
	d := *t.Held
	held := Hold(d.Len(), t.Seed)
	kept, out := d.Take(numbers(held, false)), d.Take(numbers(held, true))
	o := &Outcome{HeldOut: out.Len()}
	g := NewRegression(t.Team, kept)
	p := g.Start()
	best, since, penalty := -1.0, 0, 0.0
	all := Penalties(kept.Len())
	for i, l2 := range all {
		g.L2 = l2
		if _, err := g.Fit(ctx, p); err != nil {
			return nil, err
		}
		a := classifier(t, p).Accuracy(out)[0]
		o.Tried = append(o.Tried, Trial{L2: l2, Top1: a.Top1})
		switch {
		case a.Top1 > best:
			best, since, penalty = a.Top1, 0, l2
		case a.Top1 < best && best > o.Tried[0].Top1:
			since++
		}
		if t.Progress != nil {
			t.Progress(i+1, len(all), "choosing the penalty")
		}
		if since >= patience {
			break
		}
	}
	// The same C: the penalty of a mean over more samples is as much weaker.
	o.L2 = penalty * float64(kept.Len()) / float64(d.Len())
	g = NewRegression(t.Team, d)
	g.L2 = o.L2
	p = g.Start()
	if _, err := g.Fit(ctx, p); err != nil {
		return nil, err
	}
	head := classifier(t, p)
	o.Final = head.Accuracy(t.Test)[0]
	o.Best = o.Final
	o.Logits = head.all(t.Test)
	return o, nil
}

// classifier is the head with the parameters p.
func classifier(t Task, p []float64) *Heads {
	h := NewHeads(t.Team, 1, t.Test.Dim, t.Test.Classes, 0)
	w, b := h.Weights(0)
	for i := range w {
		w[i] = float32(p[i])
	}
	for i := range b {
		b[i] = float32(p[len(w)+i])
	}
	return h
}
