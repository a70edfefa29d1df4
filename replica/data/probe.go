package data

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"image"
	"image/jpeg"
	"sync"

	"mochi/replica/augment"
)

// decoderIdentity names what decodes JPEG here, with a digest of the pixels that
// it makes of a picture: the library that a program was built with need not be
// the one that it finds when it runs.
var decoderIdentity = sync.OnceValue(func() string {
	return fmt.Sprintf("%s (pixels %s)", JPEGDecoder(), probe())
})

// probe is a digest of a decoded picture.
func probe() string {
	content, err := probeFile()
	if err != nil {
		return "none: " + err.Error()
	}
	d := NewDecoder()
	defer d.Close()
	img, err := d.Decode(content, 1<<20)
	if err != nil {
		return "none: " + err.Error()
	}
	return digestOf(img)
}

// probeFile is a JPEG file of edges in colour, which is halved in both directions:
// there decoders differ most.
func probeFile() ([]byte, error) {
	m := image.NewYCbCr(image.Rect(0, 0, 61, 43), image.YCbCrSubsampleRatio420)
	x := uint32(1)
	for _, plane := range [][]uint8{m.Y, m.Cb, m.Cr} {
		for i := range plane {
			if i%5 == 0 {
				x = x*1664525 + 1013904223
			}
			plane[i] = uint8(x >> 24)
		}
	}
	var file bytes.Buffer
	err := jpeg.Encode(&file, m, &jpeg.Options{Quality: 75})
	return file.Bytes(), err
}

func digestOf(img *augment.Image) string {
	sum := sha256.Sum256(img.Pix)
	return fmt.Sprintf("%x", sum[:6])
}
