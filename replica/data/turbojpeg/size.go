// Package turbojpeg decodes JPEG by libjpeg-turbo, in builds with the tag of
// that name. Without the tag there is only Size.
//
// The pixels are PIL's to the bit: the accurate inverse DCT, smooth chroma
// upsampling, JFIF's colour equations, and for CMYK and YCCK PIL's
// conversion. Go's image/jpeg repeats the nearest chroma sample instead, so
// it differs along coloured edges. Damaged files
// are refused, where libjpeg by itself fills the gap with grey.
//
// Cost of a photo of 500×375 on one core of an EPYC of 2024: 0.9 to 1.2 ms,
// half of it Huffman decoding, which a region does not save.
package turbojpeg

import (
	"encoding/binary"
	"errors"
	"io"
)

// Size reads width and height from the frame header of a JPEG file, without
// decoding anything. It returns io.ErrUnexpectedEOF where the file ends
// before one.
func Size(content []byte) (w, h int, err error) {
	if len(content) < 2 || content[0] != 0xff || content[1] != 0xd8 {
		return 0, 0, errors.New("no JPEG file")
	}
	rest := content[2:]
	for {
		// What is no marker between two segments is skipped, as libjpeg does.
		for len(rest) > 1 && (rest[0] != 0xff || rest[1] == 0xff || rest[1] == 0) {
			rest = rest[1:]
		}
		if len(rest) < 4 {
			return 0, 0, io.ErrUnexpectedEOF
		}
		marker := rest[1]
		switch {
		case marker == 0x01 || marker >= 0xd0 && marker <= 0xd7: // without a length
			rest = rest[2:]
			continue
		case marker == 0xd9 || marker == 0xda: // end of image, start of scan
			return 0, 0, errors.New("no frame header before the first scan")
		}
		length := int(binary.BigEndian.Uint16(rest[2:]))
		if length < 2 {
			return 0, 0, errors.New("a segment of less than two bytes")
		}
		frame := marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc
		if frame && len(rest) >= 9 {
			h, w = int(binary.BigEndian.Uint16(rest[5:])), int(binary.BigEndian.Uint16(rest[7:]))
			if w < 1 || h < 1 {
				return 0, 0, errors.New("an image without pixels")
			}
			return w, h, nil
		}
		if len(rest) < 2+length {
			return 0, 0, io.ErrUnexpectedEOF
		}
		rest = rest[2+length:]
	}
}
