// Command augment-fidelity writes what mochi's augmentation does to a folder
// of photos and what it draws, for compare.py to set beside torchvision.
//
//	go run -tags 'turbojpeg simd' ./tools/augment-fidelity PHOTOS OUT 200
//	python3 tools/augment-fidelity/compare.py OUT
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"mochi/replica/augment"
	"mochi/replica/data"
)

const size = 224

// view is one transform of one photo; its pixels are view number Index of
// pixels.f32.
type view struct {
	Photo  string
	Name   string
	Index  int
	Params augment.Params
}

// draws of one image size, by torchvision's names.
type draws struct {
	W, H int
	Crop [][4]int // top, left, height, width
	Jitter,
	Hue, Sigma []float64 // brightness factor, hue shift, blur's σ
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(photos, out, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	pixels, err := os.Create(filepath.Join(out, "pixels.f32"))
	if err != nil {
		return err
	}
	defer pixels.Close()
	recipe, err := augment.New(augment.MoCoV2, size)
	if err != nil {
		return err
	}
	worker, decoder := augment.NewWorker(recipe), data.NewDecoder()
	dst := make([]float32, recipe.ViewLen())
	var views []view
	err = filepath.WalkDir(photos, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".jpg") || len(views) >= 9*n {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		img, err := decoder.Decode(content, 1<<28)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, v := range transforms(img.W, img.H, recipe, len(views)/9) {
			v.Photo, v.Index = path, len(views)
			views = append(views, v)
			worker.Apply(img, v.Params, dst)
			if err := binary.Write(pixels, binary.LittleEndian, dst); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := write(filepath.Join(out, "views.json"), views); err != nil {
		return err
	}
	return write(filepath.Join(out, "draws.json"), drawn(recipe, 500, 375))
}

// transforms are each transform alone, all together, on one crop of the photo.
func transforms(w, h int, r augment.Recipe, photo int) []view {
	full := r.Draw(w, h, augment.Seed(1, 0, photo, 0))
	bare := augment.Params{Crop: full.Crop, ResizeW: size, ResizeH: size, Order: [4]uint8{9, 9, 9, 9}}
	all := []view{{Name: "resize", Params: bare}}
	one := func(name string, change func(*augment.Params)) {
		p := bare
		change(&p)
		all = append(all, view{Name: name, Params: p})
	}
	part := func(p *augment.Params, part uint8) {
		p.Jitter, p.Order[0] = true, part
		p.Factor = [3]float32{0.7, 1.3, 1.4}
		p.HueShift = 0.08
	}
	one("brightness", func(p *augment.Params) { part(p, augment.Brightness) })
	one("contrast", func(p *augment.Params) { part(p, augment.Contrast) })
	one("saturation", func(p *augment.Params) { part(p, augment.Saturation) })
	one("hue", func(p *augment.Params) { part(p, augment.Hue) })
	one("grey", func(p *augment.Params) { p.Grayscale = true })
	one("blur", func(p *augment.Params) { p.BlurRadius = 0.1 + 1.9*float32(photo%20)/20 })
	one("flip", func(p *augment.Params) { p.Flip = true })
	return append(all, view{Name: "all, as drawn", Params: full})
}

func drawn(r augment.Recipe, w, h int) draws {
	d := draws{W: w, H: h}
	for i := range 20000 {
		p := r.Draw(w, h, augment.Seed(11, 0, i, 0))
		d.Crop = append(d.Crop, [4]int{p.Crop.Top, p.Crop.Left, p.Crop.Height, p.Crop.Width})
		if p.Jitter {
			d.Jitter = append(d.Jitter, float64(p.Factor[augment.Brightness]))
			d.Hue = append(d.Hue, p.HueShift)
		}
		if p.BlurRadius > 0 {
			d.Sigma = append(d.Sigma, float64(p.BlurRadius))
		}
	}
	return d
}

func write(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
