package data

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"slices"
	"testing"

	"mochi/replica/augment"
)

// withOrientation puts an EXIF segment with an orientation into a JPEG image.
func withOrientation(photo []byte, order binary.ByteOrder, orientation int) []byte {
	magic := "II*\x00"
	if order == binary.ByteOrder(binary.BigEndian) {
		magic = "MM\x00*"
	}
	tiff := append([]byte(magic), make([]byte, 4+2+2*12+4)...)
	order.PutUint32(tiff[4:], 8)
	order.PutUint16(tiff[8:], 2)
	for i, e := range [][3]int{{0x010f, 2, 'x'}, {0x0112, 3, orientation}} { // the maker, the orientation
		order.PutUint16(tiff[10+12*i:], uint16(e[0]))
		order.PutUint16(tiff[12+12*i:], uint16(e[1]))
		order.PutUint32(tiff[14+12*i:], 1)
		order.PutUint16(tiff[18+12*i:], uint16(e[2]))
	}
	segment := append([]byte("Exif\x00\x00"), tiff...)
	head := []byte{0xff, 0xd8, 0xff, 0xe0, 0, 4, 'x', 'y', 0xff, 0xe1}
	head = binary.BigEndian.AppendUint16(head, uint16(len(segment)+2))
	return slices.Concat(head, segment, photo[2:])
}

// Each of the eight orientations comes out as its definition says: where the
// top left corner of the stored image is to be seen.
func TestImagesComeOutUpright(t *testing.T) {
	const w, h = 48, 32
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.RGBA{40, 40, 40, 255}
			switch {
			case x < 16 && y < 16: // the stored image's top left
				c = color.RGBA{250, 250, 250, 255}
			case x >= 32 && y < 16: // top right
				c = color.RGBA{140, 140, 140, 255}
			}
			m.Set(x, y, c)
		}
	}
	photo := jpegBytes(t, m)
	at := func(img *augment.Image, corner string) uint8 {
		x, y := 4, 4
		if corner[1] == 'r' {
			x = img.W - 5
		}
		if corner[0] == 'b' {
			y = img.H - 5
		}
		return img.Pix[(y*img.W+x)*3]
	}
	for orientation, corners := range map[int][2]string{ // where the top left and top right corners belong
		1: {"tl", "tr"}, 2: {"tr", "tl"}, 3: {"br", "bl"}, 4: {"bl", "br"},
		5: {"tl", "bl"}, 6: {"tr", "br"}, 7: {"br", "tr"}, 8: {"bl", "tl"},
	} {
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			d := NewDecoder()
			var seen [2]int
			d.Region = func(w, h int) augment.Rect {
				seen = [2]int{w, h}
				return augment.Rect{Height: h, Width: w}
			}
			img, err := d.Decode(withOrientation(photo, order, orientation), w*h)
			if err != nil {
				t.Fatal(err)
			}
			wantW, wantH := w, h
			if orientation >= 5 {
				wantW, wantH = h, w
			}
			if img.W != wantW || img.H != wantH || seen != [2]int{wantW, wantH} {
				t.Errorf("orientation %d: %d×%d pixels, announced as %v", orientation, img.W, img.H, seen)
			}
			if a, b := at(img, corners[0]), at(img, corners[1]); a < 240 || b < 130 || b > 150 {
				t.Errorf("orientation %d: %s is %d, want 250; %s is %d, want 140", orientation, corners[0], a, corners[1], b)
			}
			d.Close()
		}
	}
	for _, nonsense := range []int{0, 9, 65535} {
		if o := orientationOf(jpegImage, withOrientation(photo, binary.LittleEndian, nonsense)); o != 1 {
			t.Errorf("orientation %d is taken for %d", nonsense, o)
		}
	}
}

// The value counts whatever integer type it has, and wherever the block stands.
func TestOrientationOfEveryType(t *testing.T) {
	photo := jpegBytes(t, picture(8, 8, 1))
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for kind, put := range map[uint16]func([]byte){
			1: func(b []byte) { b[0] = 6 }, 3: func(b []byte) { order.PutUint16(b, 6) }, 4: func(b []byte) { order.PutUint32(b, 6) },
			6: func(b []byte) { b[0] = 6 }, 8: func(b []byte) { order.PutUint16(b, 6) }, 9: func(b []byte) { order.PutUint32(b, 6) },
		} {
			content := withOrientation(photo, order, 0)
			at := bytes.Index(content, []byte("Exif\x00\x00")) + 6 + 10 + 12
			order.PutUint16(content[at+2:], kind)
			clear(content[at+8 : at+12])
			put(content[at+8:])
			if o := orientationOf(jpegImage, content); o != 6 {
				t.Errorf("type %d, %v: %d", kind, order, o)
			}
		}
	}
	// A second block, behind one that says nothing; XMP where there is no EXIF.
	empty := withOrientation(photo, binary.LittleEndian, 0)
	xmp := append([]byte(xmpName), `<x tiff:Orientation="8"/>`...)
	segment := append(binary.BigEndian.AppendUint16([]byte{0xff, 0xe1}, uint16(len(xmp)+2)), xmp...)
	for want, content := range map[int][]byte{
		3: slices.Concat(empty[:len(empty)-len(photo)+2], withOrientation(photo, binary.BigEndian, 3)[2:]),
		8: slices.Concat(photo[:2], segment, photo[2:]),
		5: slices.Concat(photo[:2], segment, withOrientation(photo, binary.BigEndian, 5)[2:]),
	} {
		if o := orientationOf(jpegImage, content); o != want {
			t.Errorf("%d, want %d", o, want)
		}
	}
}

// No header makes the search run away or read outside of it.
func FuzzOrientation(f *testing.F) {
	photo := jpegBytes(f, picture(8, 8, 1))
	f.Add(photo)
	f.Add(withOrientation(photo, binary.BigEndian, 6))
	f.Add(withOrientation(photo, binary.LittleEndian, 3)[:40])
	for _, g := range readGolden(f) {
		f.Add(g.Content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, kind := range []imageKind{noImage, jpegImage, pngImage, webpImage, tiffImage} {
			if o := orientationOf(kind, content); o < 1 || o > 8 {
				t.Fatal(o)
			}
		}
	})
}
