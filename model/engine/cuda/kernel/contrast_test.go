package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"mochi/model/engine"
	reference "mochi/model/engine/cpu"
	"mochi/model/loss"
	"mochi/model/nearest"
	"mochi/model/splitmix"
)

// The hardest of several runs of shards, against sorting: with ties, NaN,
// infinities, dropped classes, shards that do not fill their columns, and more
// wanted than there are.
func TestSelect(t *testing.T) {
	m := newMachine(t)
	for _, c := range []struct {
		b, keep, steps int // steps: similarities are multiples of 1/steps, 0 is any
		pitch          int
		runs           [][]int // rows of the shards of each
		classes        bool
	}{
		{1, 1, 0, 1, [][]int{{1}}, false}, {2, 5, 0, 8, [][]int{{3}}, false}, {3, 16, 0, 512, [][]int{{500, 499}}, false},
		{2, 16, 4, 700, [][]int{{700}, {31}, {1}}, false}, {2, 300, 0, 300, [][]int{{257}, {299, 300}, {280, 280, 240}}, true},
		{2, 40, 1, 96, [][]int{{90}, {96, 95, 94}}, true}, {1, 700, 3, 256, [][]int{{256}, {256}}, false}, {4, 64, 0, 64, [][]int{{64, 64, 64, 0, 63}, {64}}, true},
	} {
		rng := seeded(c.b, c.keep, c.steps, len(c.runs))
		columns, lines := 0, c.b+c.b%2
		for _, run := range c.runs {
			columns += len(run) * c.pitch
		}
		labels, classes := make([]int32, columns), make([]int32, c.b)
		for i := range labels {
			labels[i] = int32(rng.IntN(5)) - 1
		}
		for i := range classes {
			classes[i] = int32(rng.IntN(5)) - 1
		}
		want := make([][]nearest.Key, c.b)
		var found [2][]uint64
		var counts [2][]int32
		for i := range found {
			found[i], counts[i] = make([]uint64, c.b*c.keep), make([]int32, c.b)
		}
		first := 0
		for run, shards := range c.runs {
			sims := random[float32](rng, len(shards)*lines*c.pitch, 0, 0.3)
			rows := make([]int32, len(shards))
			for s := range shards {
				rows[s] = int32(shards[s])
			}
			for i := range sims {
				if c.steps > 0 {
					sims[i] = float32(math.Round(float64(sims[i])*float64(c.steps))) / float32(c.steps)
				}
				if rng.IntN(20) == 0 {
					sims[i] = float32([]float64{math.NaN(), math.Inf(-1), math.Inf(1), math.Copysign(0, -1)}[rng.IntN(4)])
				}
			}
			for i := range sims {
				s, q, row := i/(lines*c.pitch), i/c.pitch%lines, i%c.pitch
				column := first + s*c.pitch + row
				if q < c.b && row < shards[s] && sims[i] > engine.NoSimilarity && !(c.classes && labels[column] >= 0 && labels[column] == classes[q]) {
					want[q] = append(want[q], nearest.NewKey(sims[i], column))
				}
			}
			args := []any{sims, len(shards), c.pitch, lines, first, rows, nil, nil, c.keep, nil, nil, found[run%2], counts[run%2]}
			if c.classes {
				args[6], args[7] = labels, classes
			}
			if run > 0 {
				args[9], args[10] = found[1-run%2], counts[1-run%2]
			}
			m.run(t, "contrast_select", Select(c.b), args...)
			first += len(shards) * c.pitch
		}
		last := (len(c.runs) - 1) % 2
		for q := range c.b {
			best := nearest.Select(want[q], c.keep)
			slices.SortFunc(best, func(a, b nearest.Key) int { return int(a.Index()) - int(b.Index()) })
			if int(counts[last][q]) != len(best) {
				t.Fatalf("%+v: query %d has %d, want %d", c, q, counts[last][q], len(best))
			}
			for i, key := range best {
				if found[last][q*c.keep+i] != uint64(key) {
					t.Fatalf("%+v: query %d number %d is %x, want %x", c, q, i, found[last][q*c.keep+i], uint64(key))
				}
			}
		}
	}
}

