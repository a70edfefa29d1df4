package evaluate

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"image"
	"image/draw"
	"image/png"
	"math"
	"os"
	"slices"

	"mochi/model/engine"
	"mochi/replica/augment"
	"mochi/replica/data"
)

//go:embed neighbours.html
var neighboursPage string

// Neighbour is an image whose feature is near to that of another one.
type Neighbour struct {
	Path   string  `json:"path"`
	Split  string  `json:"split"`           // train or test
	Class  string  `json:"class,omitempty"` // its name
	Cosine float64 `json:"cosine"`          // between the two features

	ds     data.Dataset
	sample int
}

// Neighbours are the images nearest to one, and that.
type Neighbours struct {
	Of   string
	Near []Neighbour // the nearest first; ties in the order of the data

	one single
}

// Nearest finds the k images of the splits whose features have the largest cosine with
// that of the image in a file. Of o, Normalize has no meaning.
func (e *Encoders) Nearest(ctx context.Context, path string, k int, splits map[string]data.Dataset, o EmbedOptions) (*Neighbours, error) {
	n := &Neighbours{Of: path}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	n.one = single{path, content}
	query, err := e.featureOf(ctx, n.one, o)
	if err != nil {
		return nil, err
	}
	_, err = e.Embed(ctx, splits, o, func(list []Embedded) error {
		for _, x := range list {
			near := Neighbour{Path: x.Path, Split: x.Split, Cosine: cosine(query, x.Feature), ds: splits[x.Split], sample: x.Sample}
			if x.Label >= 0 {
				near.Class = className(near.ds, int(x.Label))
			}
			at, _ := slices.BinarySearchFunc(n.Near, near, func(a, b Neighbour) int {
				return cmp.Or(cmp.Compare(b.Cosine, a.Cosine), -1) // behind its equals
			})
			if n.Near = slices.Insert(n.Near, at, near); len(n.Near) > k {
				n.Near = n.Near[:k]
			}
		}
		return nil
	})
	return n, err
}

// featureOf is the feature of one image.
func (e *Encoders) featureOf(ctx context.Context, one single, o EmbedOptions) (feature []float32, err error) {
	which := engine.Query
	if o.Key {
		which = engine.Key
	}
	x, err := e.extractor(which, o.Feature)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	var fault error
	w := watch{corrupt: func(e *data.CorruptError) { fault = e }}
	err = x.run(ctx, all(one, 0), plain(x.net.image), w, func(r rows) error {
		if len(r.samples) == 1 {
			feature = slices.Clone(r.features[0][:x.lengths[0]])
		}
		return nil
	})
	return feature, errors.Join(err, fault)
}

// cosine is that of the angle between two features, 0 where one is all 0.
func cosine(a, b []float32) float64 {
	var dot, aa, bb float64
	for i, v := range a {
		dot += float64(v) * float64(b[i])
		aa += float64(v) * float64(v)
		bb += float64(b[i]) * float64(b[i])
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return dot / math.Sqrt(aa*bb)
}

// single is a data set of one image file.
type single struct {
	path    string
	content []byte
}

func (single) Len() int          { return 1 }
func (single) Classes() int      { return 0 }
func (single) Label(int) int32   { return -1 }
func (s single) Path(int) string { return s.path }

func (s single) Decode(_ int, d *data.Decoder) (*augment.Image, error) {
	img, err := d.Decode(s.content, data.DefaultOptions().MaxPixels)
	if err != nil {
		return nil, &data.CorruptError{Path: s.path, Err: err}
	}
	return img, nil
}

// Of a sheet.
const (
	sheetCell   = 128 // pixels a side of a picture
	sheetGap    = 8
	sheetAcross = 6 // pictures a row
)

// Page is the sheet as a page that needs nothing else: pictures with class, cosine and
// path.
func (n *Neighbours) Page() ([]byte, error) {
	p := newPictures(sheetCell)
	defer p.decoder.Close()
	one, err := p.of(n.one, 0, "")
	if err != nil {
		return nil, err
	}
	type shown struct {
		picture
		Split, Cosine string
	}
	var near []shown
	for _, x := range n.Near {
		pic, err := p.of(x.ds, x.sample, x.Class)
		if err != nil {
			return nil, err
		}
		near = append(near, shown{pic, x.Split, fmt.Sprintf("%.3f", x.Cosine)})
	}
	page, err := template.New("neighbours").Parse(neighboursPage)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = page.Execute(&b, map[string]any{"One": one, "Near": near})
	return b.Bytes(), err
}

// Picture is the sheet as a PNG: the image, then its neighbours, from left to right.
func (n *Neighbours) Picture() ([]byte, error) {
	p := newPictures(sheetCell)
	defer p.decoder.Close()
	count := len(n.Near) + 1
	across := min(count, sheetAcross)
	const step = sheetCell + sheetGap
	sheet := image.NewNRGBA(image.Rect(0, 0, across*step+sheetGap, (count+across-1)/across*step+sheetGap))
	draw.Draw(sheet, sheet.Bounds(), image.White, image.Point{}, draw.Src)
	for i := range count {
		var ds data.Dataset = n.one
		sample := 0
		if i > 0 {
			ds, sample = n.Near[i-1].ds, n.Near[i-1].sample
		}
		img, err := p.draw(ds, sample)
		if err != nil {
			return nil, err
		}
		at := image.Pt(i%across*step+sheetGap, i/across*step+sheetGap)
		draw.Draw(sheet, image.Rectangle{Min: at, Max: at.Add(img.Rect.Size())}, img, image.Point{}, draw.Src)
	}
	var b bytes.Buffer
	err := png.Encode(&b, sheet)
	return b.Bytes(), err
}
