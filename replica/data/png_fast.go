//go:build libdeflate

package data

import (
	"mochi/replica/augment"
	"mochi/replica/data/libdeflate"
)

// fastPNG decodes what most PNG files are, with nothing wrong in their pixels: nil
// for others, which image/png decodes, or says why not. The pixels are the same.
func fastPNG(d *Decoder, content []byte) *augment.Image {
	p, err := pngHeader(content)
	if err != nil || p.interlaced || p.depth < 8 || p.colour == 3 {
		return nil
	}
	var packed []byte
	parts, total := 0, 0
	for c := range pngChunks(content) {
		if c.kind != "IDAT" {
			continue
		}
		if !c.whole() {
			return nil
		}
		packed = c.body
		parts++
		total += len(c.body)
	}
	raw := p.raw()
	if parts == 0 || raw > kept || int64(total) > raw+raw/8+1<<10 {
		return nil
	}
	if parts > 1 {
		packed = d.packed[:0]
		for c := range pngChunks(content) {
			if c.kind == "IDAT" {
				packed = append(packed, c.body...)
			}
		}
		d.packed = packed
	}
	pixel := p.bits() / 8
	stride := p.w * pixel
	n := libdeflate.Room(stride, p.h)
	if cap(d.rows) < n {
		d.rows = make([]byte, n)
	}
	rows := d.rows[:n]
	if !libdeflate.Rows(packed, stride, p.h, pixel, rows) {
		return nil
	}
	out := d.Image(p.w, p.h)
	step := int(p.depth) / 8 // of 16 bits the upper 8
	for y := range p.h {
		from := rows[stride+y*(1+stride)+1:][:stride]
		to := out.Pix[y*p.w*augment.Channels:][:p.w*augment.Channels]
		switch {
		case pixel == augment.Channels:
			copy(to, from)
		case p.colour&2 != 0:
			copyPixels(to, from, pixel, step)
		default: // grey
			for x := range p.w {
				v := from[x*pixel]
				to[3*x], to[3*x+1], to[3*x+2] = v, v, v
			}
		}
	}
	return out
}