// problem is queries against a queue, all shards one after the other.
type problem[T activation] struct {
	b, d, k, v, n, s, s2 int
	tau                  float64
	q                    []float32
	keys                 []T
	starts               []int32 // [V+1] columns
	labels, classes      []int32 // nil without class oracle
	held                 []int   // numbers of the shards on the device
	inShard              bool    // pairs stay inside one
}

func newProblem[T activation](b, d, k, v, n, s, s2 int, tau float64, oracle bool) *problem[T] {
	p := &problem[T]{b: b, d: d, k: k, v: v, n: n, s: s, s2: s2, tau: tau}
	rng := seeded(b, d, k, v, n)
	row := func(to []float64) {
		var squares float64
		for x := range to {
			to[x] = rng.NormFloat64()
			squares += to[x] * to[x]
		}
		for x := range to {
			to[x] /= math.Sqrt(squares)
		}
	}
	one := make([]float64, d)
	for range b {
		row(one)
		for _, x := range one {
			p.q = append(p.q, float32(x))
		}
	}
	for column := range k {
		row(one)
		for x, value := range one {
			switch {
			case column%7 == 3: // the opposite of its neighbour: mixtures cancel
				value = -get(p.keys[(column-1)*d+x])
			case column%7 == 5: // the opposite of a query
				value = -float64(p.q[column%b*d+x])
			}
			p.keys = append(p.keys, put[T](value))
		}
	}
	for shard := range v + 1 {
		p.starts = append(p.starts, int32(shard*(k/v)+min(shard, k%v)))
	}
	if oracle {
		for range k {
			p.labels = append(p.labels, int32(rng.IntN(6))-1)
		}
		for range b {
			p.classes = append(p.classes, int32(rng.IntN(6))-1)
		}
	}
	return p
}

// shard is one of them, for package loss.
func (p *problem[T]) shard(v int) loss.Shard {
	rows := p.keys[int(p.starts[v])*p.d : int(p.starts[v+1])*p.d]
	s := loss.Shard{Index: v}
	switch rows := any(rows).(type) {
	case []float32:
		s.Keys = rows
	case []uint16:
		s.BF16 = rows
	}
	if p.labels != nil {
		s.Labels = p.labels[p.starts[v]:p.starts[v+1]]
	}
	return s
}

// The kernels' parts of the shards held, against those of package loss on
// the reference's kernels.
func TestContrast(t *testing.T) { both(t, testContrast[float32], testContrast[uint16]) }

func testContrast[T activation](t *testing.T) {
	m := newMachine(t)
	problems := []*problem[T]{
		newProblem[T](3, 16, 200, 4, 30, 40, 20, 0.2, false),
		newProblem[T](2, 8, 50, 1, 50, 30, 9, 0.07, false), // N is all
		newProblem[T](5, 33, 301, 7, 40, 100, 33, 0.2, true),
		newProblem[T](2, 128, 1100, 3, 300, 20, 0, 0.2, false),
		newProblem[T](1, 5, 37, 5, 10, 0, 17, 0.5, false),
		newProblem[T](2, 520, 40, 2, 8, 5, 5, 0.2, false),
	}
	for i, s := range fuzzed(6, [2]int{1, 6}, [2]int{3, 70}, [2]int{20, 500}, [2]int{1, 16}, [2]int{1, 20}, [2]int{1, 80}, [2]int{1, 40}) {
		problems = append(problems, newProblem[T](s[0], s[1], s[2], s[3], s[4], s[5]-1, s[6]-1, 0.2, i%3 == 2))
	}
	for _, p := range problems {
		all := make([]int, p.v)
		var some []int
		for v := range all {
			all[v] = v
			if v%3 != 1 {
				some = append(some, v)
			}
		}
		p.held = all
		p.check(t, m)
		p.inShard = true
		p.check(t, m)
		p.held = some
		p.check(t, m)
	}
}

