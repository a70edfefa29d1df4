package data

import (
	"context"
	"errors"

	"mochi/replica/augment"
	"mochi/replica/data/turbojpeg"
)

// Decoder decodes images to RGB, upright. It reuses its buffers, so it serves
// one goroutine; what its methods return is its own until their next call.
// (See the package comment for how each kind of image becomes RGB.)
type Decoder struct {
	// Region, when not nil, is told the size of each image file before
	// its pixels are decoded, and returns the part that will be looked at. The
	// pixels outside are unspecified then; width and height stay those of the
	// whole.
	Region func(w, h int) augment.Rect

	// Wanted ends what waits for another machine; nil: nothing does. (It is the loader's,
	// whose workers each have one decoder for all of their samples.)
	Wanted context.Context

	content []byte
	image   augment.Image

	packed, rows []byte // of a PNG file: its chunks in one piece, its rows

	file, decoding ticket // of the data set's budget
}

// kept is the largest buffer that a Decoder keeps for later use, bytes: one
// poster among photos must not stay in memory.
const kept = 32 << 20

// NewDecoder makes a decoder; Close it after use.
func NewDecoder() *Decoder { return &Decoder{} }

// Close lets go of the buffers, of which an image may still hold one.
func (d *Decoder) Close() {
	d.file.give()
	d.content, d.image, d.packed, d.rows = nil, augment.Image{}, nil, nil
}

// Trim lets go of what a large image has left: its buffers would stay until the
// next one.
func (d *Decoder) Trim() {
	d.file.give()
	if cap(d.content) > kept {
		d.content = nil
	}
	if cap(d.image.Pix) > kept {
		d.image = augment.Image{}
	}
	if cap(d.packed)+cap(d.rows) > uncounted {
		d.packed, d.rows = nil, nil
	}
}

// Content returns n bytes to read a file into.
func (d *Decoder) Content(n int) []byte {
	if cap(d.content) < n || cap(d.content) > kept {
		d.content = make([]byte, n)
	}
	d.content = d.content[:n]
	return d.content
}

// Image returns an image of w×h pixels to fill.
func (d *Decoder) Image(w, h int) *augment.Image {
	n := w * h * augment.Channels
	if cap(d.image.Pix) < n || cap(d.image.Pix) > kept {
		d.image.Pix = make([]uint8, n)
	}
	d.image = augment.Image{W: w, H: h, Pix: d.image.Pix[:n]}
	return &d.image
}

var errEmpty = errors.New("the file is empty")

// Decode decodes an image file of at most maxPixels.
func (d *Decoder) Decode(content []byte, maxPixels int) (*augment.Image, error) {
	return d.decode(content, maxPixels, nil)
}

// decode is Decode within a budget, nil for none.
func (d *Decoder) decode(content []byte, maxPixels int, b *budget) (*augment.Image, error) {
	var room [4]turbojpeg.Component
	head, f, err := readHeader(content, room[:0])
	if err != nil {
		return nil, err
	}
	if err := head.check(f, maxPixels); err != nil {
		return nil, err
	}
	if b != nil {
		d.decoding.take(b.images, head.cost(f, content), b.memory)
		defer d.decoding.give()
	}
	if head.Format != JPEG {
		defer d.decoding.collect()
	}
	if head.Orientation <= 1 {
		return d.stored(content, head, f)
	}
	region := d.Region
	d.Region = nil // would be told the size before the image is turned
	img, err := d.stored(content, head, f)
	d.Region = region
	if err != nil {
		return nil, err
	}
	if head.Orientation >= 5 {
		head.Width, head.Height = head.Height, head.Width
	}
	if region != nil {
		region(head.Width, head.Height)
	}
	return upright(img, head.Orientation), nil
}

// stored decodes an image as it is stored. Of JPEG only what d.Region wants.
func (d *Decoder) stored(content []byte, head Header, f turbojpeg.Frame) (*augment.Image, error) {
	if head.Format == JPEG {
		return decodeJPEG(d, content, f)
	}
	if d.Region != nil {
		d.Region(head.Width, head.Height)
	}
	if head.Format == PNG {
		return decodePNG(d, content)
	}
	return decodeOther(d, content, head)
}

// check refuses what is too large, or would keep a decoder busy.
func (h Header) check(f turbojpeg.Frame, maxPixels int) error {
	if err := checkSize(h.Width, h.Height, maxPixels); err != nil || h.Format != JPEG {
		return err
	}
	return checkScans(f)
}

// cost is how many bytes it takes to decode the image.
func (h Header) cost(f turbojpeg.Frame, content []byte) int64 {
	switch h.Format {
	case JPEG:
		return costOfJPEG(f)
	case PNG:
		return costOfPNG(content)
	}
	return int64(h.Width) * int64(h.Height) * bytesPerPixel
}

// Usable is ReadHeader within the limits of the set: what it refuses is refused when
// it is trained on, with the same words.
func (s *Set) Usable(content []byte) (Header, error) {
	h, f, err := readHeader(content, nil)
	if err == nil && s.bounds != nil {
		err = h.check(f, s.bounds.Load().pixels)
	}
	return h, err
}
