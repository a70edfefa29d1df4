package data

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
)

// imageKind is what an image file holds, by its first bytes.
type imageKind int

const (
	noImage imageKind = iota
	jpegImage
	pngImage
)

const (
	jpegMagic = "\xff\xd8\xff"
	pngMagic  = "\x89PNG\r\n\x1a\n"
)

func kindOf(head []byte) imageKind {
	switch {
	case bytes.HasPrefix(head, []byte(jpegMagic)):
		return jpegImage
	case bytes.HasPrefix(head, []byte(pngMagic)):
		return pngImage
	}
	return noImage
}

// Header is what an image file says of itself before its pixels.
type Header struct {
	Format        string // JPEG or PNG
	Width, Height int    // pixels, as stored: not yet turned
	Orientation   int    // EXIF's, 1 for upright
	Colours       string // RGB, grey, CMYK, palette; with alpha, 16 bit
}

// Formats of image files.
const (
	JPEG = "JPEG"
	PNG  = "PNG"
)

// ReadHeader reads the header of an encoded image.
func ReadHeader(content []byte) (Header, error) {
	var h Header
	var config func(io.Reader) (image.Config, error)
	switch {
	case len(content) == 0:
		return h, errEmpty
	case kindOf(content) == jpegImage:
		h.Format, h.Orientation, config = JPEG, orientationOf(content), jpeg.DecodeConfig
	case kindOf(content) == pngImage:
		h.Format, h.Orientation, config = PNG, 1, png.DecodeConfig
	default:
		return h, fmt.Errorf("neither JPEG nor PNG: it starts with %q", content[:min(len(content), 16)])
	}
	c, err := config(bytes.NewReader(content))
	if err != nil {
		return h, cut(err)
	}
	if c.Width < 1 || c.Height < 1 {
		return h, fmt.Errorf("image of %d×%d pixels", c.Width, c.Height)
	}
	h.Width, h.Height, h.Colours = c.Width, c.Height, coloursOf(c.ColorModel)
	return h, nil
}

// coloursOf names a colour model for people.
func coloursOf(m color.Model) string {
	switch m {
	case color.GrayModel:
		return "grey"
	case color.Gray16Model:
		return "grey, 16 bit"
	case color.CMYKModel:
		return "CMYK"
	case color.NRGBAModel:
		return "RGB with alpha"
	case color.RGBA64Model:
		return "RGB, 16 bit"
	case color.NRGBA64Model:
		return "RGB with alpha, 16 bit"
	}
	if _, ok := m.(color.Palette); ok {
		return "palette"
	}
	return "RGB"
}