func (p *problem[T]) check(t *testing.T, m *machine) {
	t.Helper()
	what := fmt.Sprintf("b=%d d=%d K=%d V=%d N=%d s=%d s′=%d held=%v in a shard=%v", p.b, p.d, p.k, p.v, p.n, p.s, p.s2, p.held, p.inShard)
	const seed, step = 11, 12
	samples := make([]int, p.b)
	drawers := make([]uint64, p.b)
	for i := range samples {
		samples[i] = 100 + 7*i
		drawers[i] = splitmix.Mix(splitmix.Mix(splitmix.Mix(seed^0x6d6f636869)^step) ^ uint64(samples[i]))
	}

	// What package loss says, with the other shards at another holder.
	queries := loss.Queries{Q: p.q, Samples: samples, Step: step, Mix: true, Labels: p.classes}
	var holders []loss.Hard
	var here *loss.Loss
	for _, mine := range []bool{true, false} {
		var shards []loss.Shard
		for v := range p.v {
			if slices.Contains(p.held, v) == mine {
				shards = append(shards, p.shard(v))
			}
		}
		if len(shards) == 0 {
			continue
		}
		l, err := loss.New(loss.Config{N: p.n, S: p.s, S2: p.s2, PairsInShard: p.inShard, Temperature: p.tau, Shards: p.v, Seed: seed, Threads: 1}, p.d, p.b, p.k, reference.Contrast{})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Scan(queries, shards); err != nil {
			t.Fatal(err)
		}
		if mine {
			here = l
		}
		hard := l.Hardest()
		hard.Values = slices.Clone(hard.Values) // Mix overwrites them
		holders = append(holders, hard)
	}
	first := loss.Threshold(p.n, p.v, p.b, holders)
	if err := here.Mix(first); err != nil {
		t.Fatal(err)
	}

	got, want := p.device(t, m, drawers, first, holders[0]), here.Partials()
	if !p.inShard { // whose part has which point is the implementation's choice
		got, want = p.together(got), p.together(want)
	}
	p.compare(t, what, got, want)
}

// together is the parts of all shards as one part of each query.
func (p *problem[T]) together(parts []float32) (sums []float32) {
	width := p.d + engine.PartScalars
	for q := range p.b {
		sum := make([]float64, width)
		scalars := sum[p.d:]
		scalars[engine.PartTop], scalars[engine.PartReal], scalars[engine.PartPoint] = engine.NoSimilarity, engine.NoSimilarity, engine.NoSimilarity
		for s := range p.held {
			part := parts[(s*p.b+q)*width:][p.d:width]
			for _, at := range []int{engine.PartTop, engine.PartReal, engine.PartPoint} {
				scalars[at] = max(scalars[at], float64(part[at]))
			}
			for _, at := range []int{engine.PartSim, engine.PartRows, engine.PartHard, engine.PartHardSim} {
				scalars[at] += float64(part[at])
			}
		}
		for s := range p.held {
			part := parts[(s*p.b+q)*width:][:width]
			scale := math.Exp((float64(part[p.d+engine.PartTop]) - scalars[engine.PartTop]) / p.tau)
			scalars[engine.PartSum] += scale * float64(part[p.d+engine.PartSum])
			scalars[engine.PartQuery] += scale * float64(part[p.d+engine.PartQuery])
			for x, v := range part[:p.d] {
				sum[x] += scale * float64(v)
			}
		}
		for _, v := range sum {
			sums = append(sums, float32(v))
		}
	}
	return sums
}

