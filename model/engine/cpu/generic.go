package cpu

// genericInstructions is the plain Go implementation. Products are rounded
// before they are added (the conversions forbid fusing), so every architecture
// gives the same bits.
func genericInstructions() instructions {
	return instructions{
		rows:    4,
		tiles:   []microKernel{{2, false, genericTile4x2}, {1, false, genericTile4x1}},
		vectors: genericVectors(),

		laneLoops: genericLaneLoops(),
	}
}

func genericTile4x2(t *tile) {
	var s00, s01, s10, s11, s20, s21, s30, s31 float32
	c0, c1, c2, c3 := t.c[t.crow[0]:][:2], t.c[t.crow[1]:][:2], t.c[t.crow[2]:][:2], t.c[t.crow[3]:][:2]
	if t.acc {
		s00, s01, s10, s11 = c0[0], c0[1], c1[0], c1[1]
		s20, s21, s30, s31 = c2[0], c2[1], c3[0], c3[1]
	}
	a0, a1, a2, a3 := t.a[t.arow[0]:], t.a[t.arow[1]:], t.a[t.arow[2]:], t.a[t.arow[3]:]
	at := 0
	for _, row := range t.brow {
		b := t.b[row:][:2]
		s00 += float32(a0[at] * b[0])
		s01 += float32(a0[at] * b[1])
		s10 += float32(a1[at] * b[0])
		s11 += float32(a1[at] * b[1])
		s20 += float32(a2[at] * b[0])
		s21 += float32(a2[at] * b[1])
		s30 += float32(a3[at] * b[0])
		s31 += float32(a3[at] * b[1])
		at += t.astep
	}
	c0[0], c0[1], c1[0], c1[1] = s00, s01, s10, s11
	c2[0], c2[1], c3[0], c3[1] = s20, s21, s30, s31
}

func genericTile4x1(t *tile) {
	for r := range 4 {
		if r > 0 && t.crow[r] == t.crow[r-1] {
			break // the last row, repeated
		}
		var s float32
		c := &t.c[t.crow[r]]
		if t.acc {
			s = *c
		}
		a := t.a[t.arow[r]:]
		at := 0
		for _, row := range t.brow {
			s += float32(a[at] * t.b[row])
			at += t.astep
		}
		*c = s
	}
}
