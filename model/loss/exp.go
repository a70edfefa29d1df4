package loss

import "math"

// The exponential of a loss: x ≤ 0, to 1e-9 relative, rounded alike on every
// processor (math.Exp is not). Those of single keys are the engine's.
//
// x = k·ln 2/256 + r with |r| ≤ ln 2/512, so e^x = 2^⌊k/256⌋ · 2^{(k mod 256)/256} · e^r:
// an exponent, a table entry and 1 + r + r²/2 (remainder below 5e-10).
const (
	expLowest  = -87 // e^x is 0 below: no float32 made from it is subnormal
	expSteps   = 256 // table entries
	expPerUnit = expSteps / math.Ln2
	expStep    = math.Ln2 / expSteps
	expRound   = 3 << 51 // adding it rounds to an integer, left in the low bits
)

type expTable [expSteps]float64

// newExpTable holds 2^{i/256}, products of square roots of square roots of 2:
// Sqrt is correctly rounded everywhere.
func newExpTable() *expTable {
	var t expTable
	for i := range t {
		t[i] = 1
	}
	root := 2.0
	for bit := expSteps / 2; bit > 0; bit /= 2 {
		root = math.Sqrt(root)
		for i := range t {
			if i&bit != 0 {
				t[i] = float64(t[i] * root)
			}
		}
	}
	return &t
}

// exp is e^x for x ≤ 0.
func (t *expTable) exp(x float64) float64 {
	if !(x >= expLowest) {
		return 0
	}
	shifted := float64(x*expPerUnit) + expRound
	k := int64(math.Float64bits(shifted)) // k mod 2^51 in the low bits
	r := x - float64((shifted-expRound)*expStep)
	power := math.Float64frombits(math.Float64bits(t[k&(expSteps-1)]) + uint64(k>>8)<<52)
	return float64(power * (1 + r + float64(float64(r*r)*0.5)))
}
