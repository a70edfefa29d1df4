package optim_test

import (
	"fmt"
	"math"
	"testing"

	"mochi/model/optim"
)

func TestCosine(t *testing.T) {
	for _, c := range []struct {
		epoch  float64
		epochs int
		want   float64
	}{
		{0, 200, 0.03}, {100, 200, 0.015}, {199, 200, 0.03 * 0.5 * (1 + math.Cos(math.Pi*199/200))},
		{500, 200, 0.03 * 0.5 * (1 + math.Cos(math.Pi*199/200))}, // past the end
		{0, 1, 0.03}, {0, 0, 0.03}, {-1, 3, 0.03},
		{100.99, 200, 0.015}, // constant inside an epoch

	} {
		if got := (optim.Schedule{Name: optim.Cosine, Base: 0.03, Epochs: c.epochs}).LR(c.epoch); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("epoch %g of %d: %g, want %g", c.epoch, c.epochs, got, c.want)
		}
	}
	s := optim.Schedule{Name: optim.Cosine, Base: 1, Epochs: 200}
	for e := 1.0; e < 200; e++ {
		if !(s.LR(e) < s.LR(e-1)) {
			t.Fatalf("the rate does not fall at epoch %g", e)
		}
	}
}

func TestStep(t *testing.T) {
	for epoch, want := range map[float64]float64{0: 1, 119: 1, 120: 0.1, 159: 0.1, 160: 0.01, 199: 0.01, 300: 0.01} {
		if got := (optim.Schedule{Name: optim.Step, Base: 1, Epochs: 200}).LR(epoch); got != want {
			t.Errorf("epoch %g: %g, want %g", epoch, got, want)
		}
	}
}

func TestUnknownSchedulePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	optim.Schedule{Name: "linear", Base: 1, Epochs: 1}.LR(0)
}

// MoCo v3's adjust_learning_rate.
func TestWarmup(t *testing.T) {
	s := optim.Schedule{Name: optim.Cosine, Base: 2, Epochs: 30, Warmup: 10}
	for epoch := 0.0; epoch < 30; epoch += 0.25 {
		want := 2 * epoch / 10
		if epoch >= 10 {
			want = 2 * 0.5 * (1 + math.Cos(math.Pi*(math.Floor(epoch)-10)/20))
		}
		if got := s.LR(epoch); math.Abs(got-want) > 1e-15 {
			t.Errorf("epoch %g: %g, want %g", epoch, got, want)
		}
	}
	s = optim.Schedule{Name: optim.Step, Base: 1, Epochs: 110, Warmup: 10}
	for epoch, want := range map[float64]float64{5: 0.5, 10: 1, 69.9: 1, 70: 0.1, 90: 0.01, 109: 0.01} {
		if got := s.LR(epoch); got != want {
			t.Errorf("step, epoch %g: %g, want %g", epoch, got, want)
		}
	}
}

func ExampleSchedule() {
	s := optim.Schedule{Name: optim.Cosine, Base: 0.03, Epochs: 200}
	for _, epoch := range []float64{0, 50, 100, 150} {
		fmt.Printf("%.4f ", s.LR(epoch))
	}
	// Output: 0.0300 0.0256 0.0150 0.0044
}
