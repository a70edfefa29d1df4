package data

import (
	"bytes"
	"encoding/binary"

	"mochi/replica/augment"
)

// orientationOf is the EXIF orientation of a JPEG image (CIPA DC-008, tag
// 0x0112), 1 to 8; 1, upright, where there is none or it makes no sense.
func orientationOf(content []byte) int {
	for at := 2; at+4 <= len(content) && content[at] == 0xff; {
		marker, length := content[at+1], int(binary.BigEndian.Uint16(content[at+2:]))
		if marker == 0xff { // fill byte
			at++
			continue
		}
		if marker == 0xda || marker == 0xd9 || length < 2 || at+2+length > len(content) {
			break // the pixels, or nonsense
		}
		body := content[at+4 : at+2+length]
		if tiff, ok := bytes.CutPrefix(body, []byte("Exif\x00\x00")); ok && marker == 0xe1 {
			return tiffOrientation(tiff)
		}
		at += 2 + length
	}
	return 1
}

// tiffOrientation looks the tag up in the first directory of a TIFF header.
func tiffOrientation(tiff []byte) int {
	if len(tiff) < 8 {
		return 1
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch string(tiff[:4]) {
	case "II*\x00":
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 1
	}
	at := int64(order.Uint32(tiff[4:]))
	if at+2 > int64(len(tiff)) {
		return 1
	}
	entries := int(order.Uint16(tiff[at:]))
	const entry = 12 // tag, type, count, value
	for at += 2; entries > 0 && at+entry <= int64(len(tiff)); at, entries = at+entry, entries-1 {
		e := tiff[at:]
		if order.Uint16(e) != 0x0112 {
			continue
		}
		if v := int(order.Uint16(e[8:])); order.Uint16(e[2:]) == 3 && v >= 1 && v <= 8 { // a SHORT
			return v
		}
		return 1
	}
	return 1
}

// upright turns and mirrors an image as its orientation says it has to be.
func upright(img *augment.Image, orientation int) *augment.Image {
	w, h := img.W, img.H
	// from is where the pixel x, y of the result comes from, in an image of w×h.
	var from func(x, y int) (int, int)
	switch orientation {
	case 2:
		from = func(x, y int) (int, int) { return w - 1 - x, y }
	case 3:
		from = func(x, y int) (int, int) { return w - 1 - x, h - 1 - y }
	case 4:
		from = func(x, y int) (int, int) { return x, h - 1 - y }
	case 5:
		from = func(x, y int) (int, int) { return y, x }
	case 6:
		from = func(x, y int) (int, int) { return y, h - 1 - x }
	case 7:
		from = func(x, y int) (int, int) { return w - 1 - y, h - 1 - x }
	case 8:
		from = func(x, y int) (int, int) { return w - 1 - y, x }
	default:
		return img
	}
	out := augment.NewImage(w, h)
	if orientation >= 5 {
		out.W, out.H = h, w
	}
	at := 0
	for y := range out.H {
		for x := range out.W {
			sx, sy := from(x, y)
			copy(out.Pix[at:at+3], img.Pix[(sy*w+sx)*3:])
			at += 3
		}
	}
	return out
}
