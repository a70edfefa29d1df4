package cpu

import "math"

// L2Epsilon is the smallest norm that L2Normalize divides by, torch's default.
const L2Epsilon = 1e-12

// L2NormalizeForward computes y = x / max(‖x‖₂, 1e-12) for every row of
// x [rows, d] and keeps the divisors in norms [rows]. Norms are summed in
// float64.
func (t *Team) L2NormalizeForward(rows, d int, x, y, norms []float32) {
	need("L2NormalizeForward", "x", len(x), rows*d)
	need("L2NormalizeForward", "y", len(y), rows*d)
	need("L2NormalizeForward", "norms", len(norms), rows)
	t.l2Normalize(l2Normalize{rows: rows, d: d, x: x, y: y, norms: norms})
}

// L2NormalizeBackward computes dx [rows, d] from forward's output y and norms:
//
//	dx = (dy − y·(y·dy)) / ‖x‖
//
// and, where the norm was cut off at 1e-12, dx = dy / 1e-12. dx may be dy.
func (t *Team) L2NormalizeBackward(rows, d int, y, norms, dy, dx []float32) {
	need("L2NormalizeBackward", "y", len(y), rows*d)
	need("L2NormalizeBackward", "norms", len(norms), rows)
	need("L2NormalizeBackward", "dy", len(dy), rows*d)
	need("L2NormalizeBackward", "dx", len(dx), rows*d)
	t.l2Normalize(l2Normalize{rows: rows, d: d, backward: true, x: dx, y: y, dy: dy, norms: norms})
}

// l2Normalize is the job of both passes; a task is a few rows.
type l2Normalize struct {
	rows, d  int
	backward bool
	x, y, dy []float32
	norms    []float32
}

const l2NormalizeRows = 16

func (t *Team) l2Normalize(j l2Normalize) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.jobs.l2Normalize = j
	t.do(ceil(j.rows, l2NormalizeRows), &t.jobs.l2Normalize)
	t.jobs.l2Normalize = l2Normalize{}
}

func (j *l2Normalize) task(_ *worker, task int) {
	for r := task * l2NormalizeRows; r < min((task+1)*l2NormalizeRows, j.rows); r++ {
		x, y := j.x[r*j.d:][:j.d], j.y[r*j.d:][:j.d]
		if j.backward {
			backwardRow(x, y, j.dy[r*j.d:][:j.d], j.norms[r])
		} else {
			j.norms[r] = forwardRow(x, y)
		}
	}
}

func forwardRow(x, y []float32) (norm float32) {
	var squares float64
	for _, v := range x {
		squares += float64(v) * float64(v)
	}
	n := math.Sqrt(squares)
	if n < L2Epsilon {
		n = L2Epsilon
	}
	for i, v := range x {
		y[i] = float32(float64(v) / n)
	}
	return float32(n)
}

func backwardRow(dx, y, dy []float32, norm float32) {
	n := float64(norm)
	var along float64
	if norm > L2Epsilon {
		for i, v := range y {
			along += float64(v) * float64(dy[i])
		}
	}
	for i, v := range dy {
		dx[i] = float32((float64(v) - float64(float64(y[i])*along)) / n)
	}
}
