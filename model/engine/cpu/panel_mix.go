package cpu

import (
	"math"

	"mochi/model/engine"
)

// point is one synthetic negative: its similarity with the query and its
// coefficients, α/ρ and (1−α)/ρ.
type point struct {
	wi, wj, sim float64
}

// Mix implements engine.Panel.
func (p *Panel) Mix(m *engine.Mixture) {
	d, n := p.dim, len(m.Sims)
	part := m.Part[d:]
	for _, c := range m.Sims {
		part[engine.PartHardSim] += c
	}
	part[engine.PartHard] += float32(n)
	if len(m.First)+len(m.Partner) == 0 {
		return
	}
	p.gather(m)
	row := func(i int32) []float32 { return p.gathered[int(i)*d : (int(i)+1)*d] }

	p.points = p.points[:0]
	hardest := float64(engine.NoSimilarity)
	for t, i := range m.First {
		j := m.Second[t]
		ni, nj := row(i), row(j)
		h := mixture(m.Alpha[t], m.Sims[i], m.Sims[j], p.set.dot(ni, nj), m.Query, ni, nj)
		hardest = max(hardest, h.sim)
		p.points = append(p.points, h)
	}
	for t, j := range m.Partner {
		h := mixture(m.Beta[t], 1, m.Sims[j], m.Sims[j], m.Query, m.Query, row(j))
		hardest = max(hardest, h.sim)
		p.points = append(p.points, h)
	}
	part[engine.PartPoint] = float32(hardest)

	// Exponentials relative to the new top.
	top := max(float32(hardest), part[engine.PartTop])
	scale := exp2((part[engine.PartTop] - top) * float32(float64(m.InvT)/math.Ln2))
	part[engine.PartTop] = top
	perTop := float64(m.InvT) / math.Ln2
	weights := grow(&p.weights, n)
	clear(weights)
	var sum, query float64
	for t := range p.points {
		h := &p.points[t]
		e := float64(exp2(float32(min(0, (h.sim-float64(top))*perTop))))
		sum += e
		if t < len(m.First) {
			weights[m.First[t]] += float32(e * h.wi)
			weights[m.Second[t]] += float32(e * h.wj)
		} else {
			query += e * h.wi
			weights[m.Partner[t-len(m.First)]] += float32(e * h.wj)
		}
	}
	part[engine.PartSum] = float32(float64(part[engine.PartSum])*float64(scale) + sum)
	part[engine.PartQuery] = float32(query)
	vec := m.Part[:d]
	for x := range vec {
		vec[x] *= scale
	}
	for i, w := range weights {
		if w != 0 {
			p.set.axpy(vec, row(int32(i)), w)
		}
	}
}

// gather copies the hard negatives' rows to where they lie together.
func (p *Panel) gather(m *engine.Mixture) {
	d := p.dim
	to := grow(&p.gathered, len(m.Sims)*d)
	for s := range m.From {
		from := &m.From[s]
		for _, r := range from.Rows {
			at := int(r) * from.Stride * d
			if from.BF16 != nil {
				p.Widen(to[:d], from.BF16[at:at+d])
			} else {
				copy(to[:d], from.Keys[at:at+d])
			}
			to = to[d:]
		}
	}
}

func grow(s *[]float32, n int) []float32 {
	if cap(*s) < n {
		*s = make([]float32, n)
	}
	*s = (*s)[:n]
	return *s
}

// mixture is the point a·x + (1−a)·y, normalised, from cx = q·x, cy = q·y and
// xy = x·y for vectors of length 1.
func mixture(a, cx, cy, xy float32, q, x, y []float32) point {
	wa, wb := float64(a), 1-float64(a)
	rho2 := float64(wa*wa) + float64(wb*wb) + float64(2*wa*wb)*float64(xy)
	sim := float64(wa*float64(cx)) + float64(wb*float64(cy))
	if rho2 < engine.Cancels {
		rho2, sim = 0, 0
		for i := range q {
			h := float64(wa*float64(x[i])) + float64(wb*float64(y[i]))
			rho2 += float64(h * h)
			sim += float64(float64(q[i]) * h)
		}
	}
	rho := max(math.Sqrt(rho2), engine.MinNorm)
	return point{wi: wa / rho, wj: wb / rho, sim: sim / rho}
}
