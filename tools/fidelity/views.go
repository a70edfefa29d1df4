package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"mochi/replica/augment"
	"mochi/replica/data"
)

// drawsSpec asks for what is drawn for images of one size.
type drawsSpec struct {
	Recipe         string
	Size           int // of a view
	Width, Height  int // of the images
	Seed           uint64
	Samples, Epoch int
}

// showDraws writes the parameters of both views of each sample.
func showDraws(s drawsSpec, out *tensors) error {
	recipe, err := augment.New(s.Recipe, s.Size)
	if err != nil {
		return err
	}
	for view, name := range []string{"query", "key"} {
		var p parameters
		for i := range s.Samples {
			p.add(recipe.Draw(s.Width, s.Height, augment.Seed(s.Seed, s.Epoch, i, view)))
		}
		p.write(out, name+".")
	}
	return nil
}

// parameters are those of many views.
type parameters struct {
	crop, resized, flags, order []int32
	factor                      []float64
}

func (p *parameters) add(v augment.Params) {
	p.crop = append(p.crop, int32(v.Crop.Top), int32(v.Crop.Left), int32(v.Crop.Height), int32(v.Crop.Width))
	p.resized = append(p.resized, int32(v.ResizeW), int32(v.ResizeH), int32(v.WindowX), int32(v.WindowY))
	for _, set := range []bool{v.Jitter, v.Grayscale, v.BlurRadius > 0, v.Flip} {
		if set {
			p.flags = append(p.flags, 1)
		} else {
			p.flags = append(p.flags, 0)
		}
	}
	for _, part := range v.Order {
		p.order = append(p.order, int32(part))
	}
	p.factor = append(p.factor, float64(v.Factor[0]), float64(v.Factor[1]), float64(v.Factor[2]), v.HueShift, float64(v.BlurRadius))
}

// write writes them: crop [n, top left height width], resized [n, width height
// x y], flags [n, jitter grey blur flip], order [n, 4] of brightness, contrast,
// saturation, hue, factor [n, brightness contrast saturation hue sigma].
func (p *parameters) write(out *tensors, prefix string) {
	n := len(p.crop) / 4
	add(out, prefix+"crop", p.crop, n, 4)
	add(out, prefix+"resized", p.resized, n, 4)
	add(out, prefix+"flags", p.flags, n, 4)
	add(out, prefix+"order", p.order, n, 4)
	add(out, prefix+"factor", p.factor, n, 5)
}

// viewsSpec asks for views of all images of a folder.
type viewsSpec struct {
	Images string // folder
	Recipe string
	Size   int
	Seed   uint64
	Epochs int // two views of each image in each
}

// showViews writes views [n, 3, S, S] with their parameters, image by image in
// the order of their names, epoch by epoch, query before key.
func showViews(s viewsSpec, out *tensors) error {
	recipe, err := augment.New(s.Recipe, s.Size)
	if err != nil {
		return err
	}
	worker := augment.NewWorker(recipe)
	var p parameters
	var pixels []float32
	err = eachImage(s.Images, func(i int, img *augment.Image) {
		for epoch := range s.Epochs {
			for view := range 2 {
				params := recipe.Draw(img.W, img.H, augment.Seed(s.Seed, epoch, i, view))
				at := len(pixels)
				pixels = append(pixels, make([]float32, recipe.ViewLen())...)
				worker.Apply(img, params, pixels[at:])
				p.add(params)
			}
		}
	})
	if err != nil {
		return err
	}
	p.write(out, "")
	add(out, "views", pixels, len(pixels)/recipe.ViewLen(), augment.Channels, s.Size, s.Size)
	return nil
}

// decodedSpec asks for the pixels of all images of a folder.
type decodedSpec struct{ Images string }

// showDecoded writes each image [height, width, 3] under its file's name.
func showDecoded(s decodedSpec, out *tensors) error {
	names, err := imagesIn(s.Images)
	if err != nil {
		return err
	}
	return eachImage(s.Images, func(i int, img *augment.Image) {
		add(out, names[i], img.Pix, img.H, img.W, augment.Channels)
	})
}

func imagesIn(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, err
}

// eachImage decodes the images of a folder in the order of their names.
func eachImage(dir string, f func(i int, img *augment.Image)) error {
	names, err := imagesIn(dir)
	if err != nil {
		return err
	}
	d := data.NewDecoder()
	defer d.Close()
	for i, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		img, err := d.Decode(content, 1<<28)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		f(i, img)
	}
	return nil
}
