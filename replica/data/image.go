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

// decodeFile reads and decodes one image file. A file that is gone or may not
// be read counts as corrupt too; other failures of the system do not.
func decodeFile(path string, maxPixels int) (*augment.Image, error) {
	content, err := readImageFile(path, maxPixels)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errTooLarge) {
		return nil, &CorruptError{Path: path, Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	img, err := decodeImage(content, maxPixels)
	if err != nil {
		return nil, &CorruptError{Path: path, Err: err}
	}
	return img, nil
}

var errTooLarge = errors.New("file is too large for an image")

// readImageFile reads a file that may hold an image of maxPixels: at most
// eight bytes a pixel and a megabyte.
func readImageFile(path string, maxPixels int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if limit := int64(maxPixels)*8 + 1<<20; info.Size() > limit {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", errTooLarge, info.Size(), limit)
	}
	content := make([]byte, info.Size())
	n, err := io.ReadFull(f, content)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return content[:n], nil
}

// decodeImage decodes a JPEG or PNG image of at most maxPixels to RGB. Grey
// is replicated, alpha dropped, 16 bits are cut to the upper 8; orientation
// tags are ignored, all as torchvision's loader does.
func decodeImage(content []byte, maxPixels int) (*augment.Image, error) {
	var config func(io.Reader) (image.Config, error)
	var decode func(io.Reader) (image.Image, error)
	switch {
	case len(content) == 0:
		return nil, errors.New("the file is empty")
	case formatOf(content) == jpegFormat:
		config, decode = jpeg.DecodeConfig, jpeg.Decode
	case formatOf(content) == pngFormat:
		config, decode = png.DecodeConfig, png.Decode
	default:
		return nil, fmt.Errorf("neither JPEG nor PNG: it starts with %q", content[:min(len(content), 16)])
	}
	c, err := config(bytes.NewReader(content))
	if err != nil {
		return nil, cut(err)
	}
	if c.Width < 1 || c.Height < 1 || int64(c.Width)*int64(c.Height) > int64(maxPixels) {
		return nil, fmt.Errorf("image of %d×%d pixels: the limit is %d", c.Width, c.Height, maxPixels)
	}
	m, err := decode(bytes.NewReader(content))
	if err != nil {
		return nil, cut(err)
	}
	return toRGB(m), nil
}

// toRGB converts what image/jpeg and image/png return.
func toRGB(m image.Image) *augment.Image {
	b := m.Bounds()
	out := augment.NewImage(b.Dx(), b.Dy())
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
