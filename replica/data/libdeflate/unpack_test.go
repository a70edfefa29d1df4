//go:build libdeflate

package libdeflate

import (
	"bytes"
	"compress/zlib"
	"io"
	"testing"
)

// unfiltered is what the PNG specification (9.2) says of one row, byte by byte.
func unfiltered(filter byte, row, above []byte, pixel int) bool {
	for i := range row {
		var a, b, c int
		b = int(above[i])
		if i >= pixel {
			a, c = int(row[i-pixel]), int(above[i-pixel])
		}
		switch filter {
		case 0:
		case 1:
			row[i] += byte(a)
		case 2:
			row[i] += byte(b)
		case 3:
			row[i] += byte((a + b) / 2)
		case 4:
			p := a + b - c
			pa, pb, pc := max(p-a, a-p), max(p-b, b-p), max(p-c, c-p)
			switch {
			case pa <= pb && pa <= pc:
				row[i] += byte(a)
			case pb <= pc:
				row[i] += byte(b)
			default:
				row[i] += byte(c)
			}
		default:
			return false
		}
	}
	return true
}

func pack(t testing.TB, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	if _, err := z.Write(raw); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// FuzzRows: whatever a stream holds, rows that are taken are those of compress/zlib
// and of the specification; those of a stream in order are taken.
func FuzzRows(f *testing.F) {
	for pixel := byte(1); pixel <= 8; pixel++ {
		raw := make([]byte, 0, 200)
		for y := range byte(5) {
			raw = append(raw, y)
			for x := range 3 * pixel {
				raw = append(raw, 31*x^97*y)
			}
		}
		f.Add(raw, pixel, byte(3), false)
		f.Add(pack(f, raw), pixel, byte(3), true)
	}
	f.Fuzz(func(t *testing.T, content []byte, pixel, width byte, packed bool) {
		pixel, width = pixel%8+1, width%50+1
		stride := int(pixel) * int(width)
		stream, h := content, 5
		if !packed {
			if h = len(content) / (1 + stride); h == 0 {
				return
			}
			stream = pack(t, content[:h*(1+stride)])
		}
		room := make([]byte, Room(stride, h))
		took := Rows(stream, stride, h, int(pixel), room)

		want := make([]byte, h*(1+stride))
		z, err := zlib.NewReader(bytes.NewReader(stream))
		if err == nil {
			_, err = io.ReadFull(z, want)
		}
		ordered := err == nil
		above := make([]byte, stride)
		for y := 0; y < h && ordered; y++ {
			row := want[y*(1+stride):][:1+stride]
			ordered = unfiltered(row[0], row[1:], above, int(pixel))
			above = row[1:]
		}
		switch {
		case took && !ordered:
			t.Fatalf("%d rows of %d bytes are taken: %v", h, stride, err)
		case !took && ordered && !packed:
			t.Fatalf("%d rows of %d bytes are not taken", h, stride)
		case took && !bytes.Equal(room[stride:len(room)-slack], want):
			t.Fatalf("%d rows of %d bytes differ", h, stride)
		}
	})
}