// device runs the kernels on the shards held, in two runs, and checks the hard
// negatives on the way.
func (p *problem[T]) device(t *testing.T, m *machine, drawers []uint64, first []int32, hard loss.Hard) []float32 {
	t.Helper()
	typ, held := typeOf[T](), len(p.held)
	pitch, lines, stride := p.k/p.v+3, p.b+1, p.b+2
	keys, rows, numbers, place := make([]T, held*pitch*p.d), make([]int32, held), make([]int32, held), make([]int32, p.v)
	var labels []int32
	if p.labels != nil {
		labels = make([]int32, held*pitch)
	}
	for v := range place {
		place[v] = -1
	}
	for h, v := range p.held {
		copy(keys[h*pitch*p.d:], p.keys[int(p.starts[v])*p.d:int(p.starts[v+1])*p.d])
		if p.labels != nil {
			copy(labels[h*pitch:], p.labels[p.starts[v]:p.starts[v+1]])
		}
		rows[h] = p.starts[v+1] - p.starts[v]
		numbers[h], place[v] = int32(v), int32(h)
	}
	width := p.d + engine.PartScalars
	part := unwritten[float32](held * stride * width)
	perTwo := float32(1 / p.tau / math.Ln2)
	var found, kept []uint64
	var counts, keptCounts []int32
	for _, run := range [][2]int{{0, held / 2}, {held / 2, held}} {
		shards, first := run[1]-run[0], run[0]*pitch
		if shards == 0 {
			continue
		}
		sims := unwritten[float32](shards * lines * pitch)
		for i := range sims {
			if s, q := i/(lines*pitch), i/pitch%lines; q < p.b {
				sims[i] = float32(dot(p.q[q*p.d:][:p.d], keys[(first+s*pitch+i%pitch)*p.d:][:p.d]))
			}
		}
		kept, keptCounts = found, counts
		found, counts = make([]uint64, p.b*p.n), make([]int32, p.b)
		m.run(t, "contrast_select", Select(p.b), sims, shards, pitch, lines, first, rows[run[0]:], labels, p.classes, p.n, kept, keptCounts, found, counts)
		m.run(t, "contrast_scan", Scan(shards, p.b), sims, pitch, lines, first, rows[run[0]:], labels, p.classes, perTwo, p.d, stride, part[run[0]*stride*width:])
		for s := range shards { // in cuBLAS's place
			for q := range p.b {
				to := part[((run[0]+s)*stride+q)*width:][:p.d]
				for x := range to {
					var sum float64
					for c := range pitch {
						sum += float64(sims[(s*lines+q)*pitch+c]) * get(keys[(first+s*pitch+c)*p.d+x])
					}
					to[x] = float32(sum)
				}
			}
		}
	}

	values, columns, shardCounts := unwritten[float32](p.b*p.n), make([]int32, p.b*p.n), make([]int32, p.b*held)
	m.run(t, "contrast_list", PerQuery(p.b, max(p.n, held)), found, counts, p.n, pitch, held, values, columns, shardCounts)
	if !slices.Equal(shardCounts, hard.Counts) {
		t.Fatalf("hard negatives by shard: %v, want %v", shardCounts, hard.Counts)
	}
	local, pairable := make([]int32, p.b*(p.v+1)), make([]int32, p.b*(p.v+1))
	for q := range p.b {
		row := first[q*(p.v+1):][:p.v+1]
		for v := range p.v {
			pairable[q*(p.v+1)+v+1] = pairable[q*(p.v+1)+v]
			if n := row[v+1] - row[v]; n > 1 {
				pairable[q*(p.v+1)+v+1] += n
			}
		}
	}
	together := 0
	if !p.inShard {
		pairable, together = nil, 1
	}
	at := 0
	for q := range p.b {
		n := int(counts[q])
		near(t, "hard negatives", values[q*p.n:q*p.n+n], func(i int) float64 { return float64(hard.Values[at+i]) }, 3e-7, scale0(1))
		at += n
		begin := int32(0)
		for h, v := range p.held {
			local[q*(p.v+1)+v] = begin
			begin += shardCounts[q*held+h]
		}
	}

	m.run(t, "contrast_thin", Points(p.b, held), p.n, p.v, first, local, held, numbers, shardCounts, values, columns)

	points := p.s + p.s2
	shard, i, j, weight := make([]int32, p.b*points), make([]int32, p.b*points), make([]int32, p.b*points), unwritten[float32](p.b*points)
	m.run(t, "contrast_draw", PerQuery(p.b, points), p.s, p.s2, drawers, p.v, first, local, pairable, place, shard, i, j, weight)
	sim, wi, wj := unwritten[float32](p.b*points), unwritten[float32](p.b*points), unwritten[float32](p.b*points)
	m.run(t, Name("contrast_points", typ), Points(p.b, points), points, p.q, keys, p.d, p.n, values, columns, shard, i, j, weight, sim, wi, wj)
	lowered, weights := unwritten[float32](held*stride), make([]uint64, p.b*p.n)
	m.run(t, "contrast_mix", Mix(p.b, held), points, together, shard, i, j, sim, wi, wj, perTwo, p.n, values, p.v, first, local, held, numbers, p.d, stride, part, lowered, weights)
	m.run(t, Name("contrast_gather", typ), Gather(typ, held, p.b, p.d), keys, p.d, p.n, columns, weights, lowered, p.v, first, local, numbers, stride, part)
	var dense []float32
	for h := range held {
		dense = append(dense, part[h*stride*width:][:p.b*width]...)
	}
	return dense
}

