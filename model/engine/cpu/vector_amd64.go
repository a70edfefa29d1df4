package cpu

// avx2Vectors is vectors with AVX2 for whole groups of 16 elements and plain Go
// for the rest.
func avx2Vectors() vectors {
	return vectors{
		moments: func(l *lanes, x []float32) {
			n := len(x) &^ 15
			if n > 0 {
				avx2Moments(l, &x[0], n)
			}
			moments(l, x[n:])
		},
		gradients: func(l *lanes, g, x []float32) {
			x = x[:len(g)]
			n := len(g) &^ 15
			if n > 0 {
				avx2Gradients(l, &g[0], &x[0], n)
			}
			gradients(l, g[n:], x[n:])
		},
		gradientsReLU: func(l *lanes, g, x, y []float32) {
			x, y = x[:len(g)], y[:len(g)]
			n := len(g) &^ 15
			if n > 0 {
				avx2GradientsReLU(l, &g[0], &x[0], &y[0], n)
			}
			gradientsReLU(l, g[n:], x[n:], y[n:])
		},
		normalize: func(y, x []float32, mean, scale, shift float32) {
			y = y[:len(x)]
			n := len(x) &^ 15
			if n > 0 {
				avx2Normalize(&y[0], &x[0], mean, scale, shift, n)
			}
			normalize(y[n:], x[n:], mean, scale, shift)
		},
		normalizeReLU: func(y, x []float32, mean, scale, shift float32) {
			y = y[:len(x)]
			n := len(x) &^ 15
			if n > 0 {
				avx2NormalizeReLU(&y[0], &x[0], mean, scale, shift, n)
			}
			normalizeReLU(y[n:], x[n:], mean, scale, shift)
		},
		project: func(d, g, x []float32, p *projection) {
			d, x = d[:len(g)], x[:len(g)]
			n := len(g) &^ 15
			if n > 0 {
				avx2Project(&d[0], &g[0], &x[0], p, n)
			}
			project(d[n:], g[n:], x[n:], p)
		},
		projectReLU: func(d, g, x, y []float32, p *projection) {
			d, x, y = d[:len(g)], x[:len(g)], y[:len(g)]
			n := len(g) &^ 15
			if n > 0 {
				avx2ProjectReLU(&d[0], &g[0], &x[0], &y[0], p, n)
			}
			projectReLU(d[n:], g[n:], x[n:], y[n:], p)
		},
		add:     withTail(avx2Add, add),
		addReLU: withTail(avx2AddReLU, addReLU),
		relu:    relu, // the only one outside BatchNorm and Add is in the head: small
		mask:    withTail(avx2Mask, mask),

		copyRows:    copyRowsAVX2,
		everySecond: everySecondAVX2,
		transpose:   transposeAVX2,
	}
}

// withTail applies fast to the whole groups of 16 and plain to what is left.
func withTail(fast func(z, x, y *float32, n int), plain func(z, x, y []float32)) func(z, x, y []float32) {
	return func(z, x, y []float32) {
		z, y = z[:len(x)], y[:len(x)]
		n := len(x) &^ 15
		if n > 0 {
			fast(&z[0], &x[0], &y[0], n)
		}
		plain(z[n:], x[n:], y[n:])
	}
}

//go:noescape
func avx2Moments(l *lanes, x *float32, n int)

//go:noescape
func avx2Gradients(l *lanes, dy, x *float32, n int)

//go:noescape
func avx2GradientsReLU(l *lanes, dy, x, y *float32, n int)

//go:noescape
func avx2Normalize(y, x *float32, mean, scale, shift float32, n int)

//go:noescape
func avx2NormalizeReLU(y, x *float32, mean, scale, shift float32, n int)

//go:noescape
func avx2Project(d, dy, x *float32, p *projection, n int)

//go:noescape
func avx2ProjectReLU(d, dy, x, y *float32, p *projection, n int)

//go:noescape
func avx2Add(z, x, y *float32, n int)

//go:noescape
func avx2AddReLU(z, x, y *float32, n int)

//go:noescape
func avx2Mask(d, dy, y *float32, n int)
