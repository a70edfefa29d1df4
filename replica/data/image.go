package data

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"os"
	"syscall"

	"mochi/replica/augment"
)

// format is what an image file holds, by its first bytes.
type format int

const (
	unknownFormat format = iota
	jpegFormat
	pngFormat
)

const (
	jpegMagic = "\xff\xd8\xff"
	pngMagic  = "\x89PNG\r\n\x1a\n"
)

func formatOf(head []byte) format {
	switch {
	case bytes.HasPrefix(head, []byte(jpegMagic)):
		return jpegFormat
	case bytes.HasPrefix(head, []byte(pngMagic)):
		return pngFormat
	}
	return unknownFormat
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
	case formatOf(content) == jpegFormat:
		h.Format, h.Orientation, config = JPEG, orientationOf(content), jpeg.DecodeConfig
	case formatOf(content) == pngFormat:
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

// readContent reads an image file that may hold an image of maxPixels into d's
// buffer. A file that is gone, may not be read or whose disk fails is a
// *CorruptError like one that cannot be decoded; other failures of the system
// are not.
func readContent(path string, maxPixels int, d *Decoder) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileFault(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fileFault(path, err)
	case !info.Mode().IsRegular():
		return nil, &CorruptError{Path: path, Err: errors.New("it is no plain file")}
	case info.Size() == 0:
		return nil, &CorruptError{Path: path, Err: errEmpty}
	}
	if err := checkLength(info.Size(), maxPixels); err != nil {
		return nil, &CorruptError{Path: path, Err: err}
	}
	content := d.Content(int(info.Size()))
	n, err := io.ReadFull(f, content)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fileFault(path, err)
	}
	return content[:n], nil // shorter where the file was cut meanwhile
}

// checkLength refuses a file that is longer than an image of maxPixels can
// be: eight bytes a pixel and a megabyte.
func checkLength(length int64, maxPixels int) error {
	if limit := int64(maxPixels)*8 + 1<<20; length > limit {
		return fmt.Errorf("file is too large for an image: %d bytes, the limit is %d", length, limit)
	}
	return nil
}

// fileFault is the error of an image file that cannot be read: the file's
// fault, unless the process has run out of something.
func fileFault(path string, err error) error {
	if exhausted(err) {
		return fmt.Errorf("data: %w", err)
	}
	var at *fs.PathError
	if errors.As(err, &at) { // the path is said already
		err = at.Err
	}
	return &CorruptError{Path: path, Err: err}
}

func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

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
