// Package augment turns an 8-bit RGB image into the normalised float32 views
// that the encoders see: the two random crops of MoCo v2 (Chen et al. 2020,
// §3; He et al. 2020, §3.3) and the plain resize and centre crop of
// evaluation.
//
// The operators follow torchvision on PIL images to the bit, rounding to 8
// bits after each of them: RandomResizedCrop with PIL's antialiased bilinear
// filter, ColorJitter, Grayscale, PIL's GaussianBlur (three box blurs each
// way), RandomHorizontalFlip, ToTensor and Normalize. What is random is drawn
// first (Recipe.Draw, a pure function of the image's size and a generator)
// and then applied (Worker.Apply), so that a view depends on nothing but the
// image and (seed, epoch, sample index, view): not on worker, replica or
// processor.
//
// With the build tag simd a view is one call of C (package simd in
// this folder): the same bits, several times as fast.
//
// Cost of a view on one core of an EPYC of 2024, AVX-512 / plain Go
// (BenchmarkView, drawing included): recipe cifar at 32×32 9 / 55 µs, moco-v2
// at 224×224 from 500×375 0.42 / 3.1 ms, none at 224×224 0.12 / 0.9 ms.
package augment

import (
	"fmt"
	"strings"
)

// Channels of every image and view: red, green, blue.
const Channels = 3

// Image is an 8-bit RGB image, rows from top to bottom, interleaved:
// Pix[(y·W+x)·3+c], len(Pix) = W·H·3.
type Image struct {
	W, H int // pixels, both at least 1
	Pix  []uint8
}

// NewImage allocates a black image.
func NewImage(w, h int) *Image {
	return &Image{W: w, H: h, Pix: make([]uint8, w*h*Channels)}
}

// Names of the recipes, as on the command line.
const (
	MoCoV2 = "moco-v2"   // crop 0.2–1, jitter, grey, blur, flip
	CIFAR  = "cifar"     // crop 0.08–1, flip, jitter, grey; no blur
	None   = "none"      // resize and centre crop, as for evaluation
	Flip   = "crop-flip" // crop 0.08–1 and flip: for learning from labels
)

// Recipe says how views are drawn. It is immutable and may be shared.
type Recipe struct {
	name string
	size int

	random   bool    // false: resize and centre crop
	minScale float64 // smallest share of the area that a crop keeps
	blur     float64 // probability of GaussianBlur

	uncoloured bool // crop and flip alone
}

// New returns a recipe by name for square views of size pixels a side.
func New(name string, size int) (Recipe, error) {
	if size < 1 {
		return Recipe{}, fmt.Errorf("image-size %d: want at least 1 pixel", size)
	}
	r := Recipe{name: name, size: size}
	switch name {
	case MoCoV2:
		r.random, r.minScale, r.blur = true, 0.2, 0.5
	case CIFAR:
		r.random, r.minScale = true, 0.08
	case None:
	case Flip:
		return CropFlip(size), nil
	default:
		return Recipe{}, fmt.Errorf("recipe %q is unknown: want %s", name, strings.Join([]string{MoCoV2, CIFAR, None, Flip}, ", "))
	}
	return r, nil
}

// CropFlip is the view on which linear classifiers are trained (He et al. 2020):
// RandomResizedCrop of scale 0.08–1 and a flip, without change of colours. It panics when size is below 1.
func CropFlip(size int) Recipe {
	if size < 1 {
		panic(fmt.Sprintf("augment: a view of %d pixels", size))
	}
	return Recipe{name: Flip, size: size, random: true, minScale: 0.08, uncoloured: true}
}

// Eval is the view of evaluation, recipe none: a source of size×size is taken
// as it is; otherwise the shorter side is resized (to 8/7·size for sizes from
// 112, which is the usual 256 for 224; to size itself for small images, whose
// border matters) and the centre is cropped. It panics when size is below 1.
func Eval(size int) Recipe {
	r, err := New(None, size)
	if err != nil {
		panic("augment: " + err.Error())
	}
	return r
}

// Name is the recipe's name on the command line.
func (r Recipe) Name() string { return r.name }

// Size is the height and width of a view, pixels.
func (r Recipe) Size() int { return r.size }

// Resized is the length to which Eval resizes the shorter side, pixels.
func (r Recipe) Resized() int {
	if r.size >= 112 {
		return r.size * 8 / 7
	}
	return r.size
}

// Normalization is what a view's channels are normalised with: (v − mean)/std for
// v in [0, 1].
func (r Recipe) Normalization() (ofMean, ofStd [Channels]float32) { return mean, std }

// ViewLen is the length of a view [3, S, S] in float32.
func (r Recipe) ViewLen() int { return Channels * r.size * r.size }
