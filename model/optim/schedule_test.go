package optim_test

import (
	"fmt"
	"math"
	"testing"

	"mochi/model/optim"
)

func TestCosine(t *testing.T) {
	for _, c := range []struct {
		epoch, epochs int
		want          float64
	}{
		{0, 200, 0.03}, {100, 200, 0.015}, {199, 200, 0.03 * 0.5 * (1 + math.Cos(math.Pi*199/200))},
		{500, 200, 0.03 * 0.5 * (1 + math.Cos(math.Pi*199/200))}, // past the end
		{0, 1, 0.03}, {0, 0, 0.03}, {-1, 3, 0.03},
	} {
		if got := optim.LR(optim.Cosine, 0.03, c.epoch, c.epochs); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("epoch %d of %d: %g, want %g", c.epoch, c.epochs, got, c.want)
		}
	}
	for e := 1; e < 200; e++ {
		if !(optim.LR(optim.Cosine, 1, e, 200) < optim.LR(optim.Cosine, 1, e-1, 200)) {
			t.Fatalf("the rate does not fall at epoch %d", e)
		}
	}
}

func TestStep(t *testing.T) {
	for epoch, want := range map[int]float64{0: 1, 119: 1, 120: 0.1, 159: 0.1, 160: 0.01, 199: 0.01, 300: 0.01} {
		if got := optim.LR(optim.Step, 1, epoch, 200); got != want {
			t.Errorf("epoch %d: %g, want %g", epoch, got, want)
		}
	}
}

func TestUnknownSchedulePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	optim.LR("linear", 1, 0, 1)
}

func ExampleLR() {
	for _, epoch := range []int{0, 50, 100, 150} {
		fmt.Printf("%.4f ", optim.LR(optim.Cosine, 0.03, epoch, 200))
	}
	// Output: 0.0300 0.0256 0.0150 0.0044
}
