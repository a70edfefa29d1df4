package augment

import "math"

// boxPasses is how many box blurs PIL's GaussianBlur takes each way.
const boxPasses = 3

// box is an extended box filter (Gwosdek et al. 2011): weight inner for the
// 2·radius+1 nearest pixels and outer for the next one on either side, in
// fixed point with 24 fractional bits.
type box struct {
	radius       int
	inner, outer uint32
}

// gaussianBox is the box that, applied boxPasses times, has the variance of a
// Gaussian of standard deviation sigma. float32 as in PIL.
func gaussianBox(sigma float32) box {
	sigma2 := float32(sigma*sigma) / boxPasses
	width := float32(math.Sqrt(float64(12*float64(sigma2)) + 1))
	l := float32(math.Floor((float64(width) - 1) / 2))
	a := float32(2*l+1) * (float32(l*(l+1)) - float32(3*sigma2))
	a /= 6 * (sigma2 - float32((l+1)*(l+1)))
	radius := l + a

	r := int(radius)
	inner := uint32(float32(1<<24) / (float32(radius*2) + 1))
	return box{radius: r, inner: inner, outer: (1<<24 - uint32(2*r+1)*inner) / 2}
}

// blur is PIL's GaussianBlur of a size×size image in place: boxPasses along
// rows, then as many along columns; beyond the border the outermost pixel
// repeats.
func (w *Worker) blur(pix []uint8, sigma float32) {
	b := gaussianBox(sigma)
	s := w.recipe.size
	stride := s * Channels
	pad := (b.radius + 1) * Channels
	w.line = grow(w.line, stride+2*pad)
	for y := range s {
		row := pix[y*stride : (y+1)*stride]
		for range boxPasses {
			b.alongRow(row, w.line, pad)
		}
	}
	w.other = grow(w.other, len(pix))
	w.columns = grow(w.columns, stride)
	from, to := pix, w.other
	for range boxPasses {
		b.alongColumns(from, to, w.columns, s)
		from, to = to, from
	}
	if boxPasses%2 == 1 {
		copy(pix, w.other)
	}
}

// alongRow filters one row in place by way of line, a copy of it with pad
// values more on either side.
func (b box) alongRow(row, line []uint8, pad int) {
	n := len(row)
	for i := 0; i < pad; i += Channels {
		copy(line[i:i+Channels], row[:Channels])
		copy(line[pad+n+i:pad+n+i+Channels], row[n-Channels:])
	}
	copy(line[pad:], row)
	// near holds the sum of the 2·radius+1 nearest pixels of each channel;
	// far pixels lie at line[i] and line[i+2·pad] for output i.
	var near [Channels]uint32
	for i := Channels; i < 2*pad; i += Channels {
		near[0] += uint32(line[i])
		near[1] += uint32(line[i+1])
		near[2] += uint32(line[i+2])
	}
	left := line[:n]
	next := line[Channels:][:n]
	right := line[2*pad:][:n]
	for i := 0; i+2 < n; i += Channels {
		for c := range near {
			far := uint32(left[i+c]) + uint32(right[i+c])
			row[i+c] = uint8((near[c]*b.inner + far*b.outer + 1<<23) >> 24)
			near[c] += uint32(right[i+c]) - uint32(next[i+c])
		}
	}
}

// alongColumns filters all columns of an image of n rows from one buffer to
// another.
func (b box) alongColumns(from, to []uint8, near []uint32, n int) {
	stride := len(near)
	row := func(y int) []uint8 {
		y = min(max(y, 0), n-1)
		return from[y*stride:][:stride]
	}
	clear(near)
	for y := -b.radius; y <= b.radius; y++ {
		for i, v := range row(y) {
			near[i] += uint32(v)
		}
	}
	for y := range n {
		left, next, right := row(y-b.radius-1), row(y-b.radius), row(y+b.radius+1)
		out := to[y*stride:][:stride]
		for i, sum := range near {
			far := uint32(left[i]) + uint32(right[i])
			out[i] = uint8((sum*b.inner + far*b.outer + 1<<23) >> 24)
			near[i] = sum + uint32(right[i]) - uint32(next[i])
		}
	}
}
