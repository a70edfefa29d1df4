//go:build simd

package augment

import "mochi/replica/augment/simd"

// fast is what a Worker needs for package simd.
type fast struct {
	level   simd.Level
	scratch []uint8
}

func newFast() fast { return fast{level: simd.BestLevel()} }

// applyFast is Apply by package simd, of the same bits as applyPlain.
func (w *Worker) applyFast(img *Image, p Params, dst []float32) bool {
	s := w.recipe.size
	spec := simd.Spec{
		Size: s, CropW: p.Crop.Width, CropH: p.Crop.Height, FromX: p.WindowX,
		ResizeX: p.Crop.Width != p.ResizeW, ResizeY: p.Crop.Height != p.ResizeH,
		Jitter: p.Jitter, Order: p.Order, Factor: p.Factor, HueShift: hueSteps(p.HueShift),
		Gray: p.Grayscale, Flip: p.Flip, Mean: mean, Std: std,
	}
	if p.BlurRadius > 0 {
		b := gaussianBox(p.BlurRadius)
		spec.Blur, spec.Radius, spec.Inner, spec.Outer = true, b.radius, b.inner, b.outer
	}
	w.vertical.compute(p.Crop.Height, p.ResizeH, p.WindowY, s)
	if spec.ResizeX {
		w.horizontal.compute(p.Crop.Width, p.ResizeW, p.WindowX, s)
	}
	crop := img.Pix[(p.Crop.Top*img.W+p.Crop.Left)*Channels:]
	w.fast.scratch = simd.View(w.fast.level, &spec, crop, img.W*Channels, w.horizontal.forC(), w.vertical.forC(), &w.norm, w.fast.scratch, dst)
	return true
}

func (t *taps) forC() *simd.Taps {
	return &simd.Taps{Width: t.width, First: t.first, Count: t.count, Weight: t.weight}
}
