package data

import (
	"bytes"
	"errors"
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
	d.content, d.image = nil, augment.Image{}
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

// Decode decodes a JPEG or PNG image of at most maxPixels.
func (d *Decoder) Decode(content []byte, maxPixels int) (*augment.Image, error) {
	return d.decode(content, maxPixels, nil)
}

// decode is Decode within a budget, nil for none.
func (d *Decoder) decode(content []byte, maxPixels int, b *budget) (*augment.Image, error) {
	head, cost, err := readSize(content, maxPixels)
	if err != nil {
		return nil, err
	}
	if b != nil {
		d.decoding.take(b.images, cost, b.memory)
		defer d.decoding.give()
	}
	if head.Format == PNG {
		defer d.decoding.collect()
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

// readSize is ReadHeader without the colours, with how many bytes it takes to
// decode the image, which is not too large; for JPEG it allocates nothing.
func readSize(content []byte, maxPixels int) (head Header, cost int64, err error) {
	if kindOf(content) != jpegImage {
		if head, err = ReadHeader(content); err != nil {
			return head, 0, err
		}
		return head, costOfPNG(content), checkSize(head.Width, head.Height, maxPixels)
	}
	var room [4]turbojpeg.Component
	f, err := turbojpeg.ReadFrame(content, room[:0])
	if err != nil {
		return head, 0, cut(err)
	}
	if err := checkSize(f.W, f.H, maxPixels); err != nil {
		return head, 0, err
	}
	if err := checkScans(f); err != nil {
		return head, 0, err
	}
	return Header{Format: JPEG, Width: f.W, Height: f.H, Orientation: orientationOf(content)}, costOfJPEG(f), nil
}
