package data

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"mochi/replica/augment"
)

// FuzzDecode: whatever an image file holds, decoding it ends; what is accepted has the
// size that its header says, and is the same when only a part of it is looked at.
func FuzzDecode(f *testing.F) {
	f.Add(jpegBytes(f, picture(9, 7, 1)))
	f.Add(manyScans(9, 7, 3))
	grey := image.NewGray16(image.Rect(0, 0, 5, 3))
	palette := image.NewPaletted(grey.Rect, color.Palette{color.Black, color.White})
	for _, m := range []image.Image{picture(5, 3, 1), grey, palette, image.NewNRGBA64(grey.Rect)} {
		f.Add(pngBytes(f, m))
	}
	f.Add(interlaced(pngBytes(f, picture(5, 3, 1))))
	for _, g := range readGolden(f) {
		f.Add(g.Content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		const most = 1 << 16
		content = repaired(content)
		head, err := ReadHeader(content)
		whole, part := NewDecoder(), NewDecoder()
		img, werr := whole.Decode(content, most)
		if err != nil && werr == nil {
			t.Fatalf("decoded although its header is refused: %v", err)
		}
		if err == nil && werr == nil && head.Width*head.Height != img.W*img.H {
			t.Fatalf("header %+v, image %d×%d", head, img.W, img.H)
		}
		if werr == nil && img.W*img.H > most {
			t.Fatalf("%d×%d pixels are above the limit", img.W, img.H)
		}
		if err == nil && werr == nil && head.Format == PNG && head.Orientation <= 1 {
			pix := slices.Clone(img.Pix)
			if by, err := carefulPNG(part, content); err != nil || !slices.Equal(by.Pix, pix) {
				t.Fatalf("image/png: %v, or other pixels", err)
			}
		}
		part.Region = func(w, h int) augment.Rect {
			return augment.Rect{Top: h / 2, Left: w / 2, Height: h - h/2, Width: w - w/2}
		}
		if _, perr := part.Decode(content, most); (perr == nil) != (werr == nil) {
			t.Fatalf("whole: %v, in part: %v", werr, perr)
		}
	})
}

// repaired puts right the checksums of a PNG file's chunks, which would hide what
// comes behind them.
func repaired(content []byte) []byte {
	if kindOf(content) != pngImage {
		return content
	}
	return withChecksums(bytes.Clone(content))
}

func withChecksums(b []byte) []byte {
	for at := len(pngMagic); at+12 <= len(b); {
		n := int64(binary.BigEndian.Uint32(b[at:]))
		if int64(at)+12+n > int64(len(b)) {
			break
		}
		end := at + 8 + int(n)
		binary.BigEndian.PutUint32(b[end:], crc32.ChecksumIEEE(b[at+4:end]))
		at = end + 4
	}
	return b
}

// interlaced sets the flag of a PNG file's header.
func interlaced(content []byte) []byte {
	b := bytes.Clone(content)
	b[28] = 1
	return withChecksums(b)
}

// FuzzIDXFile: a gzip file of anything, or not one, is read within its limit.
func FuzzIDXFile(f *testing.F) {
	f.Add(gzipped(f, idxBytes([]int{2, 2, 3}, ramp(12, 0))))
	f.Add(idxBytes([]int{2, 2, 3}, ramp(12, 0)))
	f.Add(gzipped(f, idxBytes([]int{1 << 20, 1 << 10, 1 << 9}, ramp(9, 0))))
	path := filepath.Join(f.TempDir(), "idx")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		dims, values, err := readIDXFile(path, 3)
		if err == nil && len(values) != dims[0]*dims[1]*dims[2] {
			t.Fatalf("%v have %d values", dims, len(values))
		}
	})
}
