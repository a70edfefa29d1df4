package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// bnShapes are groups, rows of one and channels: odd ones, those of ResNets,
// and more rows than one chunk has, or eight.
var bnShapes = [][3]int{{1, 2, 1}, {2, 5, 3}, {1, 7, 16}, {3, 131, 17}, {2, 33, 33}, {1, 300, 64}, {2, 49, 100}, {1, 2600, 8}, {2, 19, 520},
	{1, 20001, 1}, {2, 700, 130}} // more chunks than bn_fold has threads for a channel

// bnCases are those and fuzzed ones.
func bnCases() [][3]int {
	cases := slices.Clone(bnShapes)
	for _, s := range fuzzed(6, [2]int{1, 4}, [2]int{2, 400}, [2]int{1, 140}) {
		cases = append(cases, [3]int(s))
	}
	return cases
}

// norm is a BatchNorm layer of some groups, [groups][channels] but for gamma,
// beta and their gradients.
type norm struct {
	gamma, beta                            []float32
	mean, invstd, scale, shift             []float32
	a, b, k, dgamma, dbeta, statM, statVar []float32
}

func newNorm(groups, channels, seed int) *norm {
	n := groups * channels
	rng := seeded(groups, channels, seed)
	bn := &norm{gamma: random[float32](rng, channels, 1, 0.5), beta: random[float32](rng, channels, 0, 1)}
	for _, v := range []*[]float32{&bn.mean, &bn.invstd, &bn.scale, &bn.shift, &bn.a, &bn.b, &bn.k} {
		*v = unwritten[float32](n)
	}
	return bn
}

// forward runs bn_stats and bn_fold, statistics and all.
func (bn *norm) forward(t *testing.T, m *machine, typ Type, x any, groups, rows, channels int) {
	t.Helper()
	tile := Sums(typ, groups, rows, channels, 2)
	part := unwritten[float32](groups * tile.Chunks * 2 * channels)
	m.run(t, Name("bn_stats", typ), tile.Launch, x, int64(rows), channels, tile.Chunk, part)
	stride := channels + 3 // statistics lie among those of other layers
	bn.statM, bn.statVar = unwritten[float32]((groups-1)*stride+channels), unwritten[float32]((groups-1)*stride+channels)
	m.run(t, "bn_fold", Fold(groups, channels), part, int64(rows), channels, tile.Chunk, bn.gamma, bn.beta, float32(1e-5),
		bn.mean, bn.invstd, bn.scale, bn.shift, bn.statM, bn.statVar, stride)
}

// moments are the mean and the biased variance of every group and channel.
func moments[T activation](x []T, groups, rows, channels int) (mean, variance []float64) {
	mean, variance = make([]float64, groups*channels), make([]float64, groups*channels)
	of := func(i int) int { return i/(rows*channels)*channels + i%channels }
	for i, v := range x {
		mean[of(i)] += get(v) / float64(rows)
	}
	for i, v := range x {
		d := get(v) - mean[of(i)]
		variance[of(i)] += d * d / float64(rows)
	}
	return mean, variance
}

func TestStatistics(t *testing.T) { both(t, testStatistics[float32], testStatistics[uint16]) }

