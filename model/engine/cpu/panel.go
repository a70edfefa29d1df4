package cpu

import (
	"math"
	"math/bits"

	"mochi/model/engine"
	"mochi/model/nearest"
)

// Panel implements engine.Panel. A block of keys [n, d] meets the transposed
// queries [d, 32]: similarities and their exponentials are [n, 32], the sum of
// weighted keys [d, 32]. So all that belongs to a query stays in its lane
// (nothing is summed across a vector), keys are read where they lie, and both
// products are the micro-kernel's.
type Panel struct {
	w         worker
	set       instructions
	dim, hard int

	b     int
	width int       // lanes in use: 16 or 32
	invT  float32   // 1/(τ ln 2): exponentials are powers of two
	tau   float32   // 1/τ
	q     []float32 // [d, 32] queries, transposed
	e     []float32 // [n, 32] similarities, then exponentials
	sum   []float32 // [d, 32] Σ e·n
	above []uint32  // [n] lanes whose similarity is above their threshold

	lane     laneState
	z, sims  [panelLanes]float64 // Σ e, Σ c of the part
	rows     [panelLanes]int32   // keys counted
	labels   [panelLanes]int32
	byClass  bool
	ranking  bool
	hardest  []*nearest.Selection
	prodS    product
	prodSum  product
	gathered []float32
	weights  []float32
	points   []point
}

const panelLanes = engine.PanelQueries

// laneState is what the inner loops read and write, one value a lane.
type laneState struct {
	top       [panelLanes]float32 // largest similarity of the part
	threshold [panelLanes]float32 // above it a key is a candidate
	blockTop  [panelLanes]float32 // largest of the block
	blockSim  [panelLanes]float32 // Σ c of the block
	blockZ    [panelLanes]float32 // Σ e of the block
	rescale   [panelLanes]float32
	invT      float32
}

// Contrast implements engine.Contrast. Its panels run on the goroutines of
// their callers.
type Contrast struct {
	ISA ISA // "": the fastest of this CPU
}

// NewPanel implements engine.Contrast. It does not fail: memory is Go's.
func (c Contrast) NewPanel(shape engine.PanelShape) (engine.Panel, error) {
	if c.ISA == "" {
		c.ISA = Available()[0]
	}
	return newPanel(c.ISA, shape.Dim, shape.Hard), nil
}

func newPanel(isa ISA, dim, hard int) *Panel {
	p := &Panel{set: instructionsOf(isa), dim: dim, hard: hard,
		q: make([]float32, dim*panelLanes), sum: make([]float32, dim*panelLanes),
		e:     make([]float32, engine.PanelRows*panelLanes),
		above: make([]uint32, engine.PanelRows)}
	p.w.set = &p.set
	if hard > 0 {
		p.hardest = make([]*nearest.Selection, panelLanes)
		for i := range p.hardest {
			p.hardest[i] = nearest.New(hard)
		}
	}
	offsets := make([]int, max(dim, engine.PanelRows))
	for i := range offsets {
		offsets[i] = i * panelLanes
	}
	p.prodS = product{a: nil, b: p.q, c: p.e, lda: dim, astep: 1, brow: offsets[:dim], ldc: panelLanes, terms: 1}
	p.prodSum = product{m: dim, a: nil, b: p.e, c: p.sum, lda: 1, astep: dim, brow: offsets, ldc: panelLanes, terms: 1, acc: true}
	return p
}

// Load implements engine.Panel.
func (p *Panel) Load(q []float32, labels []int32, invT float32, keep int) {
	p.b = len(q) / p.dim
	need("panel", "q", len(q), p.b*p.dim)
	p.width = panelLanes
	if p.b <= 16 {
		p.width = 16
	}
	clear(p.q)
	for i := range p.b {
		for x, v := range q[i*p.dim : (i+1)*p.dim] {
			p.q[x*panelLanes+i] = v
		}
	}
	p.tau, p.invT = invT, float32(float64(invT)/math.Ln2)
	p.lane.invT = p.invT
	p.byClass, p.ranking = labels != nil, keep > 0
	for i := range p.labels {
		p.labels[i] = -1
	}
	copy(p.labels[:], labels)
	for i := range panelLanes {
		p.lane.threshold[i] = math.MaxFloat32
		if i < p.b && p.ranking {
			p.hardest[i].ResetFor(keep)
			p.lane.threshold[i] = engine.NoSimilarity
		}
	}
}

