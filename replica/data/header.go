package data

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"io"
	"slices"
	"strings"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"

	"mochi/replica/data/turbojpeg"
)

// imageKind is what an image file holds, by its first bytes.
type imageKind int

const (
	noImage imageKind = iota
	jpegImage
	pngImage
	webpImage
	bmpImage
	gifImage
	tiffImage
)

const (
	jpegMagic = "\xff\xd8\xff"
	pngMagic  = "\x89PNG\r\n\x1a\n"
)

// headLength is how many bytes kindOf looks at.
const headLength = 18

func kindOf(head []byte) imageKind {
	has := func(at int, magic string) bool { return len(head) >= at && bytes.HasPrefix(head[at:], []byte(magic)) }
	switch {
	case has(0, jpegMagic):
		return jpegImage
	case has(0, pngMagic):
		return pngImage
	case has(0, "RIFF") && has(8, "WEBP"):
		return webpImage
	case has(0, "GIF87a"), has(0, "GIF89a"):
		return gifImage
	case has(0, "II*\x00"), has(0, "MM\x00*"):
		return tiffImage
	case has(0, "BM") && len(head) >= headLength:
		// Two letters are not much: the length of the header behind them is one of these.
		if n := binary.LittleEndian.Uint32(head[14:]); slices.Contains([]uint32{12, 40, 52, 56, 64, 108, 124}, n) {
			return bmpImage
		}
	}
	return noImage
}

// Formats of image files.
const (
	JPEG = "JPEG"
	PNG  = "PNG"
	WebP = "WebP"
	BMP  = "BMP"
	GIF  = "GIF"
	TIFF = "TIFF"
)

// imageFormats is the list for people.
const imageFormats = "JPEG, PNG, WebP, BMP, GIF or TIFF"

// Extension is that of the files of a format, without the dot.
func Extension(format string) string {
	switch format {
	case JPEG:
		return "jpg"
	case TIFF:
		return "tif"
	}
	return strings.ToLower(format)
}

// Header is what an image file says of itself before its pixels.
type Header struct {
	Format        string // JPEG, PNG, …
	Width, Height int    // pixels, as stored: not yet turned
	Orientation   int    // EXIF's, 1 for upright
	Colours       string // RGB, grey, CMYK, palette; with alpha, 16 bit
}

// ReadHeader reads the header of an encoded image. What it refuses, Decode refuses
// too, with the same words; it knows no limits (see Set.Usable).
func ReadHeader(content []byte) (Header, error) {
	h, _, err := readHeader(content, nil)
	return h, err
}

// readHeader is the one reader of headers: of training, of inspect and of pack. cost
// is how many bytes it takes to decode the image. For JPEG it allocates nothing when
// it is given room for the components.
func readHeader(content []byte, room []turbojpeg.Component) (h Header, f turbojpeg.Frame, err error) {
	if len(content) == 0 {
		return h, f, errEmpty
	}
	kind := kindOf(content[:min(len(content), headLength)])
	switch kind {
	case jpegImage:
		if f, err = turbojpeg.ReadFrame(content, room); err != nil {
			return h, f, cut(err)
		}
		h = Header{Format: JPEG, Width: f.W, Height: f.H, Colours: "RGB"}
		switch len(f.Components) {
		case 1:
			h.Colours = "grey"
		case 4:
			h.Colours = "CMYK"
		}
	case pngImage:
		if h, err = readPNG(content); err != nil {
			return h, f, err
		}
	case noImage:
		return h, f, fmt.Errorf("not %s: it starts with %q", imageFormats, content[:min(len(content), 16)])
	default:
		if h, err = readOther(kind, content); err != nil {
			return h, f, err
		}
	}
	h.Orientation = orientationOf(kind, content)
	return h, f, nil
}

// other is a format that a library decodes whole.
type other struct {
	format string
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

func otherFormat(kind imageKind) other {
	switch kind {
	case webpImage:
		return other{WebP, webp.DecodeConfig, webp.Decode}
	case bmpImage:
		return other{BMP, bmp.DecodeConfig, bmp.Decode}
	case gifImage:
		return other{GIF, gif.DecodeConfig, gif.Decode} // the first frame
	}
	return other{TIFF, tiff.DecodeConfig, tiff.Decode} // the first page
}

// readOther reads the header of what is neither JPEG nor PNG.
func readOther(kind imageKind, content []byte) (h Header, err error) {
	f := otherFormat(kind)
	c, err := f.config(bytes.NewReader(content))
	if err == nil && (c.Width < 1 || c.Height < 1) {
		err = errors.New("an image without pixels")
	}
	if err != nil {
		if kind == webpImage && isAnimated(content) {
			err = errors.New("an animated WebP file: save one frame of it")
		}
		return h, cut(err)
	}
	return Header{Format: f.format, Width: c.Width, Height: c.Height, Colours: coloursOf(c.ColorModel)}, nil
}

func isAnimated(content []byte) bool {
	return len(content) > 20 && string(content[12:16]) == "VP8X" && content[20]&2 != 0
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
	case color.NRGBAModel, color.NYCbCrAModel:
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