func testStatistics[T activation](t *testing.T) {
	m, typ := newMachine(t), typeOf[T]()
	for _, s := range bnCases() {
		groups, rows, channels := s[0], s[1], s[2]
		for _, far := range []float64{0, 1000} {
			deviation := 1.0
			if far > 0 && typ == BF16 {
				deviation = 40 // 1000 ± 1 is no bf16 distribution; take steps of its spacing
			}
			x := random[T](seeded(s[:]...), groups*rows*channels, far, deviation)
			x[0] = put[T](far + 30*deviation) // the first row is far off the others
			bn := newNorm(groups, channels, 1)
			bn.forward(t, m, typ, x, groups, rows, channels)
			mean, variance := moments(x, groups, rows, channels)
			what := fmt.Sprint(s, far)
			largest := make([]float64, len(mean))
			for i, v := range x {
				at := i/(rows*channels)*channels + i%channels
				largest[at] = max(largest[at], math.Abs(get(v)))
			}
			// Up to 256 threads' means are combined in fp32: some roundings at the size of the values.
			near(t, what+" mean", bn.mean, func(i int) float64 { return mean[i] }, 4e-7, func(i int) float64 { return largest[i] })
			invstd := func(i int) float64 { return 1 / math.Sqrt(variance[i]+1e-5) }
			// The mean of a chunk is rounded to fp32, which counts against a spread of 1.
			digits := 5e-6 + far/deviation*1e-7
			near(t, what+" invstd", bn.invstd, invstd, digits, invstd)
			for i := range bn.scale {
				c := i % channels
				scale := float64(bn.gamma[c]) * float64(bn.invstd[i])
				if math.Abs(float64(bn.scale[i])-scale) > 2e-7*math.Abs(scale) {
					t.Fatalf("%s: scale %v, want %v", what, bn.scale[i], scale)
				}
				shift := float64(bn.beta[c]) - mean[i]*scale
				if math.Abs(float64(bn.shift[i])-shift) > 6e-7*(largest[i]*math.Abs(scale)+3) {
					t.Fatalf("%s: shift %v, want %v", what, bn.shift[i], shift)
				}
				at := i/channels*(channels+3) + c
				if bn.statM[at] != bn.mean[i] {
					t.Fatalf("%s: statistics: mean %v, want %v", what, bn.statM[at], bn.mean[i])
				}
				v := variance[i] * float64(rows) / float64(rows-1)
				if math.Abs(float64(bn.statVar[at])-v) > 2*digits*(v+1e-9) {
					t.Fatalf("%s: statistics: variance %v, want %v", what, bn.statVar[at], v)
				}
			}
			for i, v := range bn.statM {
				if i%(channels+3) >= channels && v == v {
					t.Fatalf("%s: wrote statistics of another layer", what)
				}
			}
		}
	}
}

func TestFoldEval(t *testing.T) {
	m := newMachine(t)
	for _, channels := range []int{1, 7, 64, 1500} {
		rng := seeded(channels)
		bn := newNorm(1, channels, 2)
		mean, variance := random[float32](rng, channels, 0, 1), random[float32](rng, channels, 3, 0.3)
		m.run(t, "bn_fold_eval", Flat(channels), channels, mean, variance, bn.gamma, bn.beta, float32(1e-5), bn.scale, bn.shift)
		scale := func(c int) float64 { return float64(bn.gamma[c]) / math.Sqrt(float64(variance[c])+1e-5) }
		near(t, "scale", bn.scale, scale, 2e-7, scale0(1))
		near(t, "shift", bn.shift, func(c int) float64 { return float64(bn.beta[c]) - float64(mean[c])*scale(c) }, 4e-7, scale0(3))
	}
}

func scale0(v float64) func(int) float64 { return func(int) float64 { return v } }

func TestApply(t *testing.T) { both(t, testApply[float32], testApply[uint16]) }

func testApply[T activation](t *testing.T) {
	m, typ := newMachine(t), typeOf[T]()
	for _, s := range bnCases() {
		groups, rows, channels := s[0], s[1], s[2]
		n := groups * rows * channels
		rng := seeded(s[:]...)
		x, r := random[T](rng, n, 0, 1), random[T](rng, n, 0, 1)
		coefficient := func() []float32 { return random[float32](rng, groups*channels, 0.5, 1) }
		scale, shift, rscale, rshift := coefficient(), coefficient(), coefficient(), coefficient()
		tile := Rows(typ, groups, rows, channels)
		for residual := range 3 {
			for relu := range 2 {
				y := unwritten[T](n)
				args := []any{x, scale, shift, nil, nil, nil, relu, int64(rows), channels, tile.Chunk, y}
				if residual > 0 {
					args[3] = r
				}
				if residual > 1 {
					args[4], args[5] = rscale, rshift
				}
				if residual == 1 { // in place
					copy(y, r)
					args[3] = y
				}
				m.run(t, Name("bn_apply", typ), tile.Launch, args...)
				near(t, fmt.Sprint(s, residual, relu), y, func(i int) float64 {
					at := i/(rows*channels)*channels + i%channels
					v := get(x[i])*float64(scale[at]) + float64(shift[at])
					switch residual {
					case 1:
						v += get(r[i])
					case 2:
						v += get(r[i])*float64(rscale[at]) + float64(rshift[at])
					}
					if relu == 1 {
						v = max(v, 0)
					}
					return v
				}, 2*epsilon[T](), scale0(16))
			}
		}
	}
}

