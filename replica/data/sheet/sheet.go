// Package sheet draws a contact sheet: originals of a data set with the two
// views that a recipe makes of them, side by side, because people would rather
// look than read.
//
// Cost: each image is decoded once, by one goroutine; the sheet is held in
// memory, 4 bytes a pixel.
package sheet

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/png"

	"mochi/replica/augment"
	"mochi/replica/data"
)

// Options select what a sheet shows.
type Options struct {
	Images  int    // originals; default 16
	Columns int    // originals a row; default 2
	Seed    uint64 // of the augmentation, as in training
	Epoch   int    // whose views
}

const (
	margin    = 8   // pixels between pictures
	leastCell = 96  // pixels a side of a picture on the sheet
	mostCell  = 224 // larger views are shown smaller
)

// Draw makes the sheet of images spread evenly over d: each original scaled to
// fit, its query view and its key view exactly as an encoder sees them in
// training. Images that cannot be decoded are shown as a red square and listed.
func Draw(ctx context.Context, d data.Dataset, recipe augment.Recipe, o Options) (*image.RGBA, []*data.CorruptError, error) {
	if o.Images < 1 {
		o.Images = 16
	}
	if o.Columns < 1 {
		o.Columns = 2
	}
	n := min(o.Images, d.Len())
	o.Columns = min(o.Columns, n)
	zoom := 1
	for recipe.Size()*zoom < leastCell {
		zoom++
	}
	cell := min(recipe.Size()*zoom, mostCell)
	rows := (n + o.Columns - 1) / o.Columns
	const pictures = 3 // original, query, key
	groupWidth := pictures*(cell+margin) + 2*margin
	sheet := image.NewRGBA(image.Rect(0, 0, o.Columns*groupWidth, rows*(cell+margin)+margin))
	for i := range sheet.Pix {
		sheet.Pix[i] = 0xff
	}
	decoder, worker := data.NewDecoder(), augment.NewWorker(recipe)
	defer decoder.Close()
	views := [2][]float32{make([]float32, recipe.ViewLen()), make([]float32, recipe.ViewLen())}
	var corrupt []*data.CorruptError
	for k := range n {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		sample := int(int64(k) * int64(d.Len()) / int64(n))
		x, y := k%o.Columns*groupWidth+margin, k/o.Columns*(cell+margin)+margin
		img, err := d.Decode(sample, decoder)
		var bad *data.CorruptError
		if errors.As(err, &bad) {
			corrupt = append(corrupt, bad)
			fill(sheet, image.Rect(x, y, x+cell, y+cell), color.RGBA{200, 30, 30, 255})
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("preview: %w", err)
		}
		original(sheet, x, y, cell, img)
		for v, view := range views {
			worker.View(img, augment.Seed(o.Seed, o.Epoch, sample, v), view)
			paste(sheet, x+(v+1)*(cell+margin), y, cell, recipe.Size(), view)
		}
	}
	return sheet, corrupt, nil
}

// Thumbnail is an image scaled to fit into a white square of side pixels.
func Thumbnail(img *augment.Image, side int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, side, side))
	fill(m, m.Rect, color.RGBA{255, 255, 255, 255})
	original(m, 0, 0, side, img)
	return m
}

// Embedded is an image as a data: address, which a page holds itself.
func Embedded(m image.Image) (template.URL, error) {
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		return "", err
	}
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())), nil
}

func fill(sheet *image.RGBA, r image.Rectangle, c color.RGBA) {
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			sheet.SetRGBA(x, y, c)
		}
	}
}

// original draws img into the square cell, scaled to fit: the mean of the
// source pixels under each pixel, or the nearest one where it is enlarged.
func original(sheet *image.RGBA, x0, y0, cell int, img *augment.Image) {
	w, h := cell, cell
	if img.W > img.H {
		h = max(1, cell*img.H/img.W)
	} else {
		w = max(1, cell*img.W/img.H)
	}
	x0, y0 = x0+(cell-w)/2, y0+(cell-h)/2
	for y := range h {
		top, bottom := y*img.H/h, max(y*img.H/h+1, (y+1)*img.H/h)
		for x := range w {
			left, right := x*img.W/w, max(x*img.W/w+1, (x+1)*img.W/w)
			var sum [augment.Channels]int
			for sy := top; sy < bottom; sy++ {
				for sx := left; sx < right; sx++ {
					for c := range sum {
						sum[c] += int(img.Pix[(sy*img.W+sx)*augment.Channels+c])
					}
				}
			}
			n := (bottom - top) * (right - left)
			sheet.SetRGBA(x0+x, y0+y, color.RGBA{uint8(sum[0] / n), uint8(sum[1] / n), uint8(sum[2] / n), 255})
		}
	}
}

// paste draws a normalised view [3, size, size], the nearest pixel for each
// of the sheet's.
func paste(sheet *image.RGBA, x0, y0, cell, size int, view []float32) {
	for y := range cell {
		for x := range cell {
			at := y*size/cell*size + x*size/cell
			var px [augment.Channels]uint8
			for c := range px {
				px[c] = augment.Pixel(view[c*size*size+at], c)
			}
			sheet.SetRGBA(x0+x, y0+y, color.RGBA{px[0], px[1], px[2], 255})
		}
	}
}
