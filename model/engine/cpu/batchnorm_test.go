package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

var batchNormShapes = []BatchNorm{
	{2, 1, 1, false}, {1, 3, 2, true}, {4, 5, 49, true}, {3, 2, 784, false}, {7, 4, 17, true},
}

// plainBatchNorm is the definition, and its gradient by the chain rule through
// mean and variance.
func plainBatchNorm(bn BatchNorm, x, gamma, beta, dy []float32) (y, mean, variance, dx, dgamma, dbeta []float64) {
	n := float64(bn.Batch * bn.Pixels)
	y, dx = make([]float64, len(x)), make([]float64, len(x))
	for c := range bn.Channels {
		var at []int
		for b := range bn.Batch {
			for p := range bn.Pixels {
				at = append(at, (b*bn.Channels+c)*bn.Pixels+p)
			}
		}
		var mu, v float64
		for _, i := range at {
			mu += float64(x[i]) / n
		}
		for _, i := range at {
			v += (float64(x[i]) - mu) * (float64(x[i]) - mu) / n
		}
		sd := math.Sqrt(v + BatchNormEpsilon)
		var dg, db, dMu, dV float64
		for _, i := range at {
			hat := (float64(x[i]) - mu) / sd
			y[i] = hat*float64(gamma[c]) + float64(beta[c])
			g := float64(dy[i])
			if bn.ReLU && y[i] <= 0 {
				y[i], g = 0, 0
			}
			dg += g * hat
			db += g
			dMu -= g * float64(gamma[c]) / sd
			dV -= g * float64(gamma[c]) * hat / (2 * sd * sd)
			dx[i] = g * float64(gamma[c]) / sd
		}
		for _, i := range at {
			dx[i] += dMu/n + dV*2*(float64(x[i])-mu)/n
		}
		mean, variance = append(mean, mu), append(variance, v*n/(n-1))
		dgamma, dbeta = append(dgamma, dg), append(dbeta, db)
	}
	return
}

func TestBatchNorm(t *testing.T) {
	forEachISA(t, func(t *testing.T, team *Team) {
		for _, bn := range batchNormShapes {
			r := rand.New(rand.NewPCG(5, 6))
			n, c := bn.Batch*bn.Channels*bn.Pixels, bn.Channels
			x, dy, gamma, beta := random(r, n), random(r, n), random(r, c), random(r, c)
			for i := range x {
				x[i] += 3 // a mean well away from 0
			}
			wantY, wantMean, wantVar, wantDX, wantDG, wantDB := plainBatchNorm(bn, x, gamma, beta, dy)

			y, mean, invStd, variance := garbage(n), garbage(c), garbage(c), garbage(c)
			team.BatchNormForward(bn, x, gamma, beta, y, mean, invStd, variance)
			name := fmt.Sprintf("%+v ", bn)
			near(t, name+"y", y, wantY, 1e-5)
			near(t, name+"mean", mean, wantMean, 1e-6)
			near(t, name+"variance", variance, wantVar, 1e-6)

			dx, dgamma, dbeta := garbage(n), garbage(c), garbage(c)
			team.BatchNormBackward(bn, x, y, dy, gamma, mean, invStd, dx, dgamma, dbeta)
			near(t, name+"dx", dx, wantDX, 1e-5)
			near(t, name+"dgamma", dgamma, wantDG, 1e-5)
			near(t, name+"dbeta", dbeta, wantDB, 1e-5)

			team.BatchNormBackward(bn, x, y, dy, gamma, mean, invStd, dy, dgamma, dbeta)
			same(t, name+"dx in place", dy, dx)
		}
	})
}

func TestBatchNormEval(t *testing.T) {
	bn := BatchNorm{Batch: 2, Channels: 3, Pixels: 21, ReLU: true}
	r := rand.New(rand.NewPCG(7, 8))
	n := bn.Batch * bn.Channels * bn.Pixels
	x, gamma, beta, mean, variance := random(r, n), random(r, 3), random(r, 3), random(r, 3), []float32{0.5, 2, 0}
	want := make([]float64, n)
	for i, v := range x {
		c := i / bn.Pixels % bn.Channels
		want[i] = (float64(v)-float64(mean[c]))/math.Sqrt(float64(variance[c])+1e-5)*float64(gamma[c]) + float64(beta[c])
		want[i] = max(want[i], 0)
	}
	forEachISA(t, func(t *testing.T, team *Team) {
		y := garbage(n)
		team.BatchNormEval(bn, x, gamma, beta, mean, variance, y)
		near(t, "y", y, want, 1e-5)
	})
}

// TestBatchNormConstantChannel: without variance, ε alone keeps the result
// finite.
func TestBatchNormConstantChannel(t *testing.T) {
	forEachISA(t, func(t *testing.T, team *Team) {
		bn := BatchNorm{Batch: 5, Channels: 1, Pixels: 7}
		x := make([]float32, 35)
		for i := range x {
			x[i] = 1e3 + 0.1
		}
		y, mean, invStd, variance := garbage(35), garbage(1), garbage(1), garbage(1)
		team.BatchNormForward(bn, x, []float32{2}, []float32{0.25}, y, mean, invStd, variance)
		for i, v := range y {
			if math.Abs(float64(v)-0.25) > 1e-3 {
				t.Fatalf("y[%d] = %v, want beta", i, v)
			}
		}
		if variance[0] < 0 || variance[0] > 1e-9 {
			t.Errorf("variance %v, want 0", variance[0])
		}
	})
}

// TestNaNIsSeen: a NaN must come out, not be turned into 0 by a ReLU.
func TestNaNIsSeen(t *testing.T) {
	nan := float32(math.NaN())
	forEachISA(t, func(t *testing.T, team *Team) {
		for _, at := range []int{0, 20, 39} {
			x, y := make([]float32, 40), make([]float32, 40)
			x[at] = nan
			bn := BatchNorm{Batch: 1, Channels: 1, Pixels: 40, ReLU: true}
			one := []float32{1}
			team.BatchNormForward(bn, x, one, one, y, make([]float32, 1), make([]float32, 1), make([]float32, 1))
			if y[at] == y[at] {
				t.Errorf("BatchNorm made %v of a NaN", y[at])
			}
			team.ReLU(x, y)
			if y[at] == y[at] {
				t.Errorf("ReLU made %v of a NaN", y[at])
			}
			team.AddReLU(x, make([]float32, 40), y)
			if y[at] == y[at] {
				t.Errorf("AddReLU made %v of a NaN", y[at])
			}
			p := MaxPool{C: 1, H: 5, W: 8, Kernel: 3, Stride: 1, Pad: 1}
			argmax := make([]int32, 40)
			team.MaxPoolForward(p, 1, x, y, argmax)
			team.MaxPoolBackward(p, 1, y, argmax, x)
			if y[at] == y[at] {
				t.Errorf("MaxPool made %v of a NaN", y[at])
			}
		}
	})
}

func TestBatchNormNeedsTwoValues(t *testing.T) {
	team := NewTeam(1)
	defer team.Close()
	defer func() {
		if recover() == nil {
			t.Error("a channel of one value has no variance, and was accepted")
		}
	}()
	one := make([]float32, 1)
	team.BatchNormForward(BatchNorm{1, 1, 1, false}, one, one, one, one, one, one, one)
}