// Raise implements engine.Panel.
func (p *Panel) Raise(keep int) {
	for i := range p.b {
		p.lane.threshold[i] = p.hardest[i].Raise(keep)
	}
}

// Begin implements engine.Panel.
func (p *Panel) Begin() {
	clear(p.sum)
	for i := range panelLanes {
		p.lane.top[i] = engine.NoSimilarity
		p.z[i], p.sims[i], p.rows[i] = 0, 0, 0
	}
}

// Scan implements engine.Panel.
func (p *Panel) Scan(keys []float32, labels []int32, first int) {
	n := len(keys) / p.dim
	need("panel", "keys", len(keys), n*p.dim)
	if n > engine.PanelRows {
		panic("kernel: panel: more keys than engine.PanelRows")
	}
	if n == 0 {
		return
	}
	e := p.e[:n*panelLanes]
	p.prodS.m, p.prodS.n, p.prodS.a = n, p.width, keys
	p.w.multiply(&p.prodS)
	l := &p.lane
	if p.byClass {
		sims := p.drop(e, labels)
		p.set.laneScan(e, p.above[:n], l)
		l.blockSim = sims
	} else {
		p.set.laneScan(e, p.above[:n], l)
		for i := range p.b {
			p.rows[i] += int32(n)
		}
	}
	for i := range p.b {
		p.sims[i] += float64(l.blockSim[i])
	}
	if p.ranking {
		p.collect(e, n, first)
	}

	rises := false
	for i := range panelLanes {
		l.rescale[i] = 1
		if l.blockTop[i] > l.top[i] {
			l.rescale[i] = exp2((l.top[i] - l.blockTop[i]) * l.invT)
			l.top[i] = l.blockTop[i]
			p.z[i] *= float64(l.rescale[i])
			rises = true
		}
	}
	if rises {
		p.set.laneScale(p.sum, l)
	}
	p.set.laneExp(e, l)
	for i := range p.b {
		p.z[i] += float64(l.blockZ[i])
	}
	p.prodSum.n, p.prodSum.a, p.prodSum.brow = p.width, keys, p.prodSum.brow[:n]
	p.w.multiply(&p.prodSum)
	p.prodSum.brow = p.prodSum.brow[:engine.PanelRows]
	p.prodS.a, p.prodSum.a = nil, nil
}

// drop sets the similarities of keys of a query's class to −∞, counts the
// others and returns their sums: an infinity that nobody put there must show.
func (p *Panel) drop(e []float32, labels []int32) (sims [panelLanes]float32) {
	for j, label := range labels {
		row := e[j*panelLanes : j*panelLanes+p.b]
		for i, c := range row {
			if label >= 0 && label == p.labels[i] {
				row[i] = float32(math.Inf(-1))
				continue
			}
			sims[i] += c
			p.rows[i]++
		}
	}
	return sims
}

// collect offers the candidates of the block, row by row.
func (p *Panel) collect(e []float32, n, first int) {
	for j, lanes := range p.above[:n] {
		for ; lanes != 0; lanes &= lanes - 1 {
			i := bits.TrailingZeros32(lanes)
			p.lane.threshold[i] = p.hardest[i].Offer(e[j*panelLanes+i], first+j)
		}
	}
}

// End implements engine.Panel.
func (p *Panel) End(i int, dst []float32) {
	need("panel", "part", len(dst), p.dim+engine.PartScalars)
	for x := range p.dim {
		dst[x] = p.sum[x*panelLanes+i]
	}
	s := dst[p.dim:]
	clear(s)
	s[engine.PartTop] = p.lane.top[i]
	s[engine.PartSum] = float32(p.z[i])
	s[engine.PartReal] = p.lane.top[i]
	s[engine.PartPoint] = engine.NoSimilarity
	s[engine.PartSim] = float32(p.sims[i])
	s[engine.PartRows] = float32(p.rows[i])
}

// Hardest implements engine.Panel.
func (p *Panel) Hardest(i int, dst []nearest.Key) []nearest.Key {
	return append(dst[:0], p.hardest[i].Best()...)
}

// Widen implements engine.Panel.
func (p *Panel) Widen(dst []float32, src []uint16) {
	dst = dst[:len(src)]
	for i, x := range src {
		dst[i] = math.Float32frombits(uint32(x) << 16)
	}
}
