package enginetest

import (
	"math"
	"testing"

	"mochi/model/engine"
)

// traceTolerance is what a stored value may be farther from the float64 layer
// than rounding explains, relative to the largest of its tensor: sums in fp32.
const traceTolerance = 3e-5

// trace is what the reference follows.
type trace struct {
	t                  testing.TB
	outputs, gradients map[int][]float32
	values, flipped    int // stored values, and those that are not the nearest of bf16
}

func newTrace(t testing.TB, p engine.Program) *trace {
	tracer, ok := p.(engine.Tracer)
	if !ok {
		return nil
	}
	tr := &trace{t: t}
	tr.outputs, tr.gradients = tracer.Trace()
	return tr
}

// follow holds exact values against those stored, which replace them.
func (tr *trace) follow(what string, exact []float64, stored []float32) {
	tr.t.Helper()
	if len(stored) != len(exact) {
		tr.t.Errorf("%s: %d values stored, want %d", what, len(stored), len(exact))
		return
	}
	limit, worst, at, last := traceTolerance*largest(exact), 0.0, 0, 0.0
	for i, x := range exact {
		s := float64(stored[i])
		over := math.Abs(s-x) - halfUnit(x)
		if math.IsNaN(s) || s != roundBF16(s) {
			over = math.Inf(1) // no number of bf16
		}
		if over > worst {
			worst, at, last = over, i, x
		}
		if s != roundBF16(x) {
			tr.flipped++
		}
		exact[i] = s
	}
	tr.values += len(exact)
	if worst > limit {
		tr.t.Errorf("%s: element %d is stored as %g, the layer gives %g, %.2g more away than rounding; accepted is %.2g",
			what, at, stored[at], last, worst, limit)
	}
}

// halfUnit is half of bf16's last place at x.
func halfUnit(x float64) float64 {
	_, exponent := math.Frexp(x) // |x| < 2^exponent
	return math.Ldexp(1, exponent-9)
}

// roundBF16 rounds to bf16, ties to even, by way of float32.
func roundBF16(x float64) float64 {
	bits := math.Float32bits(float32(x))
	bits += 0x7fff + bits>>16&1
	return float64(math.Float32frombits(bits &^ 0xffff))
}
