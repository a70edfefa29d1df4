package cpu

// expConstants are what laneExp broadcasts.
type expConstants struct{ round, lowest, c1, c2, c3, c4, c5, c6, one float32 }

// avx2LaneLoops serves AVX-512 too: both give the same bits, and next to the
// products these loops are cheap.
func avx2LaneLoops() laneLoops {
	constants := &expConstants{exp2Round, exp2Lowest, exp2C1, exp2C2, exp2C3, exp2C4, exp2C5, exp2C6, 1}
	return laneLoops{
		laneScan: func(e []float32, above []uint32, l *laneState) {
			_ = e[len(above)*panelLanes-1]
			avx2LaneScan(&e[0], &above[0], l, len(above))
		},
		laneExp:   func(e []float32, l *laneState) { avx2LaneExp(&e[0], l, len(e)/panelLanes, constants) },
		laneScale: func(e []float32, l *laneState) { avx2LaneScale(&e[0], l, len(e)/panelLanes) },
		dot: func(x, y []float32) float32 {
			y = y[:len(x)]
			n := len(x) &^ 15
			if n == 0 {
				return dot(x, y)
			}
			return avx2Dot(&x[0], &y[0], n) + dot(x[n:], y[n:])
		},
		axpy: func(y, x []float32, a float32) {
			x = x[:len(y)]
			n := len(y) &^ 15
			if n > 0 {
				avx2Axpy(&y[0], &x[0], a, n)
			}
			axpy(y[n:], x[n:], a)
		},
	}
}

//go:noescape
func avx2LaneScan(e *float32, above *uint32, l *laneState, n int)

//go:noescape
func avx2LaneExp(e *float32, l *laneState, n int, c *expConstants)

//go:noescape
func avx2LaneScale(e *float32, l *laneState, n int)

//go:noescape
func avx2Dot(x, y *float32, n int) float32

//go:noescape
func avx2Axpy(y, x *float32, a float32, n int)
