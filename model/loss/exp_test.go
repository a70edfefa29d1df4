package loss

import (
	"math"
	"testing"
)

func TestExp(t *testing.T) {
	table := newExpTable()
	for x := float32(0); x > -87; x -= 0.00317 {
		want := math.Exp(float64(x))
		if got := table.exp(float64(x)); math.Abs(got-want) > 1e-9*want {
			t.Fatalf("exp(%g) = %g, want %g", x, got, want)
		}
	}
	if table.exp(0) != 1 || table.exp(-88) != 0 || table.exp(math.Inf(-1)) != 0 || table.exp(-1e300) != 0 {
		t.Error("exp at its ends")
	}
}
