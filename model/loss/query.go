package loss

import (
	"fmt"
	"math"

	"mochi/model/nearest"
)

// Guards against a mixture whose parts nearly cancel. Below cancels, ρ² from
// the closed form has lost its digits to rounding and the mixture is
// recomputed element by element; below minNorm its direction is rounding
// noise, and the point is left shorter than 1: h = h̃/max(‖h̃‖, minNorm).
const (
	cancels = 0.1  // of ρ²
	minNorm = 1e-3 // of ρ
)

var minusInf = float32(math.Inf(-1))

// worker is one thread's scratch.
type worker struct {
	l          *Loss
	background func() // run, then tell the WaitGroup; made once

	hard    *nearest.Selection // nil without mixing
	byShard []int32            // slots of the hard negatives, by shard, then rank
	start   []int32            // [V+1] where each shard begins in byShard

	points []point // [s+s′]
}

// point is one synthetic negative: its similarity with the query and its
// coefficients. A point mixed with the query has i = −1.
type point struct {
	i, j   int32
	wi, wj float32 // α/ρ and (1−α)/ρ; for the query β/ρ′ and (1−β)/ρ′
	sim    float64
}

func newWorker(l *Loss) *worker {
	w := &worker{l: l, points: make([]point, l.cfg.S+l.cfg.S2)}
	if l.cfg.N > 0 {
		w.hard = nearest.New(l.cfg.N)
		w.byShard = make([]int32, l.cfg.N)
		w.start = make([]int32, l.cfg.Shards+1)
	}
	w.background = func() {
		defer l.wg.Done()
		w.run()
	}
	return w
}

func (w *worker) bytes() int64 {
	n := int64(24*len(w.points) + 4*len(w.byShard) + 4*len(w.start))
	if w.hard != nil {
		n += w.hard.Bytes()
	}
	return n
}

// run takes rows of the block until none is left.
func (w *worker) run() {
	for {
		r := int(w.l.next.Add(1)) - 1
		if r >= w.l.count {
			return
		}
		w.l.results[r] = w.query(r)
	}
}

// query turns row r of the logits, q·n for every slot, into the weights e_n
// that the slots have in the gradient, with the synthetic points scattered
// onto them.
func (w *worker) query(r int) (res result) {
	l := w.l
	b := l.first + r
	row := l.logits[r*l.k : (r+1)*l.k]
	q := l.in.Q[b*l.dim : (b+1)*l.dim]
	res.pos = dot64(q, l.in.Pos[b*l.dim:(b+1)*l.dim])

	eligible := w.exclude(row, b)
	mix := l.in.Mix && l.cfg.N > 0
	hardest, sum := w.scan(row, len(row)-eligible, mix)
	if bad := sum + res.pos; math.IsNaN(bad) || math.IsInf(bad, 0) {
		return result{z: 1, err: fmt.Errorf("similarity is %w: training has diverged (lower the learning rate)", ErrNotFinite)}
	}
	if eligible > 0 {
		res.negSim = sum / float64(eligible)
	}
	res.outranks = res.pos > hardest

	var points []point
	if mix {
		var err error
		if points, err = w.mix(row, q, b, &res); err != nil {
			return result{z: 1, err: err}
		}
	}
	for i := range points {
		hardest = max(hardest, points[i].sim)
	}
	res.outranksHard = res.pos > hardest

	// Σe relative to the largest logit.
	top := max(hardest, res.pos)
	invT := 1 / l.cfg.Temperature
	res.negatives = l.exp.row(row, top, invT)
	for i := range points {
		p := &points[i]
		e := l.exp.exp((p.sim - top) * invT)
		res.negatives += e
		if p.i >= 0 {
			row[p.i] += float32(e) * p.wi
		} else {
			res.qWeight += e * float64(p.wi)
		}
		row[p.j] += float32(e) * p.wj
	}
	pos := l.exp.exp((res.pos - top) * invT)
	res.z = res.negatives + pos
	if pos == 1 { // keeps the digits of a small loss
		res.loss = math.Log1p(res.negatives)
	} else {
		res.loss = math.Log(res.z) + (top-res.pos)*invT
	}
	return res
}

// exclude drops the slots of the query's class (class oracle) by setting
// their similarity to −∞, and returns how many are left.
func (w *worker) exclude(row []float32, b int) int {
	in := &w.l.in
	if in.Labels == nil || in.Labels[b] < 0 {
		return len(row)
	}
	label, left := in.Labels[b], len(row)
	for i, other := range in.QueueLabels {
		if other == label {
			row[i] = minusInf
			left--
		}
	}
	return left
}

