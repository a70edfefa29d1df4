package cpu

// NN computes c[m,n] = a[m,k] · b[k,n], or adds it to c when acc is set.
// All matrices are dense and row-major and must not overlap.
func (t *Team) NN(m, n, k int, a, b, c []float32, acc bool) {
	t.gemm("NN", gemm{m: m, n: n, k: k, a: a, b: b, c: c, acc: acc, lda: k, astep: 1})
}

// NT computes c[m,n] = a[m,k] · b[n,k]ᵀ, or adds it to c when acc is set.
func (t *Team) NT(m, n, k int, a, b, c []float32, acc bool) {
	t.gemm("NT", gemm{m: m, n: n, k: k, a: a, b: b, c: c, acc: acc, lda: k, astep: 1, transposed: true})
}

// TN computes c[m,n] = a[k,m]ᵀ · b[k,n], or adds it to c when acc is set.
func (t *Team) TN(m, n, k int, a, b, c []float32, acc bool) {
	t.gemm("TN", gemm{m: m, n: n, k: k, a: a, b: b, c: c, acc: acc, lda: 1, astep: m})
}

// gemm is the job of one matrix product. Its tasks are blocks of C.
type gemm struct {
	m, n, k    int
	a, b, c    []float32
	acc        bool
	lda, astep int  // A[i, k] = a[i·lda + k·astep]
	transposed bool // b is [n, k]
	blocks     int  // blocks of columns
}

// Blocks of C: tall enough that packing a strip of B is paid for, small enough
// to keep every worker busy.
const (
	gemmRows = 64
	gemmCols = 96
)

func (t *Team) gemm(op string, g gemm) {
	need(op, "a", len(g.a), g.m*g.k)
	need(op, "b", len(g.b), g.k*g.n)
	need(op, "c", len(g.c), g.m*g.n)
	if g.k == 0 {
		if !g.acc {
			clear(g.c)
		}
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	g.blocks = ceil(g.n, gemmCols)
	t.jobs.gemm = g
	t.do(g.blocks*ceil(g.m, gemmRows), &t.jobs.gemm)
	t.jobs.gemm = gemm{}
}

// task computes one block, strip by strip, from a packed copy of B: rows of a
// wide matrix lie a page or more apart, where every one would need its own
// address translation.
func (g *gemm) task(w *worker, task int) {
	i := task / g.blocks * gemmRows
	j := task % g.blocks * gemmCols
	rows, cols := min(gemmRows, g.m-i), min(gemmCols, g.n-j)
	p := product{
		m: rows, n: cols,
		lda: g.lda, astep: g.astep,
		c: g.c[i*g.n+j:], ldc: g.n,
		acc: g.acc, terms: 1,
	}
	for k := 0; k < g.k; k += depth {
		strip := min(depth, g.k-k)
		p.a = g.a[i*g.lda+k*g.astep:]
		p.b = w.memory(strip * cols)
		p.brow = w.rows(strip, cols)
		if g.transposed {
			w.set.transpose(p.b, cols, g.b[j*g.k+k:], g.k, cols, strip)
		} else {
			w.set.copyRows(p.b, cols, g.b[k*g.n+j:], g.n, strip, cols, 0)
		}
		w.multiply(&p)
		p.acc = true
	}
}

// rows returns the starts of n rows that lie stride apart. They are valid
// until the end of the task.
func (w *worker) rows(n, stride int) []int {
	if len(w.offsets) < n {
		w.offsets = make([]int, n)
		w.stride = -1
	}
	if w.stride != stride {
		for i := range w.offsets {
			w.offsets[i] = i * stride
		}
		w.stride = stride
	}
	return w.offsets[:n]
}

func ceil(n, block int) int { return (n + block - 1) / block }
