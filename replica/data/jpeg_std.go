package data

import (
	"bytes"
	"image/jpeg"

	"mochi/replica/augment"
)

// jpegDecoder is what a Decoder keeps for JPEG images: nothing.
type jpegDecoder struct{}

func (jpegDecoder) close() {}

// decodeJPEG decodes a JPEG image of w×h pixels into d's image.
func decodeJPEG(d *Decoder, content []byte, w, h int) (*augment.Image, error) {
	if d.Region != nil {
		d.Region(w, h) // all of it is decoded
	}
	m, err := jpeg.Decode(bytes.NewReader(content))
	if err != nil {
		return nil, cut(err)
	}
	return toRGB(m, d), nil
}
