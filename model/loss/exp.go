package loss

import "math"

// exp is e^x for x ≤ 0, to 1e-8 relative; 0 below −87, so that no float32
// made from it is subnormal. Unlike math.Exp it rounds the same way on every
// processor, and it is cheap enough for b·K of them in a step.
//
// x = k·ln 2 + r with |r| ≤ ln 2 / 2; e^r by its Taylor polynomial of degree 7
// (remainder below 6e-9).
func exp(x float64) float64 {
	if !(x >= -87) {
		return 0
	}
	k := int64(float64(x*math.Log2E) - 0.5) // truncation rounds to nearest for x ≤ 0
	r := x - float64(float64(k)*math.Ln2)
	r2 := float64(r * r)
	low := 1 + r + float64(r2*(1.0/2+float64(r*(1.0/6))))
	high := 1.0/24 + float64(r*(1.0/120)) + float64(r2*(1.0/720+float64(r*(1.0/5040))))
	p := low + float64(float64(r2*r2)*high)
	return p * math.Float64frombits(uint64(1023+k)<<52)
}
