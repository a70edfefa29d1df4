// Package probe trains linear classifiers on frozen features: what the papers'
// tables call linear evaluation. Heads are trained by SGD, several learning rates
// at once on the same batches (Heads, Train); logistic regression is fitted by
// L-BFGS (Fit, Regress). Recipes are the published settings by name.
//
// Features are float32, rows [n, dim], as the encoder gives them: not scaled, since
// the published learning rates are made for that. A head is W [classes, dim] and b
// [classes]; its loss is the mean cross-entropy.
//
// Cost of an epoch of H heads of C classes on n features of length d: 4·n·d·H·C
// floating-point operations in two matrix products, and n·H·C exponentials.
// Results do not depend on the number of threads.
package probe

import (
	"fmt"
	"math"
	"math/rand/v2"

	"mochi/model/engine/cpu"
)

// Data is features with their classes.
type Data struct {
	X       []float32 // [n, Dim]
	Labels  []int32   // [n] in [0, Classes)
	Dim     int
	Classes int
}

// Len is n.
func (d Data) Len() int { return len(d.Labels) }

// row is feature i.
func (d Data) row(i int) []float32 { return d.X[i*d.Dim : (i+1)*d.Dim] }

// Take copies the rows at, in that order.
func (d Data) Take(at []int) Data {
	t := Data{X: make([]float32, 0, len(at)*d.Dim), Labels: make([]int32, 0, len(at)), Dim: d.Dim, Classes: d.Classes}
	for _, i := range at {
		t.X, t.Labels = append(t.X, d.row(i)...), append(t.Labels, d.Labels[i])
	}
	return t
}

// initialDeviation is that of the weights of a new head (He et al. 2020).
const initialDeviation = 0.01

// sgdMomentum is that of every recipe.
const sgdMomentum = 0.9

// Heads are linear classifiers that see the same batches, each with a learning
// rate of its own. They serve one goroutine.
type Heads struct {
	n, dim, classes int

	team           *cpu.Team
	w, v, dw       []float32 // [n·classes, dim]: weights, momentum, gradient
	b, vb, db      []float32 // [n·classes]
	logits         []float32 // [rows, n·classes]
	last           int       // rows of the last Forward
	gradientOfRows []float64 // [n·classes], scratch
}

// NewHeads makes n heads with the same weights ~ N(0, 0.01), drawn with seed, and
// no bias.
func NewHeads(team *cpu.Team, n, dim, classes int, seed uint64) *Heads {
	if n < 1 || dim < 1 || classes < 1 {
		panic(fmt.Sprintf("probe: %d heads of %d classes on %d values", n, classes, dim))
	}
	size := classes * dim
	h := &Heads{
		n: n, dim: dim, classes: classes, team: team,
		w: make([]float32, n*size), v: make([]float32, n*size), dw: make([]float32, n*size),
		b: make([]float32, n*classes), vb: make([]float32, n*classes), db: make([]float32, n*classes),
		gradientOfRows: make([]float64, n*classes),
	}
	rng := rand.New(rand.NewPCG(seed, 0x6c696e656172)) // its own stream
	for i := range size {
		h.w[i] = float32(initialDeviation * rng.NormFloat64())
	}
	for i := 1; i < n; i++ {
		copy(h.w[i*size:], h.w[:size])
	}
	return h
}

// Weights are those of head i, W [classes, dim] and b [classes], to read or to set.
func (h *Heads) Weights(i int) (w, b []float32) {
	size := h.classes * h.dim
	return h.w[i*size : (i+1)*size], h.b[i*h.classes : (i+1)*h.classes]
}

// Forward computes the logits of features x [rows, dim]: [rows, n·classes], the
// heads' own until the next call.
func (h *Heads) Forward(x []float32) []float32 {
	rows, width := len(x)/h.dim, h.n*h.classes
	if cap(h.logits) < rows*width {
		h.logits = make([]float32, rows*width)
	}
	h.logits, h.last = h.logits[:rows*width], rows
	h.team.NT(rows, width, h.dim, x, h.w, h.logits, false)
	h.team.Run(rows, func(r, _ int) {
		row := h.logits[r*width : (r+1)*width]
		for j := range row {
			row[j] += h.b[j]
		}
	})
	return h.logits
}

