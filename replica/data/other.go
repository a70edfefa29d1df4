package data

import (
	"bytes"
	"fmt"
	"image"
	"image/color"

	"mochi/replica/augment"
)

// decodeOther decodes what is neither JPEG nor PNG, by its library, whole.
func decodeOther(d *Decoder, content []byte, head Header) (img *augment.Image, err error) {
	defer func() { // a library that gives up so must not end the program
		if p := recover(); p != nil {
			img, err = nil, fmt.Errorf("its decoder gave up: %v", p)
		}
	}()
	m, err := otherFormat(kindOf(content[:headLength])).decode(bytes.NewReader(content))
	if err != nil {
		return nil, cut(err)
	}
	if b := m.Bounds(); head.Format != GIF && (b.Dx() != head.Width || b.Dy() != head.Height) {
		return nil, fmt.Errorf("the header says %d×%d pixels, and there are %d×%d", head.Width, head.Height, b.Dx(), b.Dy())
	}
	switch m := m.(type) {
	case *image.Paletted:
		if head.Format == GIF {
			return onScreen(d, m, head.Width, head.Height), nil
		}
	case *image.YCbCr:
		return videoRGB(d, m), nil
	case *image.NYCbCrA:
		return videoRGB(d, &m.YCbCr), nil
	}
	return toRGB(m, d), nil
}

// onScreen puts the first frame of a GIF file on its screen, whose other pixels have
// the palette's first colour. Transparent pixels are black.
func onScreen(d *Decoder, m *image.Paletted, w, h int) *augment.Image {
	out := d.Image(w, h)
	colours := make([][3]uint8, 256)
	for i, c := range m.Palette {
		c := color.NRGBAModel.Convert(c).(color.NRGBA)
		colours[i] = [3]uint8{c.R, c.G, c.B}
	}
	at := 0
	for y := range h {
		for x := range w {
			i := uint8(0)
			if (image.Point{x, y}).In(m.Rect) {
				i = m.ColorIndexAt(x, y)
			}
			copy(out.Pix[at:at+3], colours[i][:])
			at += 3
		}
	}
	return out
}

// videoRGB converts the luma and chroma of WebP's lossy format as libwebp does:
// chroma, which has half the size, is interpolated (9, 3, 3 and 1 sixteenths of the
// four nearest values), and the values are those of television: luma from 16 to 235.
// (Go's conversion of image.YCbCr is JFIF's.)
func videoRGB(d *Decoder, m *image.YCbCr) *augment.Image {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	out := d.Image(w, h)
	cw, ch := (w+1)/2, (h+1)/2
	at := 0
	for y := range h {
		near, far := y/2, min(max(y/2+2*(y&1)-1, 0), ch-1)
		luma := m.Y[y*m.YStride:]
		for x := range w {
			left, right := x/2, min(max(x/2+2*(x&1)-1, 0), cw-1)
			mix := func(plane []uint8) int {
				n, h := int(plane[near*m.CStride+left]), int(plane[near*m.CStride+right])
				v, diagonal := int(plane[far*m.CStride+left]), int(plane[far*m.CStride+right])
				return ((n+h+v+diagonal+8+2*(h+v))>>3 + n) >> 1
			}
			yy, u, v := int(luma[x])*19077>>8, mix(m.Cb), mix(m.Cr)
			out.Pix[at] = clip6(yy + v*26149>>8 - 14234)
			out.Pix[at+1] = clip6(yy - u*6419>>8 - v*13320>>8 + 8708)
			out.Pix[at+2] = clip6(yy + u*33050>>8 - 17685)
			at += 3
		}
	}
	return out
}

// clip6 drops 6 fractional bits.
func clip6(v int) uint8 { return uint8(min(max(v>>6, 0), 255)) }
