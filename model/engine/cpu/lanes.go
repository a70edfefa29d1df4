package cpu

import "math"

// laneLoops are the inner loops of a Panel: e is [n, 32], a row a key, a
// column (lane) a query.
type laneLoops struct {
	// laneScan finds blockTop and blockSim of every lane, and for each row the
	// set of lanes above their threshold. NaN is above no threshold; it ends
	// up in blockSim.
	laneScan func(e []float32, above []uint32, l *laneState)
	// laneExp: e = 2^{(e−top)·invT}, and blockZ, their sum
	laneExp func(e []float32, l *laneState)
	// laneScale multiplies every row by rescale.
	laneScale func(e []float32, l *laneState)
	// dot is x·y in 16 partial sums.
	dot func(x, y []float32) float32
	// axpy: y += a·x
	axpy func(y, x []float32, a float32)
}

func genericLaneLoops() laneLoops {
	return laneLoops{laneScan: laneScan, laneExp: laneExp, laneScale: laneScale, dot: dot, axpy: axpy}
}

func laneScan(e []float32, above []uint32, l *laneState) {
	for i := range panelLanes {
		l.blockTop[i], l.blockSim[i] = e[i], 0
	}
	for j := range above {
		row := (*[panelLanes]float32)(e[j*panelLanes:])
		var set uint32
		for i, c := range row {
			l.blockSim[i] += c
			if c > l.blockTop[i] {
				l.blockTop[i] = c
			}
			if c > l.threshold[i] {
				set |= 1 << i
			}
		}
		above[j] = set
	}
}

func laneExp(e []float32, l *laneState) {
	clear(l.blockZ[:])
	for ; len(e) >= panelLanes; e = e[panelLanes:] {
		row := (*[panelLanes]float32)(e)
		for i, c := range row {
			v := exp2(float32(c-l.top[i]) * l.invT)
			row[i] = v
			l.blockZ[i] += v
		}
	}
}

func laneScale(e []float32, l *laneState) {
	for ; len(e) >= panelLanes; e = e[panelLanes:] {
		row := (*[panelLanes]float32)(e)
		for i := range row {
			row[i] *= l.rescale[i]
		}
	}
}

func dot(x, y []float32) float32 {
	var s [4]float32
	y = y[:len(x)]
	i := 0
	for ; i+4 <= len(x); i += 4 {
		s[0] += float32(x[i] * y[i])
		s[1] += float32(x[i+1] * y[i+1])
		s[2] += float32(x[i+2] * y[i+2])
		s[3] += float32(x[i+3] * y[i+3])
	}
	for ; i < len(x); i++ {
		s[0] += float32(x[i] * y[i])
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}

func axpy(y, x []float32, a float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] += float32(x[i] * a)
	}
}

// The coefficients of 2^f for |f| ≤ ½ (Moshier's Cephes, exp2f), to 2e-7.
const (
	exp2Lowest = -126    // 2^x is 0 below: nothing made from it is subnormal
	exp2Round  = 3 << 22 // adding it rounds to an integer, left in the low bits
	exp2C1     = 6.931472028550421e-1
	exp2C2     = 2.402264791363012e-1
	exp2C3     = 5.550332471162809e-2
	exp2C4     = 9.618437357674640e-3
	exp2C5     = 1.339887440266574e-3
	exp2C6     = 1.535336188319500e-4
)

// exp2 is 2^x for x ≤ 0.
func exp2(x float32) float32 {
	if !(x >= exp2Lowest) {
		return 0
	}
	shifted := float32(x + exp2Round)
	f := x - float32(shifted-exp2Round)
	r := float32(f*exp2C6) + exp2C5
	r = float32(f*r) + exp2C4
	r = float32(f*r) + exp2C3
	r = float32(f*r) + exp2C2
	r = float32(f*r) + exp2C1
	r = float32(f*r) + 1
	return math.Float32frombits(math.Float32bits(r) + math.Float32bits(shifted)<<23)
}
