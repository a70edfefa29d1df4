package cpu

// view is a zero-padded copy of an image, laid out so that what one filter tap
// sees at consecutive output positions is contiguous in memory: tap and
// channel choose the start, the output position p = y·pitch + x moves along.
//
// For stride s the image is split into its s×s phases (every s-th row and
// column), so that the taps of one phase again see neighbours. The positions
// with x beyond the output's width are computed in vain; to keep them few, the
// zeros right of a row are those left of the next.
type view struct {
	channels, h, w int
	stride         int
	phases         int // planes per channel and axis: those the taps use
	top, left      int // zeros above and left, in pixels of the source
	rows, pitch    int // of one plane
	plane          int // floats from plane to plane
	slack          int // zeros behind the last plane
}

// newView completes a view whose rows have right zeros behind them and are
// width long with all zeros, for outputs of outW columns.
func newView(v view, width, right, outW int) view {
	v.pitch = width
	if v.stride == 1 {
		v.slack = max(0, min(v.left, right, width-outW))
		v.pitch -= v.slack
	}
	v.plane = v.rows * v.pitch
	// Planes a multiple of 4 KiB apart would all fall on the same cache sets.
	if r := v.plane % 1024; !v.plain() && (r < 48 || r > 976) {
		v.plane += 96
	}
	return v
}

// plain says that the view equals the source, so no copy is needed.
func (v *view) plain() bool {
	return v.stride == 1 && v.top == 0 && v.left == 0 && v.rows == v.h && v.pitch == v.w
}

// size is the length of a staged view.
func (v *view) size() int { return v.channels*v.phases*v.phases*v.plane + v.slack }

// start is where the tap (ky, kx) sees channel c at position 0; ky and kx
// count from the view's top left corner.
func (v *view) start(c, ky, kx int) int {
	phase := (c*v.phases+ky%v.stride)*v.phases + kx%v.stride
	return phase*v.plane + ky/v.stride*v.pitch + kx/v.stride
}

// stage writes the view of src [channels, h, w] into dst.
func (v *view) stage(set *instructions, dst, src []float32) {
	if v.stride > 1 {
		clear(dst[:v.size()])
	}
	for c := range v.channels {
		image := src[c*v.h*v.w:][:v.h*v.w]
		if v.stride == 1 {
			v.stagePlane(set, dst[c*v.plane:][:v.plane], image)
			continue
		}
		for ry := range v.phases {
			for rx := range v.phases {
				v.stagePhase(set, dst[((c*v.phases+ry)*v.phases+rx)*v.plane:], image, ry, rx)
			}
		}
	}
	clear(dst[v.size()-v.slack : v.size()])
}

// stagePlane writes the only plane of a channel.
func (v *view) stagePlane(set *instructions, plane, image []float32) {
	head := v.top*v.pitch + v.left
	last := head + (v.h-1)*v.pitch
	clear(plane[:head])
	set.copyRows(plane[head:], v.pitch, image, v.w, v.h-1, v.w, v.pitch-v.w)
	copy(plane[last:], image[(v.h-1)*v.w:])
	clear(plane[last+v.w:])
}

// stagePhase writes the plane of every stride-th row and column, the rest of
// which is 0 already.
func (v *view) stagePhase(set *instructions, plane, image []float32, ry, rx int) {
	first := max(0, ceil(v.left-rx, v.stride)) // column of the plane
	x := first*v.stride + rx - v.left          // the same of the image
	n := min(v.pitch-first, ceil(v.w-x, v.stride))
	for u := range v.rows {
		y := u*v.stride + ry - v.top
		if y < 0 || y >= v.h || n <= 0 {
			continue
		}
		row, out := image[y*v.w+x:(y+1)*v.w], plane[u*v.pitch+first:][:n]
		if v.stride == 2 {
			set.everySecond(out, row)
			continue
		}
		for i := range out {
			out[i] = row[i*v.stride]
		}
	}
}
