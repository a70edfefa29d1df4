package enginetest

import (
	"math"
	"slices"
	"testing"

	"mochi/model/network"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// compare reports a difference above tolerance, relative to the largest
// wanted magnitude.
func compare(t testing.TB, name string, tolerance float64, got []float32, want []float64) {
	t.Helper()
	compareScaled(t, name, tolerance, got, want, largest(want))
}

// compareTensors compares a flat vector tensor by tensor. Tensors that are
// small beside all others are compared at a thousandth of the others' scale:
// some gradients are zero but for rounding.
func compareTensors(t testing.TB, name string, tolerance func(network.Tensor) float64, ts []network.Tensor, got []float32, want []float64) {
	t.Helper()
	floor := largest(want) * 1e-3
	for _, v := range ts {
		w := want[v.Offset : v.Offset+v.Size]
		compareScaled(t, name+" "+v.Name, tolerance(v), got[v.Offset:v.Offset+v.Size], w, max(largest(w), floor))
	}
}

// evenly is one tolerance for all tensors.
func evenly(tolerance float64) func(network.Tensor) float64 {
	return func(network.Tensor) float64 { return tolerance }
}

func compareScaled(t testing.TB, name string, tolerance float64, got []float32, want []float64, scale float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", name, len(got), len(want))
		return
	}
	worst, at := 0.0, 0
	for i, w := range want {
		d := math.Abs(float64(got[i]) - w)
		if math.IsNaN(d) {
			d = math.Inf(1)
		}
		if d > worst {
			worst, at = d, i
		}
	}
	if worst > tolerance*scale {
		t.Errorf("%s: element %d is %g, want %g (relative difference %.2g)", name, at, got[at], want[at], worst/scale)
	}
}

func largest(v []float64) float64 {
	m := 0.0
	for _, x := range v {
		m = max(m, math.Abs(x))
	}
	return m
}

// sameBits compares two results exactly.
func sameBits(t testing.TB, name string, got, want result) {
	t.Helper()
	for _, v := range []struct {
		what      string
		got, want []float32
	}{
		{"embeddings", got.embeddings, want.embeddings},
		{"features", got.features, want.features},
		{"statistics", got.statistics, want.statistics},
		{"gradients", got.grads, want.grads},
	} {
		if !slices.EqualFunc(v.got, v.want, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
			t.Errorf("%s: %s differ in their bits", name, v.what)
		}
	}
}

// unitRows checks the norms of embeddings.
func unitRows(t testing.TB, embeddings []float32, dim int) {
	t.Helper()
	for i := 0; i < len(embeddings); i += dim {
		if n := length(widen(embeddings[i : i+dim])); math.Abs(n-1) > 1e-5 {
			t.Errorf("embedding %d has length %g", i/dim, n)
		}
	}
}

// garbage is a destination that shows where nothing was written.
func garbage(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = 1e30
	}
	return v
}

func panics(t testing.TB, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s does not panic", name)
		}
	}()
	f()
}