func (p *problem[T]) compare(t *testing.T, what string, got, want []float32) {
	t.Helper()
	width := p.d + engine.PartScalars
	const rounding = 3e-5 // of exponentials: similarities differ by 1e-7, and so exponents by 1e-7/τ
	for at := range len(want) / width {
		g, w := got[at*width:][:width], want[at*width:][:width]
		gs, ws := g[p.d:], w[p.d:]
		rows := float64(ws[engine.PartRows])
		for s, tolerance := range map[int]float64{
			engine.PartTop: 3e-7, engine.PartReal: 3e-7, engine.PartPoint: 1e-6,
			engine.PartSum: 3e-5 * float64(ws[engine.PartSum]), engine.PartQuery: 3e-5 * (float64(ws[engine.PartQuery]) + 1),
			engine.PartSim: 1e-6 * rows, engine.PartRows: 0, engine.PartHard: 0, engine.PartHardSim: 1e-6 * rows,
		} {
			if ws[s] == engine.NoSimilarity && gs[s] == ws[s] {
				continue
			}
			if d := math.Abs(float64(gs[s]) - float64(ws[s])); !(d <= tolerance) {
				t.Fatalf("%s: part %d scalar %d is %v, want %v", what, at, s, gs[s], ws[s])
			}
		}
		for x := range p.d {
			if d := math.Abs(float64(g[x]) - float64(w[x])); !(d <= rounding*(1+float64(ws[engine.PartSum]))) {
				t.Fatalf("%s: part %d vector[%d] is %v, want %v (Σe %v)", what, at, x, g[x], w[x], ws[engine.PartSum])
			}
		}
	}
}

func dot[T activation](q []float32, n []T) (sum float64) {
	for x, v := range q {
		sum += float64(v) * get(n[x])
	}
	return sum
}

func TestPut(t *testing.T) { both(t, testPut[float32], testPut[uint16]) }

func testPut[T activation](t *testing.T) {
	m := newMachine(t)
	for _, c := range [][3]int{{1, 3, 9}, {12, 40, 30}, {37, 8, 37}, {5, 130, 5}} {
		n, d, columns := c[0], c[1], c[2]
		rng := seeded(c[:]...)
		from, to, classes := random[T](rng, n*d, 0, 1), make([]int32, n), make([]int32, n)
		keys, labels := unwritten[T](columns*d), make([]int32, columns)
		wantKeys, wantLabels := unwritten[T](columns*d), make([]int32, columns)
		for i, column := range rng.Perm(columns)[:n] {
			to[i], classes[i] = int32(column), int32(rng.IntN(9))-1
			copy(wantKeys[column*d:], from[i*d:(i+1)*d])
			wantLabels[column] = classes[i]
		}
		unlabelled := slices.Clone(keys)
		name := Name("contrast_put", typeOf[T]())
		m.run(t, name, PerRow(n), n, d, from, to, classes, keys, labels)
		m.run(t, name, PerRow(n), n, d, from, to, nil, unlabelled, nil)
		for _, got := range [][]T{keys, unlabelled} {
			same(t, "queue", got, func(i int) float64 { return get(wantKeys[i]) })
		}
		if !slices.Equal(labels, wantLabels) {
			t.Errorf("%v: labels %v, want %v", c, labels, wantLabels)
		}
	}
}
