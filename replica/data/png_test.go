package data

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"slices"
	"strings"
	"testing"
)

// pngWith puts a chunk before the first one of a kind.
func pngWith(content []byte, kind string, body []byte, before string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	b = append(append(append(b, kind...), body...), 0, 0, 0, 0)
	at := bytes.Index(content, []byte(before)) - 4
	return withChecksums(slices.Concat(content[:at], b, content[at:]))
}

// Damage that does not touch the pixels does not make an image unusable; damage that
// does is named.
func TestDamageOutsideThePixels(t *testing.T) {
	palette := image.NewPaletted(image.Rect(0, 0, 19, 11), color.Palette{color.Black, color.White, color.NRGBA{200, 10, 30, 90}})
	grey := image.NewGray(palette.Rect)
	for i := range palette.Pix {
		palette.Pix[i], grey.Pix[i] = uint8(i%3), uint8(i*7)
	}
	for _, good := range [][]byte{
		pngBytes(t, picture(19, 11, 1)), pngBytes(t, grey), pngBytes(t, palette),
		inPasses(t, picture(19, 11, 2)), inPasses(t, picture(5, 3, 2)), inPasses(t, picture(1, 1, 2)), inPasses(t, picture(16, 16, 2)),
	} {
		d := NewDecoder()
		img, err := d.Decode(good, 1<<16)
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(img.Pix)
		end := bytes.Index(good, []byte("IEND")) - 4
		pixels := bytes.Index(good, []byte("IDAT"))
		length := int(binary.BigEndian.Uint32(good[pixels-4:]))
		flip := func(b []byte, at int) []byte { b = bytes.Clone(b); b[at] ^= 1; return b }
		text := pngWith(good, "tEXt", []byte("Comment\x00hello"), "IDAT")
		sums := slices.Concat(good[:pixels+4+length-4], []byte{1, 2, 3, 4}, good[pixels+4+length:]) // Adler's, over all pixels
		for name, content := range map[string][]byte{
			"no end": good[:end], "half an end": good[:end+5], "bad text": flip(text, bytes.Index(text, []byte("hello"))),
			"bad text behind": flip(pngWith(good, "tEXt", []byte("x\x00hello"), "IEND"), end+10), "more behind": append(bytes.Clone(good), "trailer"...),
			"sum of all pixels": withChecksums(sums), "unknown size of text": slices.Concat(good[:end], []byte{0, 0, 9, 9}, []byte("tEXtshort")),
		} {
			img, err := d.Decode(content, 1<<16)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if !slices.Equal(img.Pix, want) {
				t.Errorf("%s: other pixels", name)
			}
		}
		for name, content := range map[string][]byte{
			"the file is cut short":          good[:pixels+4+length/2],
			"checksum of its pixels":         flip(good, pixels+4+length/2),
			"checksum of the PNG file's hea": flip(good, 20),
		} {
			if length < 40 && strings.Contains(name, "cut") {
				continue // so few bytes may all be there
			}
			if _, err := d.Decode(content, 1<<16); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	extra := pngWith(pngBytes(t, grey), "PLTE", make([]byte, 6), "IDAT")
	if _, err := NewDecoder().Decode(extra, 1<<16); err != nil {
		t.Errorf("a palette in a grey image: %v", err)
	}
}

// inPasses is a picture stored in Adam7's seven passes.
func inPasses(t *testing.T, m *image.NRGBA) []byte {
	t.Helper()
	w, h := m.Rect.Dx(), m.Rect.Dy()
	var raw bytes.Buffer
	for _, p := range []string{"0 8 0 8", "4 8 0 8", "0 4 4 8", "2 4 0 4", "0 2 2 4", "1 2 0 2", "0 1 1 2"} { // from, step across and down
		var x0, dx, y0, dy int
		if _, err := fmt.Sscan(p, &x0, &dx, &y0, &dy); err != nil {
			t.Fatal(err)
		}
		for y := y0; y < h && x0 < w; y += dy {
			raw.WriteByte(0)
			for x := x0; x < w; x += dx {
				raw.Write(m.Pix[m.PixOffset(x, y):][:3])
			}
		}
	}
	var file bytes.Buffer
	out := &chunkWriter{w: &file}
	file.WriteString(pngMagic)
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(w)), uint32(h))
	out.write("IHDR", append(head, 8, 2, 0, 0, 1))
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	if _, err := z.Write(raw.Bytes()); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	out.write("IDAT", packed.Bytes())
	out.write("IEND", nil)
	if p, err := pngHeader(file.Bytes()); err != nil || p.raw() != int64(raw.Len()) {
		t.Fatalf("%d raw bytes, want %d (%v)", p.raw(), raw.Len(), err)
	}
	return file.Bytes()
}
