//go:build !turbojpeg

package data

import (
	"bytes"
	"image/jpeg"

	"mochi/replica/augment"
)

// JPEGDecoder names what decodes JPEG in this build.
func JPEGDecoder() string { return "Go's image/jpeg" }

// decodeJPEG decodes a JPEG image of w×h pixels into d's image, by the
// standard library, all of it whatever d.Region wants.
func decodeJPEG(d *Decoder, content []byte, w, h int) (*augment.Image, error) {
	if d.Region != nil {
		d.Region(w, h)
	}
	m, err := jpeg.Decode(bytes.NewReader(content))
	if err != nil {
		return nil, cut(err)
	}
	return toRGB(m, d), nil
}
