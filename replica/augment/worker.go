package augment

import (
	"fmt"
	"math/rand/v2"
)

// Worker applies a recipe. It owns the buffers, so it serves one goroutine;
// after the first views of a size Apply allocates nothing.
type Worker struct {
	recipe Recipe
	norm   [Channels][256]float32 // (v/255 − mean)/std

	view    []uint8 // [S, S, 3]
	other   []uint8 // [S, S, 3], the blur's second buffer
	rows    []uint8 // source rows resized along x
	line    []uint8 // one row with its border repeated
	sums    []int32
	columns []uint32

	horizontal, vertical taps

	fast fast
}

// mean and std are ImageNet's, of values in [0, 1].
var (
	mean = [Channels]float32{0.485, 0.456, 0.406}
	std  = [Channels]float32{0.229, 0.224, 0.225}
)

// NewWorker returns a worker for one goroutine.
func NewWorker(r Recipe) *Worker {
	w := &Worker{recipe: r, fast: newFast()}
	for c := range w.norm {
		for v := range w.norm[c] {
			w.norm[c][v] = (float32(v)/255 - mean[c]) / std[c]
		}
	}
	return w
}

// View draws and applies one view of img into dst [3, S, S].
func (w *Worker) View(img *Image, rng *rand.Rand, dst []float32) {
	w.Apply(img, w.recipe.Draw(img.W, img.H, rng), dst)
}

// Apply writes the view p of img into dst [3, S, S], normalised. img is only
// read. It panics when dst has another length or the crop leaves the image.
func (w *Worker) Apply(img *Image, p Params, dst []float32) {
	if c := p.Crop; c.Top < 0 || c.Left < 0 || c.Height < 1 || c.Width < 1 || c.Top+c.Height > img.H || c.Left+c.Width > img.W {
		panic(fmt.Sprintf("augment: crop %+v leaves an image of %d×%d", c, img.W, img.H))
	}
	if s := w.recipe.size; len(dst) != w.recipe.ViewLen() {
		panic(fmt.Sprintf("augment: a view of %d pixels a side has %d values, dst %d", s, w.recipe.ViewLen(), len(dst)))
	}
	if !w.applyFast(img, p, dst) {
		w.applyPlain(img, p, dst)
	}
}

// applyPlain is Apply in Go, step after step: what every build can do, and
// the measure of applyFast.
func (w *Worker) applyPlain(img *Image, p Params, dst []float32) {
	w.normalize(w.pixels(img, p), p.Flip, dst)
}

// pixels computes the 8-bit view [S, S, 3], not yet flipped. (A flip commutes
// with all that comes after it in either recipe, so it is left to the end.)
func (w *Worker) pixels(img *Image, p Params) []uint8 {
	w.view = grow(w.view, w.recipe.ViewLen())
	w.resample(img, p, w.view)
	if p.Jitter {
		jitter(w.view, p)
	}
	if p.Grayscale {
		grayscale(w.view)
	}
	if p.BlurRadius > 0 {
		w.blur(w.view, p.BlurRadius)
	}
	return w.view
}

// normalize is ToTensor and Normalize: interleaved 8-bit to planar float32.
func (w *Worker) normalize(pix []uint8, flip bool, dst []float32) {
	s := w.recipe.size
	for c := range Channels {
		table := &w.norm[c]
		plane := dst[c*s*s : (c+1)*s*s]
		for y := range s {
			in := pix[y*s*Channels : (y+1)*s*Channels]
			out := plane[y*s : (y+1)*s]
			if flip {
				for x := range out {
					out[x] = table[in[(s-1-x)*Channels+c]]
				}
				continue
			}
			for x := range out {
				out[x] = table[in[x*Channels+c]]
			}
		}
	}
}
