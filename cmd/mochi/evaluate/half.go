package evaluate

import "math"

// toHalf is v in IEEE 754 binary16, rounded to nearest, ties to even; what is too
// large becomes infinite.
func toHalf(v float32) uint16 {
	b := math.Float32bits(v)
	sign := uint16(b>>16) & 0x8000
	exponent, fraction := int(b>>23&0xff)-127, b&0x7fffff
	switch {
	case exponent == 128: // infinite, or no number
		if fraction != 0 {
			return sign | 0x7e00
		}
		return sign | 0x7c00
	case exponent > 15:
		return sign | 0x7c00
	case exponent >= -14:
		half := uint32(exponent+15)<<10 | fraction>>13
		return sign | uint16(half+roundUp(half, fraction&0x1fff, 0x1000)) // a carry raises the exponent
	case exponent >= -25: // subnormal
		fraction |= 0x800000
		shift := uint(-exponent - 14 + 13)
		half := fraction >> shift
		return sign | uint16(half+roundUp(half, fraction&(1<<shift-1), 1<<(shift-1)))
	}
	return sign
}

// roundUp is 1 where what was cut off rounds the rest up.
func roundUp(kept, cut, middle uint32) uint32 {
	if cut > middle || cut == middle && kept&1 == 1 {
		return 1
	}
	return 0
}

// fromHalf is the value of a binary16.
func fromHalf(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent, fraction := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0:
		v := float32(fraction) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(v))
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}
