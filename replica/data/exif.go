package data

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"io"

	"mochi/replica/augment"
)

// orientationOf is the EXIF orientation of an image (CIPA DC-008, tag 0x0112), 1 to
// 8, from wherever its format keeps it; where there is no EXIF, XMP's
// tiff:Orientation. 1, upright, where there is none or it makes no sense.
func orientationOf(kind imageKind, content []byte) int {
	var o orientation
	switch kind {
	case jpegImage:
		o.inJPEG(content)
	case pngImage:
		o.inPNG(content)
	case webpImage:
		o.inWebP(content)
	case tiffImage:
		o.exif = tiffOrientation(content)
	}
	switch {
	case o.exif > 0:
		return o.exif
	case o.xmp > 0:
		return o.xmp
	}
	return 1
}

// orientation is what was found first, 0 for nothing.
type orientation struct{ exif, xmp int }

// take looks into an EXIF block, with or without the name that JPEG puts before it.
func (o *orientation) take(block []byte) {
	if o.exif == 0 {
		block = bytes.TrimPrefix(block, []byte("Exif\x00\x00"))
		o.exif = tiffOrientation(block)
	}
}

// takeXMP looks for tiff:Orientation="6" or <tiff:Orientation>6</….
func (o *orientation) takeXMP(text []byte) {
	const name = "tiff:Orientation"
	for o.xmp == 0 {
		at := bytes.Index(text, []byte(name))
		if at < 0 {
			return
		}
		text = text[at+len(name):]
		value := bytes.TrimLeft(text[:min(len(text), 16)], " \t\r\n=\"'>")
		if len(value) < len(text) && len(value) > 0 && value[0] >= '1' && value[0] <= '8' && (len(value) == 1 || value[1] < '0' || value[1] > '9') {
			o.xmp = int(value[0] - '0')
		}
	}
}

const xmpName = "http://ns.adobe.com/xap/1.0/\x00"

func (o *orientation) inJPEG(content []byte) {
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
		if marker == 0xe1 && bytes.HasPrefix(body, []byte("Exif\x00\x00")) {
			o.take(body)
		} else if xmp, is := bytes.CutPrefix(body, []byte(xmpName)); is && marker == 0xe1 {
			o.takeXMP(xmp)
		}
		at += 2 + length
	}
}

// maxProfile is how much of a text of a PNG file is looked at, unpacked.
const maxProfile = 1 << 20

// inPNG looks into eXIf, wherever it stands, and into the texts in which
// ImageMagick and Adobe's programs keep the same.
func (o *orientation) inPNG(content []byte) {
	for c := range pngChunks(content) {
		switch c.kind { // the checksums of others are not looked at: pixels take time
		case "eXIf":
			if c.whole() {
				o.take(c.body)
			}
		case "tEXt", "zTXt", "iTXt":
			if c.whole() {
				o.inText(c)
			}
		}
	}
}

func (o *orientation) inText(c chunk) {
	key, text, _ := bytes.Cut(c.body, []byte{0})
	name := string(key)
	if name != "Raw profile type exif" && name != "Raw profile type APP1" && name != "XML:com.adobe.xmp" {
		return
	}
	packed := false
	switch {
	case c.kind == "zTXt" && len(text) > 0:
		packed, text = true, text[1:]
	case c.kind == "iTXt" && len(text) > 2:
		packed = text[0] == 1
		_, text, _ = bytes.Cut(text[2:], []byte{0}) // the language
		_, text, _ = bytes.Cut(text, []byte{0})     // the key in it
	}
	if packed {
		z, err := zlib.NewReader(bytes.NewReader(text))
		if err != nil {
			return
		}
		text, _ = io.ReadAll(io.LimitReader(z, maxProfile)) // what cannot be read says nothing
	}
	if name == "XML:com.adobe.xmp" {
		o.takeXMP(text)
		return
	}
	// "\nexif\n    1234\n" and the block in hexadecimal digits, on many lines.
	lines := bytes.Split(bytes.TrimLeft(text, "\n"), []byte("\n"))
	if len(lines) < 3 {
		return
	}
	digits := bytes.Join(lines[2:], nil)
	block := make([]byte, len(digits)/2)
	n, _ := hex.Decode(block, digits[:len(block)*2]) // as far as it is hexadecimal
	o.take(block[:n])
}

// inWebP looks into the chunk EXIF of a RIFF file.
func (o *orientation) inWebP(content []byte) {
	for rest := content[min(12, len(content)):]; len(rest) >= 8; {
		n := int64(binary.LittleEndian.Uint32(rest[4:]))
		body := rest[8:min(int64(len(rest)), 8+n)]
		switch string(rest[:4]) {
		case "EXIF":
			o.take(body)
		case "XMP ":
			o.takeXMP(body)
		}
		rest = rest[min(int64(len(rest)), 8+n+n&1):]
	}
}

// tiffOrientation looks the tag up in the first directory of a TIFF header; 0 where
// there is none. Whatever integer type it has counts, as writers differ.
func tiffOrientation(tiff []byte) int {
	if len(tiff) < 8 {
		return 0
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch string(tiff[:4]) {
	case "II*\x00":
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 0
	}
	at := int64(order.Uint32(tiff[4:]))
	if at+2 > int64(len(tiff)) {
		return 0
	}
	entries := int(order.Uint16(tiff[at:]))
	const entry = 12 // tag, type, count, value
	for at += 2; entries > 0 && at+entry <= int64(len(tiff)); at, entries = at+entry, entries-1 {
		e := tiff[at:]
		if order.Uint16(e) != 0x0112 {
			continue
		}
		v := uint32(0)
		switch order.Uint16(e[2:]) {
		case 1, 6, 7: // BYTE, SBYTE, UNDEFINED
			v = uint32(e[8])
		case 3, 8: // SHORT, SSHORT
			v = uint32(order.Uint16(e[8:]))
		case 4, 9, 13: // LONG, SLONG, IFD
			v = order.Uint32(e[8:])
		}
		if v >= 1 && v <= 8 {
			return int(v)
		}
		return 0
	}
	return 0
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
