package loss

import (
	"math"
	"math/rand/v2"
	"sort"
)

// plainProducts are matrix products in float64, rounded once.
type plainProducts struct{}

func (plainProducts) NT(m, n, k int, a, b, c []float32) {
	for i := range m {
		for j := range n {
			c[i*n+j] = float32(plainDot(a[i*k:(i+1)*k], b[j*k:(j+1)*k]))
		}
	}
}

func (plainProducts) NN(m, n, k int, a, b, c []float32) {
	for i := range m {
		for j := range n {
			var s float64
			for x := range k {
				s += float64(a[i*k+x]) * float64(b[x*n+j])
			}
			c[i*n+j] = float32(s)
		}
	}
}

func plainDot(x, y []float32) float64 {
	var s float64
	for i := range x {
		s += float64(x[i]) * float64(y[i])
	}
	return s
}

// plainLoss is the dumb alternative: float64, one query at a time, every
// synthetic vector built, softmax over the whole list of negatives.
type plainLoss struct {
	cfg Config
	dim int
}

// plainQuery is everything about one query.
type plainQuery struct {
	pos       []float64
	negatives [][]float64 // real, then from pairs, then from the query
	slots     []int       // of the real ones
	pairs     [][2]int    // slots that were mixed
	hard      []int       // slots, hardest first
}

func wide(x []float32) []float64 {
	y := make([]float64, len(x))
	for i := range x {
		y[i] = float64(x[i])
	}
	return y
}

func (p plainLoss) query(in Input, b int) plainQuery {
	d := p.dim
	q := in.Q[b*d : (b+1)*d]
	k := len(in.Queue) / d
	slot := func(i int) []float32 { return in.Queue[i*d : (i+1)*d] }
	out := plainQuery{pos: wide(in.Pos[b*d : (b+1)*d])}
	for i := range k {
		if in.Labels != nil && in.Labels[b] >= 0 && in.Labels[b] == in.QueueLabels[i] {
			continue
		}
		out.slots = append(out.slots, i)
		out.negatives = append(out.negatives, wide(slot(i)))
	}
	if !in.Mix {
		return out
	}
	hard := append([]int(nil), out.slots...)
	sort.SliceStable(hard, func(x, y int) bool {
		return float32(plainDot(q, slot(hard[x]))) > float32(plainDot(q, slot(hard[y])))
	})
	hard = hard[:min(p.cfg.N, len(hard))]
	out.hard = hard
	if len(hard) == 0 {
		return out
	}
	v := max(p.cfg.Shards, 1)
	shards := make([][]int, v)
	for _, i := range hard {
		shards[i%v] = append(shards[i%v], i)
	}
	var ordered []int
	for _, s := range shards {
		ordered = append(ordered, s...)
	}
	dr := drawer{seed: p.cfg.Seed, step: in.Step, sample: in.Samples[b]}
	pick := func(from []int, u uint64) int { return from[below(u, int32(len(from)))] }
	for t := range p.cfg.S {
		i := pick(ordered, dr.uniform64(drawPair, t, 0))
		j := pick(shards[i%v], dr.uniform64(drawPair, t, 1))
		alpha := float64(unit(dr.uniform64(drawPair, t, 2)))
		if in.Draws != nil {
			at := b*p.cfg.S + t
			i, j, alpha = hard[in.Draws.First[at]], hard[in.Draws.Second[at]], float64(in.Draws.Alpha[at])
		}
		out.pairs = append(out.pairs, [2]int{i, j})
		out.negatives = append(out.negatives, build(alpha, slot(i), slot(j)))
	}
	for t := range p.cfg.S2 {
		j := pick(ordered, dr.uniform64(drawQuery, t, 0))
		beta := float64(unit(dr.uniform64(drawQuery, t, 1))) / 2
		if in.Draws != nil {
			at := b*p.cfg.S2 + t
			j, beta = hard[in.Draws.Partner[at]], float64(in.Draws.Beta[at])
		}
		out.negatives = append(out.negatives, build(beta, q, slot(j)))
	}
	return out
}

