package data

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"iter"

	"golang.org/x/sync/errgroup"

	"mochi/replica/augment"
)

// chunk is a piece of a PNG file (PNG specification, 5.3).
type chunk struct {
	kind string // four letters
	body []byte // as far as it is there
	sum  []byte // kind, body and checksum; nil where the file ends in it
}

// whole says whether the chunk is there in full, with the right checksum.
func (c chunk) whole() bool {
	n := len(c.sum) - 4
	return n > 0 && crc32.ChecksumIEEE(c.sum[:n]) == binary.BigEndian.Uint32(c.sum[n:])
}

// cutIn says whether the file ends in the chunk, which says to be of some length.
func (c chunk) cutIn(length int) bool { return len(c.body) < length }

// pngChunks are the chunks of a PNG file, up to the first that is not there in full,
// IEND included; declared is the length that a chunk says it has.
func pngChunks(content []byte) iter.Seq2[chunk, int] {
	return func(yield func(chunk, int) bool) {
		for rest := content[min(len(pngMagic), len(content)):]; len(rest) >= 8; {
			n := int64(binary.BigEndian.Uint32(rest))
			c := chunk{kind: string(rest[4:8]), body: rest[8:min(int64(len(rest)), 8+n)]}
			if int64(len(rest)) >= 12+n {
				c.sum = rest[4 : 12+n]
			}
			if !yield(c, int(n)) || c.kind == "IEND" || int64(len(rest)) < 12+n {
				return
			}
			rest = rest[12+n:]
		}
	}
}

// pngHead is IHDR.
type pngHead struct {
	w, h          int
	depth, colour byte
	interlaced    bool
}

// pngHeader reads IHDR.
func pngHeader(content []byte) (p pngHead, err error) {
	for c, n := range pngChunks(content) {
		switch b := c.body; {
		case c.kind != "IHDR" || n != 13:
			return p, errors.New("a PNG file that does not begin with its header (IHDR)")
		case c.cutIn(n):
			return p, cut(io.ErrUnexpectedEOF)
		case !c.whole():
			return p, errors.New("the checksum of the PNG file's header (IHDR) is wrong")
		default:
			w, h := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
			p = pngHead{w: int(w), h: int(h), depth: b[8], colour: b[9], interlaced: b[12] == 1}
			switch {
			case w < 1 || h < 1 || w > 1<<31-1 || h > 1<<31-1:
				return p, fmt.Errorf("image of %d×%d pixels", w, h)
			case p.bits() == 0 || b[10] != 0 || b[11] != 0 || b[12] > 1:
				return p, fmt.Errorf("a PNG header that makes no sense: colour type %d of %d bits, methods %d, %d, %d", p.colour, p.depth, b[10], b[11], b[12])
			}
			return p, nil
		}
	}
	return p, cut(io.ErrUnexpectedEOF)
}

// bits is how many a pixel has; 0 for what the specification does not allow.
func (p pngHead) bits() int {
	channels, depths := 1, uint32(0) // of bit n: a depth of n bits
	const eight, sixteen = 1 << 8, 1 << 16
	switch p.colour {
	case 0:
		depths = 1<<1 | 1<<2 | 1<<4 | eight | sixteen
	case 2:
		channels, depths = 3, eight|sixteen
	case 3:
		depths = 1<<1 | 1<<2 | 1<<4 | eight
	case 4:
		channels, depths = 2, eight|sixteen
	case 6:
		channels, depths = 4, eight|sixteen
	}
	if p.depth > 16 || depths>>p.depth&1 == 0 {
		return 0
	}
	return channels * int(p.depth)
}

// raw is how many bytes the pixels are before compression: each row of each pass has
// one for its filter.
func (p pngHead) raw() int64 {
	rows := func(w, h int) int64 {
		if w <= 0 || h <= 0 {
			return 0
		}
		return int64(h) * (1 + (int64(w)*int64(p.bits())+7)/8)
	}
	if !p.interlaced {
		return rows(p.w, p.h)
	}
	var n int64
	for _, a := range [7][4]int{{8, 8, 0, 0}, {8, 8, 4, 0}, {4, 8, 0, 4}, {4, 4, 2, 0}, {2, 4, 0, 2}, {2, 2, 1, 0}, {1, 2, 0, 1}} { // Adam7: steps, first pixel
		n += rows((p.w-a[2]+a[0]-1)/a[0], (p.h-a[3]+a[1]-1)/a[1])
	}
	return n
}

