package data

import (
	"image"
	"image/color"

	"mochi/replica/augment"
)

// toRGB converts what image/jpeg and image/png return into d's image.
func toRGB(m image.Image, d *Decoder) *augment.Image {
	b := m.Bounds()
	out := d.Image(b.Dx(), b.Dy())
	row := func(y int) []uint8 { return out.Pix[y*out.W*3 : (y+1)*out.W*3] }
	for y := range out.H {
		to := row(y)
		switch m := m.(type) {
		case *image.YCbCr:
			rowYCbCr(m, y, to)
		case *image.Gray:
			from := m.Pix[y*m.Stride:]
			for x := range out.W {
				to[3*x], to[3*x+1], to[3*x+2] = from[x], from[x], from[x]
			}
		case *image.Gray16:
			from := m.Pix[y*m.Stride:]
			for x := range out.W {
				to[3*x], to[3*x+1], to[3*x+2] = from[2*x], from[2*x], from[2*x]
			}
		case *image.RGBA:
			copyPixels(to, m.Pix[y*m.Stride:], 4, 1)
		case *image.NRGBA:
			copyPixels(to, m.Pix[y*m.Stride:], 4, 1)
		case *image.RGBA64:
			copyPixels(to, m.Pix[y*m.Stride:], 8, 2)
		case *image.NRGBA64:
			copyPixels(to, m.Pix[y*m.Stride:], 8, 2)
		case *image.CMYK:
			from := m.Pix[y*m.Stride:]
			for x := range out.W {
				to[3*x], to[3*x+1], to[3*x+2] = color.CMYKToRGB(from[4*x], from[4*x+1], from[4*x+2], from[4*x+3])
			}
		default: // paletted
			for x := range out.W {
				c := color.NRGBAModel.Convert(m.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
				to[3*x], to[3*x+1], to[3*x+2] = c.R, c.G, c.B
			}
		}
	}
	return out
}

// copyPixels takes the first byte of each of the three colour values; a pixel
// has size bytes, a value step.
func copyPixels(to, from []uint8, size, step int) {
	for x := range len(to) / 3 {
		px := from[x*size : x*size+2*step+1]
		to[3*x], to[3*x+1], to[3*x+2] = px[0], px[step], px[2*step]
	}
}

// rowYCbCr converts row y by JFIF's equations in 16-bit fixed point, with the
// nearest chroma sample. m's bounds start at (0, 0), as image/jpeg's do.
func rowYCbCr(m *image.YCbCr, y int, to []uint8) {
	shift := uint(0) // of x to the chroma plane
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420:
		shift = 1
	case image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410:
		shift = 2
	}
	n := len(to) / 3
	luma := m.Y[y*m.YStride:][:n]
	at := m.COffset(0, y)
	cb := m.Cb[at:][:(n-1)>>shift+1]
	cr := m.Cr[at:][:len(cb)]
	for x, v := range luma {
		yy := int32(v) * 0x10101
		b, r := int32(cb[x>>shift])-128, int32(cr[x>>shift])-128
		px := to[3*x : 3*x+3 : 3*x+3]
		px[0] = clip16(yy + 91881*r)
		px[1] = clip16(yy - 22554*b - 46802*r)
		px[2] = clip16(yy + 116130*b)
	}
}

// clip16 drops 16 fractional bits.
func clip16(v int32) uint8 {
	if uint32(v)&0xff000000 == 0 {
		return uint8(v >> 16)
	}
	return uint8(^(v >> 31))
}