// join is what flows backward into one or two BatchNorms.
type join[T activation] struct {
	groups, rows, channels int
	dy, add, y             []T
	x                      [2][]T
	bn                     [2]*norm
	mask, branches         int
}

func newJoin[T activation](t *testing.T, m *machine, s [3]int, mask, branches int) *join[T] {
	n := s[0] * s[1] * s[2]
	rng := seeded(s[0], s[1], s[2], mask)
	j := &join[T]{groups: s[0], rows: s[1], channels: s[2], mask: mask, branches: branches,
		dy: random[T](rng, n, 0.1, 1), add: random[T](rng, n, 0, 1), y: random[T](rng, n, 0, 1)}
	for i, v := range j.y { // as a ReLU leaves it: often exactly 0
		j.y[i] = put[T](max(0, get(v)))
	}
	for b := range j.x {
		j.x[b] = random[T](rng, n, 0.5, 1)
		j.bn[b] = newNorm(s[0], s[2], b)
		j.bn[b].forward(t, m, typeOf[T](), j.x[b], j.groups, j.rows, j.channels)
	}
	return j
}

func (j *join[T]) at(i int) int { return i/(j.rows*j.channels)*j.channels + i%j.channels }

// through says whether the ReLU let value i pass, and whether that is beyond
// rounding.
func (j *join[T]) through(i int) (pass, sure bool) {
	switch j.mask {
	case MaskSelf:
		at := j.at(i)
		v := get(j.x[0][i])*float64(j.bn[0].scale[at]) + float64(j.bn[0].shift[at])
		return v > 0, math.Abs(v) > 1e-6
	case MaskOutput:
		return get(j.y[i]) > 0, true
	}
	return true, true
}

// want are Σg, Σg·x̂ and dx of branch b for the masked gradient g.
func (j *join[T]) want(b int, g []float64) (dbeta, dgamma, dx []float64) {
	bn := j.bn[b]
	n := j.groups * j.channels
	dbeta, dgamma, dx = make([]float64, n), make([]float64, n), make([]float64, len(g))
	hat := func(i int) float64 { return (get(j.x[b][i]) - float64(bn.mean[j.at(i)])) * float64(bn.invstd[j.at(i)]) }
	for i, v := range g {
		dbeta[j.at(i)] += v
		dgamma[j.at(i)] += v * hat(i)
	}
	for i, v := range g {
		at := j.at(i)
		m := float64(j.rows)
		dx[i] = float64(bn.gamma[at%j.channels]) * float64(bn.invstd[at]) * (v - dbeta[at]/m - hat(i)*dgamma[at]/m)
	}
	return dbeta, dgamma, dx
}

func TestBatchNormGradient(t *testing.T) { both(t, testGradient[float32], testGradient[uint16]) }

