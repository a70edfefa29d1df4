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
	shift := hueSteps(turns)
	var hues [256]hue // by 8-bit hue before the shift
	var share [256]float64
	for i := range 256 {
		hues[i] = hueOf(uint8(i) + shift)
		share[i] = float64(float32(float64(i) / 255))
	}
	for i := 0; i+2 < len(pix); i += Channels {
		px := pix[i : i+Channels : i+Channels]
		if px[0] == px[1] && px[1] == px[2] {
			continue // no saturation: any hue is the same grey
		}
		h, s, v := toHSV(px[0], px[1], px[2])
		px[0], px[1], px[2] = fromHSV(&hues[h], share[s], v)
	}
}

// hueSteps is a shift in turns as PIL's 8-bit hue counts it.
func hueSteps(turns float64) uint8 { return uint8(int(turns * 255)) }

// toHSV converts a pixel that is not grey, in PIL's mix of float32 and
// float64.
func toHSV(r, g, b uint8) (h, s, v uint8) {
	high, low := max(r, g, b), min(r, g, b)
	span := float32(high - low)
	below := func(c uint8) float32 { return float32(high-c) / span }
	var turn float32
	switch high {
	case r:
		turn = below(b) - below(g)
	case g:
		turn = float32(2 + float64(below(r)) - float64(below(b)))
	default:
		turn = float32(4 + float64(below(g)) - float64(below(r)))
	}
	hue := float64(turn)/6 + 1
	if hue >= 1 {
		hue--
	}
	return uint8(float64(float32(hue)) * 255), uint8(float64(span/float32(high)) * 255), high
}

// hue is an 8-bit hue on the colour circle: its sextant and the place in it,
// in [0, 1).
type hue struct {
	sextant uint8
	place   float64
}

func hueOf(h uint8) hue {
	at := float64(h) * 6 / 255
	sextant := math.Floor(at)
	return hue{sextant: uint8(sextant) % 6, place: float64(float32(at - sextant))}
}

// fromHSV converts back; s is the saturation in [0, 1].
func fromHSV(h *hue, s float64, v uint8) (r, g, b uint8) {
	value := float64(v)
	p := round8(value * (1 - s))
	switch h.sextant {
	case 0:
		return v, round8(value * (1 - float64(s*(1-h.place)))), p
	case 1:
		return round8(value * (1 - float64(s*h.place))), v, p
	case 2:
		return p, v, round8(value * (1 - float64(s*(1-h.place))))
	case 3:
		return p, round8(value * (1 - float64(s*h.place))), v
	case 4:
		return round8(value * (1 - float64(s*(1-h.place)))), p, v
	default:
		return v, p, round8(value * (1 - float64(s*h.place)))
	}
}

func round8(x float64) uint8 { return uint8(x + 0.5) }
