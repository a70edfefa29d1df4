package data

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"

	"mochi/replica/augment"
	"mochi/replica/data/turbojpeg"
)

// Decoder decodes images to RGB, upright. It reuses its buffers, so it serves
// one goroutine; what its methods return is its own until their next call.
// (See the package comment for how each kind of image becomes RGB.)
type Decoder struct {
	// Region, when not nil, is told the size of each JPEG or PNG image before
	// its pixels are decoded, and returns the part that will be looked at. The
	// pixels outside are unspecified then; width and height stay those of the
	// whole.
	Region func(w, h int) augment.Rect

	content []byte
	image   augment.Image
}

// kept is the largest buffer that a Decoder keeps for later use, bytes: one
// poster among photos must not stay in memory.
const kept = 32 << 20

// NewDecoder makes a decoder; Close it after use.
func NewDecoder() *Decoder { return &Decoder{} }

// Close lets go of the buffers, of which an image may still hold one.
func (d *Decoder) Close() { d.content, d.image = nil, augment.Image{} }

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

// Decode decodes a JPEG or PNG image of at most maxPixels.
func (d *Decoder) Decode(content []byte, maxPixels int) (*augment.Image, error) {
	head, err := readSize(content)
	if err != nil {
		return nil, err
	}
	if int64(head.Width)*int64(head.Height) > int64(maxPixels) {
		return nil, fmt.Errorf("image of %d×%d pixels: the limit is %d", head.Width, head.Height, maxPixels)
	}
	if head.Format == PNG {
		if d.Region != nil {
			d.Region(head.Width, head.Height)
		}
		m, err := png.Decode(bytes.NewReader(content))
		if err != nil {
			return nil, cut(err)
		}
		return toRGB(m, d), nil
	}
	if head.Orientation <= 1 {
		return decodeJPEG(d, content, head.Width, head.Height)
	}
	region := d.Region
	d.Region = nil // would be told the size before the image is turned
	img, err := decodeJPEG(d, content, head.Width, head.Height)
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

// readSize is ReadHeader without the colours; for JPEG it allocates nothing.
func readSize(content []byte) (Header, error) {
	if kindOf(content) != jpegImage {
		return ReadHeader(content)
	}
	w, h, err := turbojpeg.Size(content)
	if err != nil {
		return Header{}, cut(err)
	}
	return Header{Format: JPEG, Width: w, Height: h, Orientation: orientationOf(content)}, nil
}