func testGradient[T activation](t *testing.T) {
	m, typ := newMachine(t), typeOf[T]()
	for _, s := range bnCases() {
		for _, c := range []struct {
			mask, branches int
			add, write     bool
		}{{MaskNone, 1, false, false}, {MaskSelf, 1, true, false}, {MaskSelf, 1, false, false}, {MaskOutput, 1, true, true}, {MaskOutput, 2, true, true}, {MaskNone, 2, false, false}, {MaskOutput, 0, true, true}} {
			j := newJoin[T](t, m, s, c.mask, c.branches)
			what := fmt.Sprint(s, c)
			tile := Sums(typ, j.groups, j.rows, j.channels, 1+c.branches)
			part := unwritten[float32](j.groups * tile.Chunks * (1 + c.branches) * j.channels)
			g := make([]float64, len(j.dy))
			for i, v := range j.dy {
				g[i] = get(v)
				if c.add {
					g[i] = get(put[T](float64(float32(get(v)) + float32(get(j.add[i])))))
				}
				if pass, _ := j.through(i); !pass {
					g[i] = 0
				}
			}
			args := []any{j.dy, nil, c.mask, nil, nil, c.branches, nil, nil, nil, nil, nil, nil, int64(j.rows), j.channels, tile.Chunk, part}
			read := j.dy // what bn_grad_apply reads
			if c.add {
				args[1] = j.add
			}
			if c.mask == MaskOutput {
				args[3] = j.y
			}
			if c.write {
				read = append([]T{}, j.dy...) // in place
				args[0], args[4] = read, read
			}
			if c.branches > 0 {
				args[6], args[9] = j.x[0], j.bn[0].mean
			}
			if c.mask == MaskSelf {
				args[7], args[8] = j.bn[0].scale, j.bn[0].shift
			}
			if c.branches > 1 {
				args[10], args[11] = j.x[1], j.bn[1].mean
			}
			m.run(t, Name("bn_grad_sums", typ), tile.Launch, args...)
			if c.write {
				same(t, what+" g", read, func(i int) float64 { return g[i] })
			}
			if c.branches == 0 || c.mask == MaskSelf && c.add {
				continue // nothing more to look at: bn_grad_apply takes g where something was added
			}
			j.checkApply(t, m, what, tile, part, read, g, c.write)
		}
	}
}

// checkApply folds and applies, and compares with the plain formula.
func (j *join[T]) checkApply(t *testing.T, m *machine, what string, tile Tile, part []float32, read []T, g []float64, wrote bool) {
	typ, stride := typeOf[T](), j.channels+5
	dx := [2][]T{unwritten[T](len(read)), unwritten[T](len(read))}
	mask := j.mask
	if wrote {
		mask = MaskNone
	}
	rows := Rows(typ, j.groups, j.rows, j.channels)
	args := []any{read, mask, nil, j.branches, j.x[0], j.bn[0].scale, j.bn[0].shift, j.bn[0].a, j.bn[0].b, j.bn[0].k, dx[0],
		nil, nil, nil, nil, nil, int64(j.rows), j.channels, rows.Chunk}
	if mask == MaskOutput {
		args[2] = j.y
	}
	if j.branches > 1 {
		copy(args[11:], []any{j.x[1], j.bn[1].a, j.bn[1].b, j.bn[1].k, dx[1]})
	}
	for b := range j.branches {
		bn := j.bn[b]
		size := (j.groups-1)*stride + j.channels
		bn.dgamma, bn.dbeta = unwritten[float32](size), unwritten[float32](size)
		m.run(t, "bn_grad_fold", Fold(j.groups, j.channels), part, int64(j.rows), j.channels, tile.Chunk, j.branches, b,
			bn.gamma, bn.mean, bn.invstd, bn.dgamma, bn.dbeta, int64(stride), bn.a, bn.b, bn.k)
	}
	m.run(t, Name("bn_grad_apply", typ), rows.Launch, args...)
	for b := range j.branches {
		dbeta, dgamma, want := j.want(b, g)
		for i := range dbeta {
			at := i/j.channels*stride + i%j.channels
			tolerance := 2e-5 * (1 + math.Sqrt(float64(j.rows)))
			if math.Abs(float64(j.bn[b].dbeta[at])-dbeta[i]) > tolerance || math.Abs(float64(j.bn[b].dgamma[at])-dgamma[i]) > tolerance {
				t.Fatalf("%s: branch %d channel %d: dβ %v, dγ %v, want %v, %v", what, b, i, j.bn[b].dbeta[at], j.bn[b].dgamma[at], dbeta[i], dgamma[i])
			}
		}
		for i := range want {
			if _, sure := j.through(i); !sure {
				continue
			}
			unit := 4 * math.Abs(float64(j.bn[b].a[j.at(i)]))
			if d := math.Abs(get(dx[b][i]) - want[i]); !(d <= (epsilon[T]()+2e-6)*(unit+math.Abs(want[i]))) {
				t.Fatalf("%s: branch %d dx[%d] = %v, want %v", what, b, i, get(dx[b][i]), want[i])
			}
		}
	}
}
