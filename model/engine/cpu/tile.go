package cpu

// All the arithmetic of this package's products happens in one micro-kernel,
// which computes a small tile of C in registers:
//
//	C[i, j] = Σ_k A[i, k] · B[k, j]     i < rows, j < width
//
// What makes it serve matrix products of any orientation and convolutions
// alike is how it finds its operands: row i of A starts anywhere and advances
// by a fixed step, row k of B starts anywhere and is read contiguously. So a
// convolution needs no im2col matrix: the rows of B are shifted views of one
// padded image. Every element is one chain of additions over k, in order, so
// the result does not depend on where tile borders fall.

// maxRows is the largest tile height of any instruction set.
const maxRows = 8

// tile is the micro-kernel's argument.
type tile struct {
	a, b, c []float32
	arow    [maxRows]int // A[i, k] = a[arow[i] + k·astep]; unused rows repeat the last one
	crow    [maxRows]int // C[i, j] = c[crow[i] + j]
	brow    []int        // B[k, j] = b[brow[k] + j]; its length is the number of products summed
	astep   int
	cols    int  // columns to compute, at most the kernel's width
	acc     bool // start from C instead of 0
}

// microKernel computes tiles of its width, with partial set narrower ones too.
type microKernel struct {
	width   int
	partial bool
	run     func(*tile)
}

// instructions is everything that depends on the instruction set.
type instructions struct {
	rows  int           // tile height
	tiles []microKernel // widest first
	vectors
	laneLoops
}

// product is C (+)= A·B in the terms of tile, of any size.
type product struct {
	m, n    int
	a, b, c []float32
	arows   []int // row starts of A; nil: row i starts at i·lda
	lda     int
	astep   int
	brow    []int // row starts of B, one for each k
	ldc     int   // row i of C starts at i·ldc
	acc     bool

	// C is the sum of this many products, whose operands lie aterm and bterm
	// apart.
	terms        int
	aterm, bterm int
}

// depth is how many products a tile sums before the next tile is visited: the
// strip of B that all tiles of a column share (depth × 48 floats) then stays
// in the first-level cache.
const depth = 192

// multiply computes p, one strip of B after the other.
func (w *worker) multiply(p *product) {
	for k := 0; k < max(len(p.brow), 1); k += depth {
		w.multiplyStrip(p, k, min(k+depth, len(p.brow)))
	}
}

// multiplyStrip adds the products of k in [from, to). An empty sum is 0.
func (w *worker) multiplyStrip(p *product, from, to int) {
	if from == to {
		for i := 0; i < p.m && !p.acc; i++ {
			clear(p.c[i*p.ldc:][:p.n])
		}
		return
	}
	t := &w.tile
	t.brow = p.brow[from:to]
	t.astep = p.astep
	for j := 0; j < p.n; {
		kernel := w.set.kernelFor(p.n - j)
		t.cols = min(kernel.width, p.n-j)
		t.c = p.c[j:]
		for i := 0; i < p.m; i += w.set.rows {
			for r := range w.set.rows {
				row := min(i+r, p.m-1)
				t.crow[r] = row * p.ldc
				if p.arows != nil {
					t.arow[r] = p.arows[row]
				} else {
					t.arow[r] = row * p.lda
				}
			}
			for term := range p.terms {
				t.a = p.a[term*p.aterm+from*p.astep:]
				t.b = p.b[term*p.bterm+j:]
				t.acc = p.acc || from > 0 || term > 0
				kernel.run(t)
			}
		}
		j += t.cols
	}
}

// kernelFor picks the micro-kernel for the next tile of n remaining columns:
// the widest that they fill, or the narrowest that takes them all.
func (s *instructions) kernelFor(n int) *microKernel {
	for i := range s.tiles {
		k := &s.tiles[i]
		if n >= k.width || k.partial && (i+1 == len(s.tiles) || n > s.tiles[i+1].width) {
			return k
		}
	}
	panic("kernel: the narrowest micro-kernel must take any number of columns")
}