// readPNG reads the header of a PNG file.
func readPNG(content []byte) (Header, error) {
	p, err := pngHeader(content)
	if err != nil {
		return Header{}, err
	}
	h := Header{Format: PNG, Width: p.w, Height: p.h}
	switch p.colour {
	case 0:
		h.Colours = "grey"
	case 2:
		h.Colours = "RGB"
	case 3:
		h.Colours = "palette"
	case 4:
		h.Colours = "grey with alpha"
	case 6:
		h.Colours = "RGB with alpha"
	}
	if p.depth == 16 {
		h.Colours += ", 16 bit"
	}
	return h, nil
}

// decodePNG decodes a PNG file of which the header was read.
func decodePNG(d *Decoder, content []byte) (*augment.Image, error) {
	if img := fastPNG(d, content); img != nil {
		return img, nil
	}
	return carefulPNG(d, content)
}

// carefulPNG is decodePNG for every file. image/png refuses one for faults that do not
// touch the pixels: those are looked past, as libpng does.
func carefulPNG(d *Decoder, content []byte) (*augment.Image, error) {
	m, err := png.Decode(bytes.NewReader(content))
	if err != nil {
		if m, err = decodeDamagedPNG(content, err); err != nil {
			return nil, cut(err)
		}
	}
	return toRGB(m, d), nil
}

// decodeDamagedPNG decodes what the pixels need of a file that image/png refused with
// an error: header, palette and its transparency, and the compressed pixels, which
// must be there in full. A missing end, an extra palette, damaged texts and the
// checksum over all pixels, where all of them are there, do not count.
func decodeDamagedPNG(content []byte, why error) (image.Image, error) {
	p, err := pngHeader(content)
	if err != nil {
		return nil, err
	}
	var before, packed []chunk
	for c, n := range pngChunks(content) {
		switch c.kind {
		case "PLTE", "tRNS":
			if p.colour != 3 || packed != nil {
				continue
			}
			if !c.whole() {
				return nil, fmt.Errorf("its palette (%s) is damaged", c.kind)
			}
			before = append(before, c)
		case "IDAT":
			if !c.whole() && !c.cutIn(n) {
				return nil, errors.New("the checksum of its pixels (IDAT) is wrong, or they are cut short")
			}
			packed = append(packed, c)
		}
	}
	if packed == nil {
		return nil, why
	}
	// A pipe, so that the pixels are not in memory once more.
	r, w := io.Pipe()
	var group errgroup.Group
	group.Go(func() error {
		out := &chunkWriter{w: w}
		_, out.err = io.WriteString(w, pngMagic)
		out.write("IHDR", content[16:29])
		for _, c := range before {
			out.write(c.kind, c.body)
		}
		if out.err == nil {
			out.err = repack(out, p, packed)
		}
		out.write("IEND", nil)
		return w.CloseWithError(out.err)
	})
	m, err := png.Decode(r)
	_ = r.Close()
	return m, errors.Join(err, group.Wait())
}

// repack unpacks the pixels and stores them as they are.
func repack(out *chunkWriter, p pngHead, packed []chunk) error {
	var parts []io.Reader
	for _, c := range packed {
		parts = append(parts, bytes.NewReader(c.body))
	}
	in, err := zlib.NewReader(io.MultiReader(parts...))
	if err != nil {
		return err
	}
	w, err := zlib.NewWriterLevel(out, zlib.NoCompression)
	if err != nil {
		return err
	}
	n, err := io.CopyN(w, in, p.raw())
	switch {
	case n == p.raw():
		return w.Close()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the file is cut short: not all of its pixels are there")
	}
	return err
}

// chunkWriter writes chunks until one fails.
type chunkWriter struct {
	w   io.Writer
	err error
}

// Write makes a chunk of pixels of b.
func (c *chunkWriter) Write(b []byte) (int, error) {
	c.write("IDAT", b)
	return len(b), c.err
}

func (c *chunkWriter) write(kind string, body []byte) {
	if c.err != nil {
		return
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, len(body)+12), uint32(len(body)))
	b = append(append(b, kind...), body...)
	_, c.err = c.w.Write(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:])))
}