// build is a·x + (1−a)·y, normalised (left short when it all but vanishes).
func build(a float64, x, y []float32) []float64 {
	h := make([]float64, len(x))
	var norm float64
	for i := range h {
		h[i] = a*float64(x[i]) + (1-a)*float64(y[i])
		norm += h[i] * h[i]
	}
	norm = math.Max(math.Sqrt(norm), minNorm)
	for i := range h {
		h[i] /= norm
	}
	return h
}

func dotWide(x, y []float64) float64 {
	var s float64
	for i := range x {
		s += x[i] * y[i]
	}
	return s
}

// value is the loss of a query against fixed negatives, and dL/dq.
func (p plainLoss) value(q []float64, one plainQuery) (float64, []float64) {
	logits := []float64{dotWide(q, one.pos) / p.cfg.Temperature}
	vectors := [][]float64{one.pos}
	for _, n := range one.negatives {
		logits = append(logits, dotWide(q, n)/p.cfg.Temperature)
		vectors = append(vectors, n)
	}
	top := logits[0]
	for _, z := range logits {
		top = math.Max(top, z)
	}
	var sum float64
	for _, z := range logits {
		sum += math.Exp(z - top)
	}
	grad := make([]float64, len(q))
	for i, z := range logits {
		weight := math.Exp(z-top) / sum
		if i == 0 {
			weight = 0
			for _, other := range logits[1:] {
				weight -= math.Exp(other-top) / sum
			}
		}
		for x := range grad {
			grad[x] += weight / p.cfg.Temperature * vectors[i][x]
		}
	}
	return math.Log(sum) + top - logits[0], grad
}

// compute is the whole batch.
func (p plainLoss) compute(in Input) (out Output, dq []float64) {
	d := p.dim
	for b := range in.Samples {
		one := p.query(in, b)
		q := wide(in.Q[b*d : (b+1)*d])
		l, g := p.value(q, one)
		out.Loss += l
		for _, x := range g {
			dq = append(dq, in.Scale*x)
		}
		pos := dotWide(q, one.pos)
		out.PosSim += pos
		realOnes := one.negatives[:len(one.slots)]
		best, all := true, true
		var sum float64
		for i, n := range one.negatives {
			s := dotWide(q, n)
			if pos <= s {
				all = false
				if i < len(realOnes) {
					best = false
				}
			}
			if i < len(realOnes) {
				sum += s
			}
		}
		if len(realOnes) > 0 {
			out.NegSim += sum / float64(len(realOnes))
		}
		for _, i := range one.hard {
			out.HardSim += plainDot(in.Q[b*d:(b+1)*d], in.Queue[i*d:(i+1)*d]) / float64(len(one.hard))
		}
		if best {
			out.Proxy++
		}
		if all {
			out.ProxyHard++
		}
	}
	return out, dq
}

// randomUnit is n random rows of length 1.
func randomUnit(r *rand.Rand, n, d int) []float32 {
	out := make([]float32, n*d)
	for i := range n {
		row := out[i*d : (i+1)*d]
		for x := range row {
			row[x] = float32(r.NormFloat64())
		}
		normalise(row)
	}
	return out
}

func normalise(row []float32) {
	n := math.Sqrt(plainDot(row, row))
	for x := range row {
		row[x] = float32(float64(row[x]) / n)
	}
}

// example is a random input; a third of the keys lie near their query.
func example(seed uint64, b, d, k int) Input {
	r := rand.New(rand.NewPCG(seed, 7))
	in := Input{Q: randomUnit(r, b, d), Pos: randomUnit(r, b, d), Queue: randomUnit(r, k, d),
		Samples: make([]int, b), Step: int64(seed % 1000), Mix: true, Scale: 1 / float64(b)}
	for i := range b {
		in.Samples[i] = r.IntN(1000)
		if i%3 == 0 {
			row, q := in.Pos[i*d:(i+1)*d], in.Q[i*d:(i+1)*d]
			for x := range row {
				row[x] += 2 * q[x]
			}
			normalise(row)
		}
	}
	return in
}
