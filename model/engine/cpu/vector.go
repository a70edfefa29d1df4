package cpu

// vectors are the inner loops of everything but products. Each element is
// rounded after every operation, in the order written, and sums run in 16
// fixed lanes, so that all instruction sets agree to the bit. Slices of one
// call have equal lengths.
type vectors struct {
	// moments adds x and x² to the lanes.
	moments func(l *lanes, x []float32)
	// gradients adds g and g·x to the lanes.
	gradients func(l *lanes, g, x []float32)
	// gradientsReLU is gradients with g = 0 where y is not above 0.
	gradientsReLU func(l *lanes, g, x, y []float32)
	// normalize: y = (x − mean)·scale + shift
	normalize func(y, x []float32, mean, scale, shift float32)
	// normalizeReLU: the same, then max(·, 0)
	normalizeReLU func(y, x []float32, mean, scale, shift float32)
	// project: d = (g − gMean − (x − mean)·slope)·scale
	project func(d, g, x []float32, p *projection)
	// projectReLU is project with g = 0 where y is not above 0.
	projectReLU func(d, g, x, y []float32, p *projection)
	// add: z = x + y
	add func(z, x, y []float32)
	// addReLU: z = max(x + y, 0)
	addReLU func(z, x, y []float32)
	// relu: z = max(x, 0); the third slice is not used
	relu func(z, x, _ []float32)
	// mask: d = g where y is above 0, else 0
	mask func(d, g, y []float32)

	// copyRows copies src [rows, cols] to dst and writes gap zeros behind each
	// row; the strides are the distances between rows.
	copyRows func(dst []float32, dstStride int, src []float32, srcStride, rows, cols, gap int)
	// everySecond: dst[i] = src[2·i]
	everySecond func(dst, src []float32)
	// transpose writes src [rows, cols] as dst [cols, rows].
	transpose func(dst []float32, dstStride int, src []float32, srcStride, rows, cols int)
}

// projection holds the constants of BatchNorm's backward pass.
type projection struct {
	gMean, mean, slope, scale float32
}

// lanes are two running sums, each in 16 parts: element i of every slice that
// is added goes to part i mod 16.
type lanes struct {
	first, second [16]float64
}

// total combines the parts in a fixed order.
func (l *lanes) total() (first, second float64) {
	for n := 8; n > 0; n /= 2 {
		for i := range n {
			l.first[i] += l.first[i+n]
			l.second[i] += l.second[i+n]
		}
	}
	return l.first[0], l.second[0]
}

func genericVectors() vectors {
	return vectors{
		moments:       moments,
		gradients:     gradients,
		gradientsReLU: gradientsReLU,
		normalize:     normalize,
		normalizeReLU: normalizeReLU,
		project:       project,
		projectReLU:   projectReLU,
		add:           add,
		addReLU:       addReLU,
		relu:          relu,
		mask:          mask,

		copyRows:    copyRows,
		everySecond: everySecond,
		transpose:   transpose,
	}
}

// Products of two float32 are exact in float64, so fusing cannot change these
// sums.

func moments(l *lanes, x []float32) {
	for i, v := range x {
		v := float64(v)
		l.first[i%16] += v
		l.second[i%16] += v * v
	}
}

func gradients(l *lanes, g, x []float32) {
	x = x[:len(g)]
	for i, v := range g {
		l.first[i%16] += float64(v)
		l.second[i%16] += float64(v) * float64(x[i])
	}
}

func gradientsReLU(l *lanes, g, x, y []float32) {
	x, y = x[:len(g)], y[:len(g)]
	for i, v := range g {
		if !(y[i] > 0) {
			v = 0
		}
		l.first[i%16] += float64(v)
		l.second[i%16] += float64(v) * float64(x[i])
	}
}

func normalize(y, x []float32, mean, scale, shift float32) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] = float32((v-mean)*scale) + shift
	}
}

func normalizeReLU(y, x []float32, mean, scale, shift float32) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] = positive(float32((v-mean)*scale) + shift)
	}
}

func project(d, g, x []float32, p *projection) {
	d, x = d[:len(g)], x[:len(g)]
	for i, v := range g {
		d[i] = (v - p.gMean - float32((x[i]-p.mean)*p.slope)) * p.scale
	}
}

func projectReLU(d, g, x, y []float32, p *projection) {
	d, x, y = d[:len(g)], x[:len(g)], y[:len(g)]
	for i, v := range g {
		if !(y[i] > 0) {
			v = 0
		}
		d[i] = (v - p.gMean - float32((x[i]-p.mean)*p.slope)) * p.scale
	}
}

func add(z, x, y []float32) {
	z, y = z[:len(x)], y[:len(x)]
	for i, v := range x {
		z[i] = v + y[i]
	}
}

func addReLU(z, x, y []float32) {
	z, y = z[:len(x)], y[:len(x)]
	for i, v := range x {
		z[i] = positive(v + y[i])
	}
}

func relu(z, x, _ []float32) {
	z = z[:len(x)]
	for i, v := range x {
		z[i] = positive(v)
	}
}

func mask(d, g, y []float32) {
	d, y = d[:len(g)], y[:len(g)]
	for i, v := range g {
		if !(y[i] > 0) {
			v = 0
		}
		d[i] = v
	}
}

// positive is max(v, 0); NaN stays NaN, so that it is seen further on.
func positive(v float32) float32 {
	if v < 0 {
		return 0
	}
	return v
}

func copyRows(dst []float32, dstStride int, src []float32, srcStride, rows, cols, gap int) {
	for i := range rows {
		row := dst[i*dstStride:][:cols+gap]
		copy(row, src[i*srcStride:][:cols])
		clear(row[cols:])
	}
}

func everySecond(dst, src []float32) {
	for i := range dst {
		dst[i] = src[2*i]
	}
}

func transpose(dst []float32, dstStride int, src []float32, srcStride, rows, cols int) {
	for i := range rows {
		for j, v := range src[i*srcStride:][:cols] {
			dst[j*dstStride+i] = v
		}
	}
}
