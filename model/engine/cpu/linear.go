package cpu

// LinearForward computes y[m,out] = x[m,in] · w[out,in]ᵀ + b[out].
func (t *Team) LinearForward(m, in, out int, x, w, b, y []float32) {
	need("LinearForward", "b", len(b), out)
	need("LinearForward", "y", len(y), m*out)
	for i := range m {
		copy(y[i*out:], b)
	}
	t.NT(m, out, in, x, w, y, true)
}

// LinearBackward computes dx[m,in] = dy·w, dw[out,in] = dyᵀ·x and db[out] =
// Σ_rows dy (in float64) from dy[m,out]. A nil dx is not computed.
func (t *Team) LinearBackward(m, in, out int, x, w, dy, dx, dw, db []float32) {
	need("LinearBackward", "db", len(db), out)
	if dx != nil {
		t.NN(m, in, out, dy, w, dx, false)
	}
	t.TN(out, in, m, dy, x, dw, false)
	for o := range out {
		var sum float64
		for i := range m {
			sum += float64(dy[i*out+o])
		}
		db[o] = float32(sum)
	}
}
