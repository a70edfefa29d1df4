package augment

import "math"

// luma is ITU-R 601-2 luma as PIL's convert("L") rounds it.
func luma(r, g, b uint8) uint8 {
	return uint8((uint32(r)*19595 + uint32(g)*38470 + uint32(b)*7471 + 1<<15) >> 16)
}

// blend is PIL's Image.blend of one value: a + factor·(b − a), cut to 8 bits,
// not rounded.
func blend(a, b uint8, factor float32) uint8 {
	v := float32(a) + float32(factor*float32(int(b)-int(a)))
	return uint8(min(max(v, 0), 255))
}

// jitter is torchvision's ColorJitter with its factors drawn.
func jitter(pix []uint8, p Params) {
	for _, part := range p.Order {
		switch part {
		case Brightness:
			blendWith(pix, 0, p.Factor[Brightness])
		case Contrast:
			blendWith(pix, meanLuma(pix), p.Factor[Contrast])
		case Saturation:
			saturate(pix, p.Factor[Saturation])
		case Hue:
			shiftHue(pix, p.HueShift)
		}
	}
}

// blendWith blends every value with one grey level: black for brightness, the
// mean for contrast.
func blendWith(pix []uint8, grey uint8, factor float32) {
	var table [256]uint8
	for v := range table {
		table[v] = blend(grey, uint8(v), factor)
	}
	for i, v := range pix {
		pix[i] = table[v]
	}
}

// meanLuma is the mean grey level, rounded half up.
func meanLuma(pix []uint8) uint8 {
	sum := 0
	for i := 0; i+2 < len(pix); i += Channels {
		sum += int(luma(pix[i], pix[i+1], pix[i+2]))
	}
	return uint8(float64(sum)/float64(len(pix)/Channels) + 0.5)
}

// saturate blends every pixel with its grey level.
func saturate(pix []uint8, factor float32) {
	for i := 0; i+2 < len(pix); i += Channels {
		px := pix[i : i+Channels : i+Channels]
		grey := luma(px[0], px[1], px[2])
		px[0], px[1], px[2] = blend(grey, px[0], factor), blend(grey, px[1], factor), blend(grey, px[2], factor)
	}
}

// grayscale replaces every pixel by its grey level.
func grayscale(pix []uint8) {
	for i := 0; i+2 < len(pix); i += Channels {
		px := pix[i : i+Channels : i+Channels]
		grey := luma(px[0], px[1], px[2])
		px[0], px[1], px[2] = grey, grey, grey
	}
}

// shiftHue is torchvision's adjust_hue on a PIL image: to 8-bit HSV, add the
// shift modulo 256, and back. (PIL's hue wraps at 255, so this is a little
// off a true rotation; it is what the reference trains with.)
func shiftHue(pix []uint8, turns float64) {
	shift := uint8(int(turns * 255))
	for i := 0; i+2 < len(pix); i += Channels {
		px := pix[i : i+Channels : i+Channels]
		if px[0] == px[1] && px[1] == px[2] {
			continue // no saturation: any hue is the same grey
		}
		h, s, v := toHSV(px[0], px[1], px[2])
		px[0], px[1], px[2] = fromHSV(h+shift, s, v)
	}
}

// toHSV converts a pixel that is not grey, in PIL's mix of float32 and
// float64.
func toHSV(r, g, b uint8) (h, s, v uint8) {
	high, low := max(r, g, b), min(r, g, b)
	span := float32(high - low)
	rc := float32(high-r) / span
	gc := float32(high-g) / span
	bc := float32(high-b) / span
	var turn float32
	switch high {
	case r:
		turn = bc - gc
	case g:
		turn = float32(2 + float64(rc) - float64(bc))
	default:
		turn = float32(4 + float64(gc) - float64(rc))
	}
	hue := float64(turn)/6 + 1
	if hue >= 1 {
		hue--
	}
	return uint8(float64(float32(hue)) * 255), uint8(float64(span/float32(high)) * 255), high
}

func fromHSV(h, s, v uint8) (r, g, b uint8) {
	if s == 0 {
		return v, v, v
	}
	sextant := float64(h) * 6 / 255
	i := math.Floor(sextant)
	f := float64(float32(sextant - i))
	fs := float64(float32(float64(s) / 255))
	value := float64(v)
	p := round8(value * (1 - fs))
	q := round8(value * (1 - float64(fs*f)))
	t := round8(value * (1 - float64(fs*(1-f))))
	switch int(i) % 6 {
	case 0:
		return v, t, p
	case 1:
		return q, v, p
	case 2:
		return p, v, t
	case 3:
		return p, q, v
	case 4:
		return t, p, v
	default:
		return v, p, q
	}
}

func round8(x float64) uint8 { return uint8(x + 0.5) }
