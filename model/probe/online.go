package probe

import (
	"fmt"
	"math"

	"mochi/model/engine/cpu"
)

// OnlineRate is the learning rate of an Online while the encoder has its own full
// one. Gradients are of features scaled to a mean square length of 1, with which the
// curvature of the cross-entropy is at most 1: SGD with momentum 0.9 is stable below
// 2·(1+0.9)/1 = 3.8.
const OnlineRate = 1.0

// Online is a linear classifier that is trained beside the encoder, on the features
// as they are while that learns: W [classes, dim] and b [classes], which start at 0.
// Nothing of it goes back into the encoder.
//
// What a BatchNorm group adds to its gradients is a function of the group alone, so
// that they can be summed whoever computes them:
//
//	∂W = 1/(B·m) Σ (softmax(W·f + b) − 1_label) fᵀ,   ∂b = 1/B Σ (softmax(W·f + b) − 1_label)
//
// m, the mean of f·f over the group, makes the size of a step independent of the
// features' scale, which differs between networks and grows during training.
//
// It computes on one thread, that of the caller, in 4·n·dim·classes operations for n
// features. It serves one goroutine.
type Online struct {
	team         *cpu.Team
	dim, classes int

	params, momentum []float32 // [Size()]: W, then b
	logits           []float32
	sums             []float64 // [classes], scratch
}

// NewOnline makes a classifier of features of length dim.
func NewOnline(dim, classes int) *Online {
	if dim < 1 || classes < 1 {
		panic(fmt.Sprintf("probe: %d classes of %d values", classes, dim))
	}
	o := &Online{team: cpu.NewTeam(1), dim: dim, classes: classes, sums: make([]float64, classes)}
	o.params, o.momentum = make([]float32, o.Size()), make([]float32, o.Size())
	return o
}

// Size is the length of its parameters: classes·dim weights, row by row, and classes
// biases.
func (o *Online) Size() int { return o.weights() + o.classes }

func (o *Online) weights() int { return o.classes * o.dim }

// Classes is how many it tells apart, Dim the length of a feature.
func (o *Online) Classes() int { return o.classes }

// Dim is the length of a feature.
func (o *Online) Dim() int { return o.dim }

// State is its parameters and their momentum, [Size()] each, to read.
func (o *Online) State() (params, momentum []float32) { return o.params, o.momentum }

// SetState overwrites them.
func (o *Online) SetState(params, momentum []float32) {
	if len(params) != o.Size() || len(momentum) != o.Size() {
		panic(fmt.Sprintf("probe: %d parameters and %d of momentum, want %d", len(params), len(momentum), o.Size()))
	}
	copy(o.params, params)
	copy(o.momentum, momentum)
}

// Reset begins anew.
func (o *Online) Reset() {
	clear(o.params)
	clear(o.momentum)
}

// Gradients overwrites grads [Size()] with what a group adds to the gradients of a
// batch of so many samples: its features x [n, dim] and their classes [n], −1 where
// unknown, which count nowhere. It returns the sum of the losses, and how many are
// classified rightly.
func (o *Online) Gradients(x []float32, labels []int32, batch int, grads []float32) (loss float64, right int) {
	n, c := len(labels), o.classes
	if len(x) != n*o.dim || len(grads) != o.Size() {
		panic(fmt.Sprintf("probe: %d values of %d features of length %d, %d gradients of %d", len(x), n, o.dim, len(grads), o.Size()))
	}
	logits := o.classify(x, n)
	clear(o.sums)
	for i, label := range labels {
		row := logits[i*c : (i+1)*c]
		if label < 0 || int(label) >= c {
			clear(row)
			continue
		}
		if Place(row, int(label)) == 0 {
			right++
		}
		loss += softmax(row, int(label), float32(1/float64(batch)))
		for j, g := range row {
			o.sums[j] += float64(g)
		}
	}
	bias := grads[o.weights():]
	for j, g := range o.sums {
		bias[j] = float32(g)
	}
	if m := meanSquare(x, n); m > 0 { // NaN stays out
		scale := float32(1 / m)
		for i := range logits {
			logits[i] *= scale
		}
	}
	o.team.TN(c, o.dim, n, logits, x, grads[:o.weights()], false)
	return loss, right
}

// classify is the logits [n, classes] of features x [n, dim].
func (o *Online) classify(x []float32, n int) []float32 {
	if cap(o.logits) < n*o.classes {
		o.logits = make([]float32, n*o.classes)
	}
	logits := o.logits[:n*o.classes]
	o.team.NT(n, o.classes, o.dim, x, o.params[:o.weights()], logits, false)
	bias := o.params[o.weights():]
	for at := 0; at < len(logits); at += o.classes {
		for j, b := range bias {
			logits[at+j] += b
		}
	}
	return logits
}

// meanSquare is the mean of f·f over n features.
func meanSquare(x []float32, n int) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum / float64(max(1, n))
}

// Update is a step of SGD with momentum 0.9 by the sum of all groups' gradients. rate
// is the encoder's learning rate as a part of its full one.
func (o *Online) Update(grads []float32, rate float64) {
	descend(o.params, o.momentum, grads, float32(OnlineRate*rate), 0)
}

// Top1 is the share of features [n, dim] that are classified rightly by parameters as
// State gives them, of those that have a class.
func Top1(x []float32, labels []int32, classes int, params []float32) float64 {
	if classes < 1 || len(labels) == 0 || len(params)%classes != 0 {
		return math.NaN()
	}
	o := NewOnline(len(params)/classes-1, classes)
	copy(o.params, params)
	right, all := 0, 0
	for first := 0; first < len(labels); first += blockRows {
		n := min(blockRows, len(labels)-first)
		logits := o.classify(x[first*o.dim:(first+n)*o.dim], n)
		for i, label := range labels[first : first+n] {
			if label < 0 || int(label) >= classes {
				continue
			}
			all++
			if Place(logits[i*classes:(i+1)*classes], int(label)) == 0 {
				right++
			}
		}
	}
	return float64(right) / float64(max(1, all))
}
