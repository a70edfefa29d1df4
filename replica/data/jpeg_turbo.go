//go:build turbojpeg

package data

import (
	"mochi/replica/augment"
	"mochi/replica/data/turbojpeg"
)

// JPEGDecoder names what decodes JPEG in this build.
func JPEGDecoder() string { return "libjpeg-turbo " + turbojpeg.Version() }

// decodeJPEG decodes a JPEG image, whose frame header was read, into d's image, by
// libjpeg-turbo, as far as d.Region wants it.
func decodeJPEG(d *Decoder, content []byte, f turbojpeg.Frame) (*augment.Image, error) {
	w, h := f.W, f.H
	region := turbojpeg.Region{Height: h, Width: w}
	if d.Region != nil {
		if r := d.Region(w, h); r.Height > 0 && r.Width > 0 {
			region = turbojpeg.Region(r)
		}
	}
	img := d.Image(w, h)
	unended, err := turbojpeg.Decode(content, w, h, region, img.Pix)
	if err == nil && unended && !f.Complete() {
		err = errCut
	}
	if err != nil {
		return nil, err
	}
	return img, nil
}
