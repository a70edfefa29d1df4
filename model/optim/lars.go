package optim

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"mochi/model/network"
)

// Trust is LARS's coefficient η, as in the reference implementations of
// Barlow Twins and MoCo v3.
const Trust = 0.001

// LARS turns gradients into those that make SGD the layer-wise adaptive one of
// You et al. 2017, in the form of facebookresearch/moco-v3. Of a tensor w with
// more than one dimension, gradient g:
//
//	u ← g + λ·w
//	g ← q·u,  q = η·‖w‖/‖u‖  (1 where either is 0)
//
// Vectors (BatchNorm's weights and biases, and those of linear layers) keep
// their gradient, without weight decay. Momentum and learning rate follow in
// engine.Update, whose weight decay must be 0.
//
// Norms are float64 sums over pieces of fixed size, added in their order:
// results do not depend on the number of threads, and all replicas get the
// same bits. u and g are rounded to float32 at each operation.
type LARS struct {
	decay   float32
	pieces  []piece
	tensors []tensor
	threads int

	weights, grads []float32
	scaling        bool // the second pass
	next           atomic.Int64
	running        sync.WaitGroup
	background     func() // made once, so that a step allocates nothing
}

// piece is a part of one tensor with more than one dimension.
type piece struct {
	tensor, from, to int
	w, u             float64 // Σ w², Σ u²
}

type tensor struct {
	w, u float64
	q    float32
}

// pieceLen is how many values a thread takes at a time.
const pieceLen = 1 << 15

// NewLARS makes LARS for a network's parameters.
func NewLARS(net *network.Network, weightDecay float64, threads int) *LARS {
	l := &LARS{decay: float32(weightDecay), threads: max(threads, 1)}
	for _, t := range net.Params {
		if len(t.Shape) < 2 {
			continue
		}
		for from := 0; from < t.Size; from += pieceLen {
			l.pieces = append(l.pieces, piece{tensor: len(l.tensors), from: t.Offset + from, to: t.Offset + min(from+pieceLen, t.Size)})
		}
		l.tensors = append(l.tensors, tensor{})
	}
	l.background = func() {
		defer l.running.Done()
		l.work()
	}
	return l
}

// Adapt overwrites the gradients [NumParams] of the weights [NumParams]. It is
// not safe for concurrent use.
func (l *LARS) Adapt(weights, grads []float32) {
	if len(weights) != len(grads) {
		panic(fmt.Sprintf("optim: LARS: %d weights, %d gradients", len(weights), len(grads)))
	}
	l.weights, l.grads = weights, grads
	l.pass(false)
	clear(l.tensors)
	for _, p := range l.pieces {
		l.tensors[p.tensor].w += p.w
		l.tensors[p.tensor].u += p.u
	}
	for i := range l.tensors {
		t := &l.tensors[i]
		t.q = 1
		if t.w > 0 && t.u > 0 {
			t.q = float32(Trust * math.Sqrt(t.w) / math.Sqrt(t.u))
		}
	}
	l.pass(true)
	l.weights, l.grads = nil, nil
}

func (l *LARS) pass(scaling bool) {
	l.scaling = scaling
	l.next.Store(0)
	l.running.Add(l.threads - 1)
	for range l.threads - 1 {
		go l.background()
	}
	l.work()
	l.running.Wait()
}

func (l *LARS) work() {
	for {
		i := int(l.next.Add(1)) - 1
		if i >= len(l.pieces) {
			return
		}
		p := &l.pieces[i]
		w, g := l.weights[p.from:p.to], l.grads[p.from:p.to]
		if l.scaling {
			scale(w, g, l.decay, l.tensors[p.tensor].q)
		} else {
			p.w, p.u = squares(w, g, l.decay)
		}
	}
}

// squares is Σ w² and Σ u².
func squares(w, g []float32, decay float32) (ww, uu float64) {
	g = g[:len(w)]
	for i, x := range w {
		u := float64(g[i] + float32(decay*x))
		ww += float64(float64(x) * float64(x))
		uu += float64(u * u)
	}
	return ww, uu
}

func scale(w, g []float32, decay, q float32) {
	g = g[:len(w)]
	for i, x := range w {
		g[i] = q * (g[i] + float32(decay*x))
	}
}
