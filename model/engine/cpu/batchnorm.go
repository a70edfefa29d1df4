package cpu

import "math"

// BatchNormEpsilon is ε, torch's default.
const BatchNormEpsilon = 1e-5

// BatchNorm is the shape of a batch normalisation (Ioffe & Szegedy 2015) of
// tensors [Batch, Channels, Pixels], where Pixels = H·W:
//
//	y = γ·(x − μ)/√(σ² + ε) + β     per channel; then max(y, 0) when ReLU is set
//
// Sums are kept in float64.
type BatchNorm struct {
	Batch, Channels, Pixels int
	ReLU                    bool
}

// batchNorm is the job of all three passes; a task is one channel.
type batchNorm struct {
	BatchNorm
	pass                       func(*batchNorm, *worker, int)
	x, y, dy, dx               []float32
	gamma, beta, dgamma, dbeta []float32
	mean, invStd, variance     []float32
}

func (j *batchNorm) task(w *worker, channel int) { j.pass(j, w, channel) }

// BatchNormForward normalises x by the statistics of this batch. It writes y
// and, per channel, the mean, 1/√(σ²+ε) with the biased variance σ² (both for
// BatchNormBackward), and the variance with Bessel's correction n/(n−1), which
// with the mean is the statistic pair of the running averages. A channel must
// have n = Batch·Pixels ≥ 2 values.
func (t *Team) BatchNormForward(bn BatchNorm, x, gamma, beta, y, mean, invStd, variance []float32) {
	bn.check("BatchNormForward", x, y, gamma, beta, mean, invStd, variance)
	if bn.Batch*bn.Pixels < 2 {
		panic("kernel: BatchNormForward: the statistics of a channel need at least 2 values")
	}
	t.batchNorm(batchNorm{
		BatchNorm: bn, pass: (*batchNorm).forward,
		x: x, y: y, gamma: gamma, beta: beta, mean: mean, invStd: invStd, variance: variance,
	})
}

// BatchNormEval normalises x by running statistics, which take the place of μ
// and σ². y may be x.
func (t *Team) BatchNormEval(bn BatchNorm, x, gamma, beta, runningMean, runningVar, y []float32) {
	bn.check("BatchNormEval", x, y, gamma, beta, runningMean, runningVar)
	t.batchNorm(batchNorm{
		BatchNorm: bn, pass: (*batchNorm).eval,
		x: x, y: y, gamma: gamma, beta: beta, mean: runningMean, variance: runningVar,
	})
}

// BatchNormBackward computes dx, dgamma and dbeta from dy, forward's input x,
// its output y (whose zeros say where the ReLU cut; not read and may be nil
// without ReLU), and the mean and invStd it wrote. dx may be dy itself.
//
//	dβ = Σ dy    dγ = Σ dy·x̂    dx = γ/√(σ²+ε) · (dy − dβ/n − x̂·dγ/n)
func (t *Team) BatchNormBackward(bn BatchNorm, x, y, dy, gamma, mean, invStd, dx, dgamma, dbeta []float32) {
	bn.check("BatchNormBackward", x, dy, gamma, mean, invStd, dgamma, dbeta)
	need("BatchNormBackward", "dx", len(dx), len(x))
	if bn.ReLU {
		need("BatchNormBackward", "y", len(y), len(x))
	}
	t.batchNorm(batchNorm{
		BatchNorm: bn, pass: (*batchNorm).backward,
		x: x, y: y, dy: dy, dx: dx, gamma: gamma, dgamma: dgamma, dbeta: dbeta, mean: mean, invStd: invStd,
	})
}

func (bn BatchNorm) check(op string, x, y []float32, perChannel ...[]float32) {
	n := bn.Batch * bn.Channels * bn.Pixels
	need(op, "input", len(x), n)
	need(op, "output or its gradient", len(y), n)
	for _, p := range perChannel {
		need(op, "a per-channel vector", len(p), bn.Channels)
	}
}

func (t *Team) batchNorm(j batchNorm) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.jobs.batchNorm = j
	t.do(j.Channels, &t.jobs.batchNorm)
	t.jobs.batchNorm = batchNorm{}
}

// of is the part of a tensor that belongs to one sample and channel.
func (j *batchNorm) of(x []float32, sample, channel int) []float32 {
	return x[(sample*j.Channels+channel)*j.Pixels:][:j.Pixels]
}

func (j *batchNorm) forward(w *worker, c int) {
	v, l := &w.set.vectors, &w.lanes
	*l = lanes{}
	for s := range j.Batch {
		v.moments(l, j.of(j.x, s, c))
	}
	n := float64(j.Batch * j.Pixels)
	sum, squares := l.total()
	mean := sum / n
	variance := max(squares/n-float64(mean*mean), 0)
	if math.IsNaN(squares) {
		variance = squares
	}
	j.mean[c] = float32(mean)
	j.invStd[c] = float32(1 / math.Sqrt(variance+BatchNormEpsilon))
	j.variance[c] = float32(variance * n / (n - 1))
	j.apply(v, c, j.invStd[c])
}

func (j *batchNorm) eval(w *worker, c int) {
	j.apply(&w.set.vectors, c, float32(1/math.Sqrt(float64(j.variance[c])+BatchNormEpsilon)))
}

// apply writes y of one channel.
func (j *batchNorm) apply(v *vectors, c int, invStd float32) {
	normalize := v.normalize
	if j.ReLU {
		normalize = v.normalizeReLU
	}
	for s := range j.Batch {
		normalize(j.of(j.y, s, c), j.of(j.x, s, c), j.mean[c], j.gamma[c]*invStd, j.beta[c])
	}
}

func (j *batchNorm) backward(w *worker, c int) {
	v, l := &w.set.vectors, &w.lanes
	*l = lanes{}
	for s := range j.Batch {
		if j.ReLU {
			v.gradientsReLU(l, j.of(j.dy, s, c), j.of(j.x, s, c), j.of(j.y, s, c))
		} else {
			v.gradients(l, j.of(j.dy, s, c), j.of(j.x, s, c))
		}
	}
	n := float64(j.Batch * j.Pixels)
	sum, dot := l.total()
	invStd := float64(j.invStd[c])
	dgamma := (dot - float64(sum*float64(j.mean[c]))) * invStd
	j.dgamma[c] = float32(dgamma)
	j.dbeta[c] = float32(sum)
	p := &w.projection
	*p = projection{
		gMean: float32(sum / n),
		mean:  j.mean[c],
		slope: float32(invStd * dgamma / n),
		scale: j.gamma[c] * j.invStd[c],
	}
	for s := range j.Batch {
		if j.ReLU {
			v.projectReLU(j.of(j.dx, s, c), j.of(j.dy, s, c), j.of(j.x, s, c), j.of(j.y, s, c), p)
		} else {
			v.project(j.of(j.dx, s, c), j.of(j.dy, s, c), j.of(j.x, s, c), p)
		}
	}
}