// scan finds the largest similarity (−∞ when there is none) and the sum of
// all but those dropped, and fills w.hard when the hardest are wanted.
func (w *worker) scan(row []float32, dropped int, wantHard bool) (hardest, sum float64) {
	if wantHard {
		w.hard.Reset()
		w.hard.Scan(row, 0)
	}
	top := minusInf
	if dropped > 0 {
		for _, c := range row {
			if c == minusInf {
				dropped--
				continue
			}
			sum += float64(c)
			if c > top {
				top = c
			}
		}
		if dropped < 0 { // −∞ that nobody put there
			sum = math.NaN()
		}
		return float64(top), sum
	}
	var sums [4]float64
	for ; len(row) >= 4; row = row[4:] {
		for i, c := range row[:4] {
			sums[i] += float64(c)
			if c > top {
				top = c
			}
		}
	}
	for _, c := range row {
		sums[0] += float64(c)
		if c > top {
			top = c
		}
	}
	return float64(top), (sums[0] + sums[1]) + (sums[2] + sums[3])
}

// mix draws the synthetic points of query b and computes their similarities
// and coefficients.
func (w *worker) mix(row, q []float32, b int, res *result) ([]point, error) {
	l := w.l
	hard := w.hard.Sorted()
	n := len(hard)
	if n == 0 {
		return nil, nil
	}
	for _, key := range hard {
		res.hardSim += float64(key.Similarity())
	}
	res.hardSim /= float64(n)

	w.groupByShard(hard)
	d := drawer{seed: l.cfg.Seed, step: l.in.Step, sample: l.in.Samples[b]}
	queue := l.in.Queue
	points := w.points
	for t := range points[:l.cfg.S] {
		var i, j int32
		var alpha float32
		if l.in.Draws == nil {
			i, j, alpha = d.pair(t, w.byShard[:n], w.start)
		} else {
			var err error
			if i, j, alpha, err = l.in.Draws.pair(b*l.cfg.S+t, hard); err != nil {
				return nil, err
			}
		}
		ni, nj := queue[int(i)*l.dim:][:l.dim], queue[int(j)*l.dim:][:l.dim]
		points[t] = mixture(alpha, row[i], row[j], dot(ni, nj), q, ni, nj)
		points[t].i, points[t].j = i, j
	}
	for t := range points[l.cfg.S:] {
		var j int32
		var beta float32
		if l.in.Draws == nil {
			j, beta = d.withQuery(t, w.byShard[:n])
		} else {
			var err error
			if j, beta, err = l.in.Draws.withQuery(b*l.cfg.S2+t, hard); err != nil {
				return nil, err
			}
		}
		nj := queue[int(j)*l.dim:][:l.dim]
		p := &points[l.cfg.S+t]
		*p = mixture(beta, 1, row[j], row[j], q, q, nj)
		p.i, p.j = -1, j
	}
	return points, nil
}

// mixture is the point a·x + (1−a)·y, normalised, from cx = q·x, cy = q·y and
// xy = x·y for vectors of length 1.
func mixture(a, cx, cy, xy float32, q, x, y []float32) point {
	wa, wb := float64(a), 1-float64(a)
	rho2 := float64(wa*wa) + float64(wb*wb) + float64(2*wa*wb)*float64(xy)
	sim := float64(wa*float64(cx)) + float64(wb*float64(cy))
	if rho2 < cancels {
		rho2, sim = 0, 0
		for i := range q {
			h := float64(wa*float64(x[i])) + float64(wb*float64(y[i]))
			rho2 += float64(h * h)
			sim += float64(float64(q[i]) * h)
		}
	}
	rho := max(math.Sqrt(rho2), minNorm)
	return point{wi: float32(wa / rho), wj: float32(wb / rho), sim: sim / rho}
}

// groupByShard lists the hard negatives by virtual shard, then rank.
func (w *worker) groupByShard(hard []nearest.Key) {
	v := w.l.cfg.Shards
	start := w.start
	clear(start)
	for _, key := range hard {
		start[int(key.Index())%v+1]++
	}
	for s := range v {
		start[s+1] += start[s]
	}
	// Fill using start as cursors: afterwards start[s] is where shard s+1
	// begins, so shift back.
	for _, key := range hard {
		s := int(key.Index()) % v
		w.byShard[start[s]] = key.Index()
		start[s]++
	}
	copy(start[1:], start[:v])
	start[0] = 0
}

// dot is x·y with a fixed order of summation.
func dot(x, y []float32) float32 {
	var s0, s1, s2, s3 float32
	y = y[:len(x)]
	i := 0
	for ; i+4 <= len(x); i += 4 {
		s0 += float32(x[i] * y[i])
		s1 += float32(x[i+1] * y[i+1])
		s2 += float32(x[i+2] * y[i+2])
		s3 += float32(x[i+3] * y[i+3])
	}
	for ; i < len(x); i++ {
		s0 += float32(x[i] * y[i])
	}
	return (s0 + s1) + (s2 + s3)
}

func dot64(x, y []float32) float64 {
	var s float64
	for i := range x {
		s += float64(x[i]) * float64(y[i])
	}
	return s
}
