package probe

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Gradients are the derivatives of the cross-entropy of those that have a class, the
// weights' over the features' mean square.
func TestOnlineGradients(t *testing.T) {
	d := clouds(7, 5, 3, 1, 3)
	d.Labels[2] = -1
	o := NewOnline(5, 3)
	rng := rand.New(rand.NewPCG(4, 5))
	for i := range o.params {
		o.params[i] = float32(rng.NormFloat64() / 2)
	}
	const batch = 20
	grads := make([]float32, o.Size())
	sum, right := o.Gradients(d.X, d.Labels, batch, grads)

	known := d.Take([]int{0, 1, 3, 4, 5, 6})
	value := func(p []float64) float64 { return loss(known, p[:15], p[15:]) * float64(known.Len()) }
	p := wide(o.params)
	if want := value(p); math.Abs(sum-want) > 1e-5*want {
		t.Errorf("loss %v, want %v", sum, want)
	}
	square := 0.0
	for _, x := range d.X {
		square += float64(x) * float64(x) / 7
	}
	for i := range p {
		const h = 1e-5
		was := p[i]
		p[i] = was + h
		above := value(p)
		p[i] = was - h
		want := (above - value(p)) / (2 * h) / batch
		if p[i] = was; i < 15 {
			want /= square
		}
		if math.Abs(float64(grads[i])-want) > 1e-6 {
			t.Errorf("gradient %d is %v, want %v", i, grads[i], want)
		}
	}
	hits := 0
	for i := range known.Len() {
		logits := make([]float32, 3)
		for c := range logits {
			for j, x := range known.row(i) {
				logits[c] += x * o.params[c*5+j]
			}
			logits[c] += o.params[15+c]
		}
		if Place(logits, int(known.Labels[i])) == 0 {
			hits++
		}
	}
	if right != hits {
		t.Errorf("%d right, want %d", right, hits)
	}
	if got := Top1(d.X, d.Labels, 3, o.params); math.Abs(got-float64(hits)/6) > 1e-12 {
		t.Errorf("accuracy %v, want %d of 6", got, hits)
	}
}

// Features a thousand times as large are learned as fast.
func TestOnlineLearnsWhateverTheScale(t *testing.T) {
	for _, scale := range []float32{0.01, 1, 1000} {
		d := clouds(512, 16, 4, 0.5, 3)
		for i := range d.X {
			d.X[i] *= scale
		}
		o := NewOnline(16, 4)
		grads := make([]float32, o.Size())
		for range 40 {
			o.Gradients(d.X, d.Labels, d.Len(), grads)
			o.Update(grads, 1)
		}
		if got := Top1(d.X, d.Labels, 4, o.params); got < 0.99 {
			t.Errorf("scale %v: accuracy %v", scale, got)
		}
	}
}

// Features that are all 0 leave the weights alone.
func TestOnlineWithoutFeatures(t *testing.T) {
	o := NewOnline(3, 2)
	grads := []float32{1, 1, 1, 1, 1, 1, 1, 1}
	o.Gradients(make([]float32, 6), []int32{0, 0}, 2, grads)
	for i, want := range []float32{0, 0, 0, 0, 0, 0, -0.5, 0.5} {
		if grads[i] != want {
			t.Errorf("gradient %d is %v, want %v", i, grads[i], want)
		}
	}
}
