package evaluate

import (
	"image"
	"image/color"

	"mochi/replica/augment"
	"mochi/replica/data"
	"mochi/replica/data/sheet"
)

// pictures makes square thumbnails of samples: their centre, as evaluation sees it.
type pictures struct {
	decoder *data.Decoder
	worker  *augment.Worker
	size    int // pixels
	view    []float32
}

func newPictures(size int) *pictures {
	r := augment.Eval(size)
	return &pictures{decoder: data.NewDecoder(), worker: augment.NewWorker(r), size: size, view: make([]float32, r.ViewLen())}
}

// draw is a sample as an image.
func (p *pictures) draw(ds data.Dataset, sample int) (*image.NRGBA, error) {
	img, err := ds.Decode(sample, p.decoder)
	if err != nil {
		return nil, err
	}
	p.worker.View(img, nil, p.view)
	out, plane := image.NewNRGBA(image.Rect(0, 0, p.size, p.size)), p.size*p.size
	value := func(c, at int) uint8 { return augment.Pixel(p.view[c*plane+at], c) }
	for at := range plane {
		out.SetNRGBA(at%p.size, at/p.size, color.NRGBA{value(0, at), value(1, at), value(2, at), 255})
	}
	return out, nil
}

// of is a sample as a data: address.
func (p *pictures) of(ds data.Dataset, sample int, class string) (picture, error) {
	img, err := p.draw(ds, sample)
	if err != nil {
		return picture{}, err
	}
	address, err := sheet.Embedded(img)
	return picture{Path: ds.Path(sample), Class: class, Image: address}, err
}
