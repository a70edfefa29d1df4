package data

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mochi/replica/augment"
)

func TestDecodeFormats(t *testing.T) {
	rect := image.Rect(0, 0, 2, 1)
	grey, grey16 := image.NewGray(rect), image.NewGray16(rect)
	grey.SetGray(1, 0, color.Gray{77})
	grey16.SetGray16(1, 0, color.Gray16{0x12fe})
	alpha, deep, deepAlpha := image.NewNRGBA(rect), image.NewRGBA64(rect), image.NewNRGBA64(rect)
	alpha.SetNRGBA(1, 0, color.NRGBA{10, 20, 30, 5})
	deep.SetRGBA64(0, 0, color.RGBA64{A: 0xffff})
	deep.SetRGBA64(1, 0, color.RGBA64{0x10ff, 0x20ff, 0x30ff, 0xffff})
	deepAlpha.SetNRGBA64(1, 0, color.NRGBA64{0x10ff, 0x20ff, 0x30ff, 9})
	opaque := image.NewRGBA(rect)
	opaque.SetRGBA(0, 0, color.RGBA{A: 255})
	opaque.SetRGBA(1, 0, color.RGBA{10, 20, 30, 255})
	palette := image.NewPaletted(rect, color.Palette{color.Black, color.NRGBA{1, 2, 3, 128}})
	palette.SetColorIndex(1, 0, 1)
	for name, c := range map[string]struct {
		image image.Image
		want  [3]uint8 // of the second pixel; the first is black
	}{
		"grey":             {grey, [3]uint8{77, 77, 77}},
		"grey, 16 bits":    {grey16, [3]uint8{0x12, 0x12, 0x12}},
		"opaque":           {opaque, [3]uint8{10, 20, 30}},
		"alpha is dropped": {alpha, [3]uint8{10, 20, 30}},
		"16 bits":          {deep, [3]uint8{0x10, 0x20, 0x30}},
		"16 bits, alpha":   {deepAlpha, [3]uint8{0x10, 0x20, 0x30}},
		"palette":          {palette, [3]uint8{1, 2, 3}},
	} {
		img, err := NewDecoder().Decode(pngBytes(t, c.image), 100)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if img.W != 2 || img.H != 1 || !slices.Equal(img.Pix, append([]uint8{0, 0, 0}, c.want[:]...)) {
			t.Errorf("%s: got %v, want %v", name, img, c.want)
		}
	}
	cmyk := image.NewCMYK(rect)
	cmyk.SetCMYK(0, 0, color.CMYK{K: 255})
	cmyk.SetCMYK(1, 0, color.CMYK{0, 128, 255, 0})
	if got := toRGB(cmyk, NewDecoder()).Pix; !slices.Equal(got, []uint8{0, 0, 0, 255, 127, 0}) {
		t.Errorf("CMYK: got %v", got)
	}
}

// Every chroma subsampling and odd sizes, against image/color's conversion.
func TestYCbCrEqualsImageColor(t *testing.T) {
	for _, ratio := range []image.YCbCrSubsampleRatio{
		image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420,
		image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410,
	} {
		for _, size := range [][2]int{{1, 1}, {7, 5}, {64, 33}} {
			m := image.NewYCbCr(image.Rect(0, 0, size[0], size[1]), ratio)
			for i, plane := range [][]uint8{m.Y, m.Cb, m.Cr} {
				for j := range plane {
					plane[j] = uint8(j*(31+i*12) + j*j)
				}
			}
			got := toRGB(m, NewDecoder())
			for y := range size[1] {
				for x := range size[0] {
					c := m.YCbCrAt(x, y)
					r, g, b := color.YCbCrToRGB(c.Y, c.Cb, c.Cr)
					if px := got.Pix[(y*got.W+x)*3:][:3]; px[0] != r || px[1] != g || px[2] != b {
						t.Fatalf("%v %v: pixel %d,%d is %v, want %v", ratio, size, x, y, px, []uint8{r, g, b})
					}
				}
			}
		}
	}
}

func TestDecodeJPEG(t *testing.T) {
	m := image.NewNRGBA(image.Rect(0, 0, 9, 7))
	for i := range m.Pix {
		m.Pix[i] = 200
		if i%4 == 3 {
			m.Pix[i] = 255
		}
	}
	img, err := NewDecoder().Decode(jpegBytes(t, m), 63)
	if err != nil {
		t.Fatal(err)
	}
	if img.W != 9 || img.H != 7 || slices.Max(img.Pix) > 202 || slices.Min(img.Pix) < 198 {
		t.Errorf("got %d×%d, %v", img.W, img.H, img.Pix)
	}
}

func TestCorruptFilesAreNamed(t *testing.T) {
	photo := jpegBytes(t, picture(60, 40, 1))
	drawing := pngBytes(t, picture(60, 40, 1))
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"text":           {[]byte("not an image at all"), "not JPEG, PNG, WebP, BMP, GIF or TIFF"},
		"empty":          {nil, "empty"},
		"truncated JPEG": {photo[:len(photo)/2], "short"},
		"JPEG header":    {photo[:10], "cut short"},
		"truncated PNG":  {drawing[:len(drawing)/2], "cut short: not all of its pixels"},
		"too many":       {jpegBytes(t, picture(60, 60, 1)), "60×60 pixels"},
		"PNG bomb":       {hugePNG(drawing), "65535×65535 pixels"},
		"too long":       {make([]byte, 1<<20+8*2400+1), "too large"},
	} {
		path := filepath.Join(t.TempDir(), "x.jpg")
		write(t, path, c.content)
		_, err := decodeFile(path, 2400)
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.Path != path || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	path := filepath.Join(t.TempDir(), "gone.jpg")
	var corrupt *CorruptError
	if _, err := decodeFile(path, 2400); !errors.As(err, &corrupt) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
	if _, err := decodeFile(t.TempDir(), 2400); !errors.As(err, &corrupt) {
		t.Errorf("a folder where a file was: %v", err)
	}
	for _, system := range []error{syscall.EMFILE, syscall.ENOMEM} {
		if err := fileFault("x.jpg", &fs.PathError{Op: "open", Path: "x.jpg", Err: system}); errors.As(err, &corrupt) {
			t.Errorf("%v is held against the file: %v", system, err)
		}
	}
	if err := fileFault("x.jpg", syscall.EIO); !errors.As(err, &corrupt) {
		t.Errorf("a bad sector: %v", err)
	}
}

// decodeFile decodes one file as a folder's Dataset does.
func decodeFile(path string, maxPixels int) (*augment.Image, error) {
	s := &folderSplit{dir: filepath.Dir(path), samples: []sampleFile{{path: filepath.Base(path)}}, bounds: newBounds(Options{MaxPixels: maxPixels, MaxBytes: 1<<20 + 8*2400})}
	return s.Decode(0, NewDecoder())
}

// Content decides, not the extension.
func TestPNGNamedJPG(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.jpg")
	write(t, path, pngBytes(t, picture(3, 2, 0)))
	if img, err := decodeFile(path, 100); err != nil || img.W != 3 {
		t.Errorf("got %v, %v", img, err)
	}
}

// hugePNG rewrites a PNG's header to 65535×65535 pixels.
func hugePNG(small []byte) []byte {
	b := slices.Clone(small)
	binary.BigEndian.PutUint32(b[16:], 65535)
	binary.BigEndian.PutUint32(b[20:], 65535)
	binary.BigEndian.PutUint32(b[29:], crc32.ChecksumIEEE(b[12:29]))
	return b
}
