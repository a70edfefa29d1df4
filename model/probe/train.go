package probe

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"

	"mochi/model/engine/cpu"
)

// Outcome is what a recipe came to.
type Outcome struct {
	Final     Accuracy
	Best      Accuracy // of the epoch with the best top-1 on the test set: chosen on it
	BestEpoch int      // counted from 1; 0 where there are no epochs
	Rate      float64  // learning rate; 0 of a regression
	L2        float64  // of a regression: the penalty is L2/2·‖W‖² beside the mean loss
	Tried     []Trial  // what was chosen from, on HeldOut training images
	HeldOut   int
	Logits    []float32 // [n, classes] of the test set, by the final head
}

// Trial is one that was chosen from.
type Trial struct {
	LR   float64 `json:"lr,omitempty"`
	L2   float64 `json:"l2,omitempty"`
	Top1 float64 `json:"top1"` // on the held-out part of the training set
}

// Task is what a recipe needs to know.
type Task struct {
	Team *cpu.Team
	Test Data
	Seed uint64
	// Epoch gives batches of the training set in the order of an epoch, to feed;
	// only those of the samples that in keeps (nil: all). The last may be short.
	Epoch func(ctx context.Context, epoch int, in func(sample int) bool, feed func(x []float32, labels []int32)) error
	// Held is features of the plain view of all training samples that a split is
	// held out of; nil where nothing is chosen. Numbers are those that in is asked.
	Held     *Data
	Progress func(epoch int, of int, what string)
}

// heldShare is one over the part of the training set on which is chosen.
const heldShare = 10

// Hold draws a tenth of n samples, at least one.
func Hold(n int, seed uint64) []bool {
	order := rand.New(rand.NewPCG(seed, 0x686f6c64)).Perm(n) // its own stream
	held := make([]bool, n)
	for _, i := range order[:min(n, max(1, n/heldShare))] {
		held[i] = true
	}
	return held
}

// numbers are the samples that are held out, or those that are not.
func numbers(held []bool, out bool) (at []int) {
	for i, h := range held {
		if h == out {
			at = append(at, i)
		}
	}
	return at
}

// Train runs a recipe of SGD.
func (r Recipe) Train(ctx context.Context, t Task) (*Outcome, error) {
	o := &Outcome{Rate: r.Rates[0]}
	if len(r.Rates) > 1 {
		held := Hold(t.Held.Len(), t.Seed)
		out := t.Held.Take(numbers(held, true))
		heads := NewHeads(t.Team, len(r.Rates), t.Test.Dim, t.Test.Classes, t.Seed)
		err := r.epochs(ctx, t, pass{heads: heads, rates: r.Rates, in: func(i int) bool { return !held[i] }, what: "choosing the learning rate"})
		if err != nil {
			return nil, err
		}
		o.HeldOut = out.Len()
		best := -1.0
		for i, a := range heads.Accuracy(out) {
			o.Tried = append(o.Tried, Trial{LR: r.Rates[i], Top1: a.Top1})
			if a.Top1 > best {
				best, o.Rate = a.Top1, r.Rates[i]
			}
		}
	}
	head := NewHeads(t.Team, 1, t.Test.Dim, t.Test.Classes, t.Seed)
	err := r.epochs(ctx, t, pass{heads: head, rates: []float64{o.Rate}, what: "training", after: func(epoch int) {
		if o.Final = head.Accuracy(t.Test)[0]; o.BestEpoch == 0 || o.Final.Top1 > o.Best.Top1 {
			o.Best, o.BestEpoch = o.Final, epoch+1
		}
	}})
	if err != nil {
		return nil, err
	}
	w, _ := head.Weights(0)
	if slices.ContainsFunc(w, func(v float32) bool { return v-v != 0 }) {
		return nil, errors.New("the head has diverged: the learning rate is too large for these features (--protocol sweep finds one)")
	}
	o.Logits = head.all(t.Test)
	return o, nil
}

// all is the logits of a single head, [n, classes].
func (h *Heads) all(d Data) (logits []float32) {
	h.each(d, func(_, _ int, row []float32) { logits = append(logits, row...) })
	return logits
}

// pass is all epochs of some heads.
type pass struct {
	heads *Heads
	rates []float64 // of each head
	in    func(sample int) bool
	what  string          // is done, for people
	after func(epoch int) // called at the end of each; may be nil
}

// epochs trains heads.
func (r Recipe) epochs(ctx context.Context, t Task, p pass) error {
	now := make([]float64, len(p.rates))
	for epoch := range r.Epochs {
		for i, base := range p.rates {
			now[i] = r.Rate(base, epoch)
		}
		b := batcher{size: r.Batch, step: func(x []float32, labels []int32) { p.heads.Step(x, labels, now, r.WeightDecay) }}
		if err := t.Epoch(ctx, epoch, p.in, b.add); err != nil {
			return err
		}
		b.flush()
		if p.after != nil {
			p.after(epoch)
		}
		if t.Progress != nil {
			t.Progress(epoch+1, r.Epochs, p.what)
		}
	}
	return nil
}

// batcher makes batches of one size of what comes in others.
type batcher struct {
	size   int
	x      []float32
	labels []int32
	step   func(x []float32, labels []int32)
}

func (b *batcher) add(x []float32, labels []int32) {
	dim := len(x) / max(1, len(labels))
	for len(labels) > 0 {
		n := min(b.size-len(b.labels), len(labels))
		b.x, b.labels = append(b.x, x[:n*dim]...), append(b.labels, labels[:n]...)
		if x, labels = x[n*dim:], labels[n:]; len(b.labels) == b.size {
			b.flush()
		}
	}
}

func (b *batcher) flush() {
	if len(b.labels) > 0 {
		b.step(b.x, b.labels)
	}
	b.x, b.labels = b.x[:0], b.labels[:0]
}

// Order is that of n samples in an epoch.
func Order(n int, seed uint64, epoch int) []int {
	return rand.New(rand.NewPCG(seed, 0x6f72646572^uint64(epoch)<<40)).Perm(n)
}

// Cached is an Epoch of features in memory: in epoch e those of view e mod len(views).
func Cached(views []Data, seed uint64) func(context.Context, int, func(int) bool, func([]float32, []int32)) error {
	return func(ctx context.Context, epoch int, in func(int) bool, feed func(x []float32, labels []int32)) error {
		d := views[epoch%len(views)]
		var x []float32
		var labels []int32
		for _, i := range Order(d.Len(), seed, epoch) {
			if in != nil && !in(i) {
				continue
			}
			if x, labels = append(x, d.row(i)...), append(labels, d.Labels[i]); len(labels) == batch {
				if err := ctx.Err(); err != nil {
					return err
				}
				feed(x, labels)
				x, labels = x[:0], labels[:0]
			}
		}
		feed(x, labels)
		return ctx.Err()
	}
}
