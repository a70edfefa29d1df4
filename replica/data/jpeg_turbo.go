//go:build turbojpeg

package data

import (
	"mochi/replica/augment"
	"mochi/replica/data/turbojpeg"
)

// JPEGDecoder names what decodes JPEG in this build.
func JPEGDecoder() string { return "libjpeg-turbo " + turbojpeg.Version() }

// decodeJPEG decodes a JPEG image of w×h pixels into d's image, by
// libjpeg-turbo, as far as d.Region wants it.
func decodeJPEG(d *Decoder, content []byte, w, h int) (*augment.Image, error) {
	region := turbojpeg.Region{Height: h, Width: w}
	if d.Region != nil {
		if r := d.Region(w, h); r.Height > 0 && r.Width > 0 {
			region = turbojpeg.Region(r)
		}
	}
	img := d.Image(w, h)
	if err := turbojpeg.Decode(content, w, h, region, img.Pix); err != nil {
		return nil, err
	}
	return img, nil
}
