package loss

import (
	"math"
	"math/rand/v2"
	"sort"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cpu"
	"mochi/model/nearest"
)

// problem is an input with its queue in the order of slots.
type problem struct {
	Input
	Queue       []float32 // [K, d]
	QueueLabels []int32   // [K]
}

// best are the kernels of this CPU, or with the tag gpu those of the device;
// contrasts are all there are.
var (
	best      engine.Contrast = cpu.Contrast{}
	contrasts                 = map[string]engine.Contrast{}
)

func init() {
	for _, isa := range cpu.Available() {
		contrasts[string(isa)] = cpu.Contrast{ISA: isa}
	}
}

// similarities are q·n [b, K] as the kernels round them: which are the N
// hardest hangs on the last bit. v is the V of the loss.
func similarities(t testing.TB, k engine.Contrast, in problem, d, v int) []float32 {
	b, n := len(in.Samples), len(in.Queue)/d
	out := make([]float32, b*n)
	if _, device := k.(engine.Offloader); device {
		l, err := New(Config{N: n, Temperature: 1, Shards: v}, d, b, n, k)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		shards := Split(in.Queue, nil, d, v)
		if err := l.Scan(Queries{Q: in.Q, Samples: in.Samples, Mix: true}, shards); err != nil {
			t.Fatal(err)
		}
		values := l.Hardest().Values // all, by shard, then row
		for i := range b {
			for _, s := range shards {
				for slot := s.Index; slot < n; slot += len(shards) {
					out[i*n+slot], values = values[0], values[1:]
				}
			}
		}
		return out
	}
	for from := 0; from < b; from += engine.PanelQueries {
		to := min(from+engine.PanelQueries, b)
		p, err := k.NewPanel(engine.PanelShape{Dim: d, Hard: n})
		if err != nil {
			t.Fatal(err)
		}
		p.Load(in.Q[from*d:to*d], nil, 1, n)
		p.Begin()
		for r := 0; r < n; r += engine.PanelRows {
			p.Scan(in.Queue[r*d:min(r+engine.PanelRows, n)*d], nil, r)
		}
		for i := from; i < to; i++ {
			for _, key := range p.Hardest(i-from, make([]nearest.Key, 0, n)) {
				out[i*n+int(key.Index())] = key.Similarity()
			}
		}
	}
	return out
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
	cfg  Config
	dim  int
	sims []float32 // [b, K] as the implementation under test rounds them
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

func (p plainLoss) query(in problem, b int) plainQuery {
	d := p.dim
	q := in.Q[b*d : (b+1)*d]
	k := len(in.Queue) / d
	v := max(p.cfg.Shards, 1)
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
		i, j := hard[x], hard[y]
		if p.sims[b*k+i] != p.sims[b*k+j] {
			return p.sims[b*k+i] > p.sims[b*k+j]
		}
		return i%v < j%v || i%v == j%v && i < j
	})
	hard = hard[:min(p.cfg.N, len(hard))]
	out.hard = hard
	if len(hard) == 0 {
		return out
	}
	shards := make([][]int, v)
	for _, i := range hard {
		shards[i%v] = append(shards[i%v], i)
	}
	var ordered []int
	for _, s := range shards {
		sort.Ints(s)
		ordered = append(ordered, s...)
	}
	dr := newDrawer(p.cfg.Seed, in.Step, in.Samples[b])
	pick := func(from []int, u uint64) (int, uint64) {
		at, rest := below(u, int32(len(from)))
		return from[at], rest
	}
	// Of which the first may be any, and then the second.
	firsts, seconds := ordered, func(int) []int { return ordered }
	if p.cfg.PairsInShard {
		firsts = nil
		for _, i := range ordered {
			if len(shards[i%v]) > 1 {
				firsts = append(firsts, i)
			}
		}
		seconds = func(i int) (others []int) {
			for _, j := range shards[i%v] {
				if j != i {
					others = append(others, j)
				}
			}
			return others
		}
	}
	pairs := p.cfg.S
	if len(firsts) == 0 {
		pairs = 0
	}
	for t := range pairs {
		i, rest := pick(firsts, dr.uniform64(drawPair, t))
		j, rest := pick(seconds(i), rest)
		alpha := float64(unit(rest))
		if in.Draws != nil {
			at := b*p.cfg.S + t
			i, j, alpha = hard[in.Draws.First[at]], hard[in.Draws.Second[at]], float64(in.Draws.Alpha[at])
		}
		out.pairs = append(out.pairs, [2]int{i, j})
		out.negatives = append(out.negatives, build(alpha, slot(i), slot(j)))
	}
	for t := range p.cfg.S2 {
		j, rest := pick(ordered, dr.uniform64(drawQuery, t))
		beta := float64(unit(rest)) / 2
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
	norm = math.Max(math.Sqrt(norm), engine.MinNorm)
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
	if top == logits[0] { // keeps the digits of a small loss
		sum = 0
		for _, z := range logits[1:] {
			sum += math.Exp(z - top)
		}
		return math.Log1p(sum), grad
	}
	return math.Log(sum) + top - logits[0], grad
}

// compute is the whole batch. terms is how large the terms are of which the
// gradient is the sum: (1 − p_k)/τ for the positive, and as much for all
// negatives together. Where they cancel, dq is far smaller.
func (p plainLoss) compute(in problem) (out Output, dq []float64, terms float64) {
	d := p.dim
	for b := range in.Samples {
		one := p.query(in, b)
		q := wide(in.Q[b*d : (b+1)*d])
		l, g := p.value(q, one)
		out.Loss += l
		terms = math.Max(terms, -math.Expm1(-l)*in.Scale/p.cfg.Temperature)
		for _, x := range g {
			dq = append(dq, in.Scale*x)
		}
		pos := dotWide(q, one.pos)
		out.PosSim += pos
		realOnes := one.negatives[:len(one.slots)]
		best, all := true, true
		var sum float64
		hardest := math.Inf(-1)
		for i, n := range one.negatives {
			s := dotWide(q, n)
			if i < len(realOnes) {
				hardest = math.Max(hardest, s)
			}
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
			out.HardestSim += hardest
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
	return out, dq, terms
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
func example(seed uint64, b, d, k int) problem {
	r := rand.New(rand.NewPCG(seed, 7))
	in := problem{Input: Input{
		Queries: Queries{Q: randomUnit(r, b, d), Samples: make([]int, b), Step: int64(seed % 1000), Mix: true},
		Pos:     randomUnit(r, b, d), Scale: 1 / float64(b),
	}, Queue: randomUnit(r, k, d)}
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
