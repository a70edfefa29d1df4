package loss_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"mochi/model/loss"
)

// crossEntropy is the definition, in float64.
func crossEntropy(z []float64, label int, smoothing float64) float64 {
	sum, l := 0.0, 0.0
	for _, v := range z {
		sum += math.Exp(v)
	}
	for c, v := range z {
		target := smoothing / float64(len(z))
		if c == label {
			target += 1 - smoothing
		}
		l -= target * (v - math.Log(sum))
	}
	return l
}

func TestClassesIsItsDefinition(t *testing.T) {
	const n, classes, scale = 6, 5, 0.25
	rng := rand.New(rand.NewPCG(1, 2))
	for _, smoothing := range []float64{0, 0.1} {
		logits, labels := make([]float32, n*classes), []int32{0, 4, -1, 2, 2, 7}
		for i := range logits {
			logits[i] = float32(3 * rng.NormFloat64())
		}
		grads := make([]float32, len(logits))
		got, right, err := loss.Classes{Classes: classes, Smoothing: smoothing}.Compute(logits, labels, scale, grads)
		if err != nil {
			t.Fatal(err)
		}
		want, hits := 0.0, 0
		for i, label := range labels {
			z := make([]float64, classes)
			best := 0
			for c := range z {
				if z[c] = float64(logits[i*classes+c]); z[c] > z[best] {
					best = c
				}
			}
			if label < 0 || label >= classes {
				for c := range z {
					if grads[i*classes+c] != 0 {
						t.Errorf("sample %d has no class and the gradient %v", i, grads[i*classes+c])
					}
				}
				continue
			}
			want += crossEntropy(z, int(label), smoothing)
			if best == int(label) {
				hits++
			}
			for c := range z {
				const h = 1e-5
				was := z[c]
				z[c] = was + h
				above := crossEntropy(z, int(label), smoothing)
				z[c] = was - h
				slope := scale * (above - crossEntropy(z, int(label), smoothing)) / (2 * h)
				if z[c] = was; math.Abs(float64(grads[i*classes+c])-slope) > 1e-7 {
					t.Errorf("smoothing %v, gradient %d of sample %d: %v, want %v", smoothing, c, i, grads[i*classes+c], slope)
				}
			}
		}
		if math.Abs(got-want) > 1e-9*want || right != hits {
			t.Errorf("smoothing %v: loss %v, %d right; want %v, %d", smoothing, got, right, want, hits)
		}
	}
}

func TestClassesNotFinite(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		logits := []float32{1, 2, bad}
		_, _, err := loss.Classes{Classes: 3}.Compute(logits, []int32{2}, 1, make([]float32, 3))
		if !errors.Is(err, loss.ErrNotFinite) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
