package augment

import (
	"math"
	"math/rand/v2"
	"mochi/model/splitmix"
)

// View numbers for Seed.
const (
	QueryView = 0
	KeyView   = 1
)

// Seed returns the generator of one view: a PCG whose state is a hash of the
// job's seed, the epoch, the sample's index and the view.
func Seed(seed uint64, epoch, index, view int) *rand.Rand {
	var pcg rand.PCG
	Reseed(&pcg, seed, epoch, index, view)
	return rand.New(&pcg)
}

// Reseed gives a generator that is used again the state of Seed's.
func Reseed(pcg *rand.PCG, seed uint64, epoch, index, view int) {
	h := splitmix.Mix(seed)
	h = splitmix.Mix(h ^ uint64(epoch))
	h = splitmix.Mix(h ^ uint64(index))
	h = splitmix.Mix(h ^ uint64(view))
	pcg.Seed(h, splitmix.Mix(h))
}

// Rect is a rectangle in the source image, pixels.
type Rect struct{ Top, Left, Height, Width int }

// Union is the smallest rectangle that holds both; one without pixels does
// not count.
func (r Rect) Union(o Rect) Rect {
	if r.Height < 1 || r.Width < 1 {
		return o
	}
	if o.Height < 1 || o.Width < 1 {
		return r
	}
	top, left := min(r.Top, o.Top), min(r.Left, o.Left)
	return Rect{
		Top: top, Left: left,
		Height: max(r.Top+r.Height, o.Top+o.Height) - top,
		Width:  max(r.Left+r.Width, o.Left+o.Width) - left,
	}
}

// The parts of ColorJitter, in Params.Order.
const (
	Brightness = iota
	Contrast
	Saturation
	Hue
)

// Params is one drawn view: everything that Worker.Apply needs to know.
type Params struct {
	Crop             Rect // part of the source that is kept
	ResizeW, ResizeH int  // to which it is resized
	WindowX, WindowY int  // top left corner of the view in the resized crop

	Jitter     bool
	Order      [4]uint8   // of the parts of ColorJitter
	Factor     [3]float32 // by part: brightness, contrast, saturation; 1 changes nothing
	HueShift   float64    // in turns, [−0.5, 0.5]
	Grayscale  bool
	BlurRadius float32 // σ of GaussianBlur, pixels; 0: none
	Flip       bool    // left to right
}

// ColorJitter(0.4, 0.4, 0.4, 0.1) with probability 0.8, Grayscale with 0.2,
// flip with 0.5, GaussianBlur's σ ~ U(0.1, 2): MoCo v2.
const (
	jitterP   = 0.8
	jitterMax = 0.4
	hueMax    = 0.1
	grayP     = 0.2
	flipP     = 0.5
	sigmaMin  = 0.1
	sigmaMax  = 2.0
)

// Draw draws one view of an image of w×h pixels. Recipe none draws nothing
// from rng, which may then be nil.
func (r Recipe) Draw(w, h int, rng *rand.Rand) Params {
	if !r.random {
		return r.centre(w, h)
	}
	p := Params{Crop: r.drawCrop(w, h, rng), ResizeW: r.size, ResizeH: r.size}
	if r.uncoloured {
		p.Flip = rng.Float64() < flipP
		return p
	}
	if rng.Float64() < jitterP {
		p.Jitter = true
		p.Order = [4]uint8{Brightness, Contrast, Saturation, Hue}
		rng.Shuffle(len(p.Order), func(i, j int) { p.Order[i], p.Order[j] = p.Order[j], p.Order[i] })
		for i := range p.Factor {
			p.Factor[i] = float32(uniform(rng, 1-jitterMax, 1+jitterMax))
		}
		p.HueShift = uniform(rng, -hueMax, hueMax)
	}
	p.Grayscale = rng.Float64() < grayP
	if r.blur > 0 && rng.Float64() < r.blur {
		p.BlurRadius = float32(uniform(rng, sigmaMin, sigmaMax))
	}
	p.Flip = rng.Float64() < flipP
	return p
}

// Aspect ratios of RandomResizedCrop, and the logarithm of the larger one.
const (
	minRatio    = 3.0 / 4
	maxRatio    = 4.0 / 3
	logMaxRatio = 0.28768207245178090
)

// drawCrop is torchvision's RandomResizedCrop.get_params: ten tries at a
// rectangle of uniform area and log-uniform aspect ratio that fits the image,
// then the largest central crop of an allowed ratio.
func (r Recipe) drawCrop(w, h int, rng *rand.Rand) Rect {
	area := float64(w) * float64(h)
	for range 10 {
		target := area * uniform(rng, r.minScale, 1)
		ratio := exp(uniform(rng, -logMaxRatio, logMaxRatio))
		cw := int(math.RoundToEven(math.Sqrt(target * ratio)))
		ch := int(math.RoundToEven(math.Sqrt(target / ratio)))
		if 0 < cw && cw <= w && 0 < ch && ch <= h {
			top := rng.IntN(h - ch + 1)
			left := rng.IntN(w - cw + 1)
			return Rect{Top: top, Left: left, Height: ch, Width: cw}
		}
	}
	return centralCrop(w, h)
}

// centralCrop is the fallback of RandomResizedCrop. A side never falls below
// one pixel, which torchvision would reject.
func centralCrop(w, h int) Rect {
	cw, ch := w, h
	switch ratio := float64(w) / float64(h); {
	case ratio < minRatio:
		ch = min(h, int(math.RoundToEven(float64(w)/minRatio)))
	case ratio > maxRatio:
		cw = min(w, int(math.RoundToEven(float64(h)*maxRatio)))
	}
	return Rect{Top: (h - ch) / 2, Left: (w - cw) / 2, Height: ch, Width: cw}
}

// centre is torchvision's Resize of the shorter side and CenterCrop.
func (r Recipe) centre(w, h int) Params {
	p := Params{Crop: Rect{Height: h, Width: w}}
	short := r.size
	if w != r.size || h != r.size {
		short = r.Resized()
	}
	if w <= h {
		p.ResizeW, p.ResizeH = short, short*h/w
	} else {
		p.ResizeW, p.ResizeH = short*w/h, short
	}
	p.WindowX = int(math.RoundToEven(float64(p.ResizeW-r.size) / 2))
	p.WindowY = int(math.RoundToEven(float64(p.ResizeH-r.size) / 2))
	return p
}

// uniform draws from [lo, hi). The conversion keeps a compiler from fusing
// the multiplication and addition, which would change bits between
// processors.
func uniform(rng *rand.Rand, lo, hi float64) float64 {
	return lo + float64((hi-lo)*rng.Float64())
}

// exp is eˣ for |x| ≤ 0.3 by its Taylor series, within 2e-16. math.Exp picks
// its instructions by processor, and a crop must be the same everywhere.
func exp(x float64) float64 {
	sum := 1.0
	for n := 12.0; n >= 1; n-- {
		sum = 1 + float64(x*sum)/n
	}
	return sum
}