// Gradients computes those of the mean cross-entropy of each head on features x
// [rows, dim] of the given classes, and returns the losses.
func (h *Heads) Gradients(x []float32, labels []int32) []float64 {
	rows, width := len(labels), h.n*h.classes
	logits := h.Forward(x)
	if h.last != rows {
		panic(fmt.Sprintf("probe: %d features, %d labels", h.last, rows))
	}
	losses := make([]float64, rows*h.n)
	h.team.Run(rows, func(r, _ int) {
		for i := range h.n {
			row := logits[r*width+i*h.classes : r*width+(i+1)*h.classes]
			losses[r*h.n+i] = softmax(row, int(labels[r]), float32(1/float64(rows)))
		}
	})
	h.team.TN(width, h.dim, rows, logits, x, h.dw, false)
	clear(h.gradientOfRows)
	sums := make([]float64, h.n)
	for r := range rows {
		for j, g := range logits[r*width : (r+1)*width] {
			h.gradientOfRows[j] += float64(g)
		}
		for i := range sums {
			sums[i] += losses[r*h.n+i] / float64(rows)
		}
	}
	for j, g := range h.gradientOfRows {
		h.db[j] = float32(g)
	}
	return sums
}

// softmax makes logits the gradient of scale times their cross-entropy with the
// class label, and returns the cross-entropy.
func softmax(logits []float32, label int, scale float32) float64 {
	most := logits[0]
	for _, v := range logits {
		most = max(most, v) // NaN stays
	}
	var sum float64
	mine := float64(logits[label] - most)
	for i, v := range logits {
		e := math.Exp(float64(v - most))
		sum += e
		logits[i] = float32(e)
	}
	factor := float32(1/sum) * scale
	for i := range logits {
		logits[i] *= factor
	}
	logits[label] -= scale
	return math.Log(sum) - mine
}

// Step is one step of SGD with momentum 0.9 on a batch, as PyTorch's: v ← 0.9·v + g +
// decay·w, w ← w − rate·v, with a rate for each head. It returns the losses before.
func (h *Heads) Step(x []float32, labels []int32, rates []float64, decay float64) []float64 {
	losses := h.Gradients(x, labels)
	h.team.Run(h.n*h.classes, func(row, _ int) {
		rate := float32(rates[row/h.classes])
		w, v, g := h.w[row*h.dim:(row+1)*h.dim], h.v[row*h.dim:(row+1)*h.dim], h.dw[row*h.dim:(row+1)*h.dim]
		descend(w, v, g, rate, float32(decay))
		descend(h.b[row:row+1], h.vb[row:row+1], h.db[row:row+1], rate, float32(decay))
	})
	return losses
}

func descend(w, v, g []float32, rate, decay float32) {
	v, g = v[:len(w)], g[:len(w)]
	for i := range w {
		v[i] = sgdMomentum*v[i] + (g[i] + decay*w[i])
		w[i] -= rate * v[i]
	}
}

// blockRows is how many rows are classified at a time.
const blockRows = 1024

// Accuracy is the shares of samples whose class is the first, and one of the
// first five.
type Accuracy struct{ Top1, Top5 float64 }

// Accuracy classifies d by each head.
func (h *Heads) Accuracy(d Data) []Accuracy {
	first, five := make([]int, h.n), make([]int, h.n)
	h.each(d, func(sample, head int, logits []float32) {
		place := Place(logits, int(d.Labels[sample]))
		if place == 0 {
			first[head]++
		}
		if place < 5 {
			five[head]++
		}
	})
	result := make([]Accuracy, h.n)
	for i := range result {
		result[i] = Accuracy{float64(first[i]) / float64(max(1, d.Len())), float64(five[i]) / float64(max(1, d.Len()))}
	}
	return result
}

// each shows the logits of every sample by every head, in order.
func (h *Heads) each(d Data, show func(sample, head int, logits []float32)) {
	for first := 0; first < d.Len(); first += blockRows {
		rows := min(blockRows, d.Len()-first)
		logits := h.Forward(d.X[first*d.Dim : (first+rows)*d.Dim])
		for r := range rows {
			for i := range h.n {
				at := (r*h.n + i) * h.classes
				show(first+r, i, logits[at:at+h.classes])
			}
		}
	}
}

// Place is the number of classes with larger logits than label, ties to the lower
// class; of a head that has diverged all come first.
func Place(logits []float32, label int) int {
	mine := logits[label]
	place := 0
	for class, v := range logits {
		if v != v || mine != mine {
			return len(logits) + 5
		}
		if v > mine || v == mine && class < label {
			place++
		}
	}
	return place
}
