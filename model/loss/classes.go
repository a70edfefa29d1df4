package loss

import (
	"fmt"
	"math"
)

// Classes is the cross-entropy of a supervised job, of C logits a sample.
type Classes struct {
	Classes   int     // C
	Smoothing float64 // ε: the target is 1−ε+ε/C for the sample's class and ε/C for the others (Szegedy et al. 2016, §7)
}

// Compute takes logits [n, C] and the classes of their samples [n], −1 where unknown:
// those count nowhere. grads [n, C] is overwritten with scale times the gradient
//
//	L = −Σ_c t_c · log softmax(z)_c,   ∂L/∂z_c = softmax(z)_c − t_c
//
// It returns the sum of L, and how many samples have the highest logit at their class
// (ties: the lowest class). The error wraps ErrNotFinite.
func (k Classes) Compute(logits []float32, labels []int32, scale float64, grads []float32) (sum float64, right int, err error) {
	c := k.Classes
	if len(logits) != len(labels)*c || len(grads) != len(logits) {
		panic(fmt.Sprintf("loss: %d logits and %d gradients of %d samples of %d classes", len(logits), len(grads), len(labels), c))
	}
	low := k.Smoothing / float64(c)
	for i, label := range labels {
		z, g := logits[i*c:(i+1)*c], grads[i*c:(i+1)*c]
		if label < 0 || int(label) >= c {
			clear(g)
			continue
		}
		best, total, mean := 0, 0.0, 0.0
		for j, v := range z {
			if v > z[best] || v != v {
				best = j
			}
			mean += float64(v) / float64(c)
		}
		top := float64(z[best])
		for _, v := range z {
			total += math.Exp(float64(v) - top)
		}
		l := math.Log(total) + top - (1-k.Smoothing)*float64(z[label]) - k.Smoothing*mean
		if math.IsNaN(l) || math.IsInf(l, 0) {
			return 0, 0, fmt.Errorf("sample %d of class %d: %w", i, label, ErrNotFinite)
		}
		if sum += l; best == int(label) {
			right++
		}
		for j, v := range z {
			target := low
			if j == int(label) {
				target += 1 - k.Smoothing
			}
			g[j] = float32(scale * (math.Exp(float64(v)-top)/total - target))
		}
	}
	return sum, right, nil
}
