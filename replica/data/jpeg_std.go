//go:build !turbojpeg

package data

import (
	"bytes"
	"errors"
	"image/jpeg"
	"io"

	"mochi/replica/augment"
	"mochi/replica/data/turbojpeg"
)

// JPEGDecoder names what decodes JPEG in this build.
func JPEGDecoder() string { return "Go's image/jpeg" }

// decodeJPEG decodes a JPEG image, whose frame header was read, into d's image, by
// the standard library, all of it whatever d.Region wants.
func decodeJPEG(d *Decoder, content []byte, f turbojpeg.Frame) (*augment.Image, error) {
	if d.Region != nil {
		d.Region(f.W, f.H)
	}
	m, err := jpeg.Decode(bytes.NewReader(content))
	if errors.Is(err, io.ErrUnexpectedEOF) && f.Complete() { // only its end mark may be missing
		m, err = jpeg.Decode(io.MultiReader(bytes.NewReader(content), bytes.NewReader([]byte{0xff, 0xd9})))
		if err != nil {
			err = errCut
		}
	}
	if err != nil {
		return nil, cut(err)
	}
	return toRGB(m, d), nil
}
