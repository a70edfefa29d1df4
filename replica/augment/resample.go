package augment

import "math"

// PIL computes filter weights in fixed point with 22 fractional bits: 32,
// less 8 for the pixel and 2 for head room.
const (
	weightBits = 22
	weightOne  = 1 << weightBits
	weightHalf = 1 << (weightBits - 1)
)

// tapGroup is how many taps vector code takes at a time.
const tapGroup = 4

// taps are the filter weights of one axis: output i is the sum over
// j < count[i] of weight[i·width+j] · input[first[i]+j]; the weights from
// count[i] to width are 0.
type taps struct {
	width  int // at least the most taps of an output, a multiple of tapGroup
	first  []int32
	count  []int32
	weight []int32
}

// compute fills t for outputs [from, from+n) of an axis of in pixels resized
// to out, with the triangle filter, its support widened when shrinking
// (antialiasing), as Pillow's ImagingResample does.
func (t *taps) compute(in, out, from, n int) {
	scale := float64(in) / float64(out)
	filterScale := max(scale, 1)
	support := filterScale
	inverse := 1 / filterScale
	t.width = (int(math.Ceil(support))*2 + tapGroup) / tapGroup * tapGroup
	t.first = grow(t.first, n)
	t.count = grow(t.count, n)
	t.weight = grow(t.weight, n*t.width)
	for i := range n {
		center := float64((float64(from+i) + 0.5) * scale)
		lo := max(int(center-support+0.5), 0)
		hi := min(int(center+support+0.5), in)
		t.first[i], t.count[i] = int32(lo), int32(hi-lo)
		sum := 0.0
		for x := lo; x < hi; x++ {
			sum += triangle(float64(float64(x)-center+0.5) * inverse)
		}
		weights := t.weight[i*t.width : (i+1)*t.width]
		for x := lo; x < hi; x++ {
			w := triangle(float64(float64(x)-center+0.5)*inverse) / sum
			weights[x-lo] = int32(0.5 + float64(w*weightOne))
		}
		clear(weights[hi-lo:])
	}
}

func triangle(x float64) float64 { return max(1-math.Abs(x), 0) }

// resample resizes the crop of src to p.ResizeW×p.ResizeH and writes the
// window of size×size at (WindowX, WindowY) to dst, interleaved: first along
// rows, then along columns, rounding to 8 bits after each, as PIL does.
func (w *Worker) resample(src *Image, p Params, dst []uint8) {
	s := w.recipe.size
	w.vertical.compute(p.Crop.Height, p.ResizeH, p.WindowY, s)
	last := s - 1
	top := int(w.vertical.first[0])
	rows := int(w.vertical.first[last]+w.vertical.count[last]) - top

	stride := src.W * Channels
	in := src.Pix[(p.Crop.Top+top)*stride+p.Crop.Left*Channels:]
	from, fromStride := in, stride
	if p.Crop.Width != p.ResizeW {
		w.horizontal.compute(p.Crop.Width, p.ResizeW, p.WindowX, s)
		fromStride = s * Channels
		w.rows = grow(w.rows, rows*fromStride)
		for y := range rows {
			w.horizontal.alongRow(in[y*stride:], w.rows[y*fromStride:(y+1)*fromStride])
		}
		from = w.rows
	} else {
		from = in[p.WindowX*Channels:]
	}

	if p.Crop.Height == p.ResizeH {
		for y := range s {
			copy(dst[y*s*Channels:(y+1)*s*Channels], from[y*fromStride:])
		}
		return
	}
	w.sums = grow(w.sums, s*Channels)
	for y := range s {
		first := int(w.vertical.first[y]) - top
		weights := w.vertical.weight[y*w.vertical.width:][:w.vertical.count[y]]
		weighRows(from[first*fromStride:], fromStride, weights, w.sums, dst[y*s*Channels:(y+1)*s*Channels])
	}
}

// alongRow resizes one interleaved row.
func (t *taps) alongRow(in, out []uint8) {
	for i := range len(out) / Channels {
		weights := t.weight[i*t.width:][:t.count[i]]
		pix := in[int(t.first[i])*Channels:][:len(weights)*Channels]
		r, g, b := int32(weightHalf), int32(weightHalf), int32(weightHalf)
		for j, k := range weights {
			px := pix[j*Channels : j*Channels+Channels : j*Channels+Channels]
			r += int32(px[0]) * k
			g += int32(px[1]) * k
			b += int32(px[2]) * k
		}
		px := out[i*Channels : i*Channels+Channels : i*Channels+Channels]
		px[0], px[1], px[2] = weighed(r), weighed(g), weighed(b)
	}
}

// weighRows writes the weighted sum of len(weights) rows to out.
func weighRows(in []uint8, stride int, weights, sums []int32, out []uint8) {
	if len(weights) == 2 { // enlarging, inside the image
		k0, k1 := weights[0], weights[1]
		a, b := in[:len(out)], in[stride:stride+len(out)]
		for i := range out {
			out[i] = weighed(weightHalf + int32(a[i])*k0 + int32(b[i])*k1)
		}
		return
	}
	sums = sums[:len(out)]
	for i := range sums {
		sums[i] = weightHalf
	}
	for j, k := range weights {
		row := in[j*stride:][:len(sums)]
		for i, v := range row {
			sums[i] += int32(v) * k
		}
	}
	for i, v := range sums {
		out[i] = weighed(v)
	}
}

// weighed drops the fractional bits. Weights are not negative and sum to one
// but for their rounding, so only the upper end needs a clip.
func weighed(v int32) uint8 { return uint8(min(v>>weightBits, 255)) }

// grow returns s with length n, reallocated when it is too small; its
// contents are unspecified.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
