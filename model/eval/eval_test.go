package eval

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"testing"
)

type products struct{}

func (products) NT(m, n, k int, a, b, c []float32) {
	for i := range m {
		for j := range n {
			var s float64
			for x := range k {
				s += float64(a[i*k+x]) * float64(b[j*k+x])
			}
			c[i*n+j] = float32(s)
		}
	}
}

func (products) NN(m, n, k int, a, b, c []float32) { panic("not used by package eval") }

func randomUnit(r *rand.Rand, n, d int) []float32 {
	out := make([]float32, n*d)
	for i := range out {
		out[i] = float32(r.NormFloat64())
	}
	for i := range n {
		unit(out[i*d : (i+1)*d])
	}
	return out
}

// unit scales a row to length 1.
func unit(row []float32) {
	var sum float64
	for _, x := range row {
		sum += float64(x) * float64(x)
	}
	for i := range row {
		row[i] = float32(float64(row[i]) / math.Sqrt(sum))
	}
}

// dumbKNN sorts all training samples and all classes.
func dumbKNN(d int, train, test Labelled, v Vote) (float64, float64) {
	var first, five, counted int
	for i, label := range test.Labels {
		if label < 0 {
			continue
		}
		counted++
		similarity := make([]float32, len(train.Labels))
		products{}.NT(1, len(train.Labels), d, test.Features[i*d:(i+1)*d], train.Features, similarity)
		order := make([]int, len(train.Labels))
		for j := range order {
			order[j] = j
		}
		sort.SliceStable(order, func(a, b int) bool { return similarity[order[a]] > similarity[order[b]] })
		votes := make([]float64, v.Classes)
		for _, j := range order[:min(v.K, len(order))] {
			if train.Labels[j] >= 0 {
				votes[train.Labels[j]] += math.Exp(float64(similarity[j]) / v.Temperature)
			}
		}
		rank := make([]int, v.Classes)
		for c := range rank {
			rank[c] = c
		}
		sort.SliceStable(rank, func(a, b int) bool { return votes[rank[a]] > votes[rank[b]] })
		for place, c := range rank[:min(5, v.Classes)] {
			if c == int(label) && votes[c] > 0 {
				five++
				if place == 0 {
					first++
				}
			}
		}
	}
	return float64(first) / float64(counted), float64(five) / float64(counted)
}

func TestKNNAgainstSorting(t *testing.T) {
	for _, c := range []struct{ n, m, d, classes, k int }{
		{300, 150, 8, 10, 20}, {50, 7, 3, 3, 200}, {1, 5, 2, 2, 1}, {500, 65, 4, 20, 1},
	} {
		r := rand.New(rand.NewPCG(uint64(c.n), 1))
		train, test := randomUnit(r, c.n, c.d), randomUnit(r, c.m, c.d)
		label := func(n int) []int32 {
			labels := make([]int32, n)
			for i := range labels {
				labels[i] = int32(r.IntN(c.classes+1)) - 1
			}
			labels[0] = 0
			return labels
		}
		trainLabels, testLabels := label(c.n), label(c.m)
		of, against, v := Labelled{train, trainLabels}, Labelled{test, testLabels}, Vote{c.classes, c.k, 0.1}
		got := KNN(products{}, c.d, of, against, Vote{c.classes, 1, 0.5}, v, Vote{c.classes, 2 * c.k, 0.01})
		for i, v := range []Vote{{c.classes, 1, 0.5}, v, {c.classes, 2 * c.k, 0.01}} {
			if want1, want5 := dumbKNN(c.d, of, against, v); got[i].Top1 != want1 || got[i].Top5 != want5 {
				t.Errorf("%+v, %+v: %+v; sorting gives %g, %g", c, v, got[i], want1, want5)
			}
		}
	}
}

func TestKNNEdges(t *testing.T) {
	train := []float32{1, 0, 0, 1}
	if a := KNN(products{}, 2, Labelled{train, []int32{1, 0}}, Labelled{train, []int32{1, 0}}, Vote{2, 1, 1e-3})[0]; a.Top1 != 1 || a.Top5 != 1 {
		t.Errorf("every sample is its own neighbour, but top1 %g, top5 %g", a.Top1, a.Top5)
	}
	if a := KNN(products{}, 2, Labelled{train, []int32{1, 1}}, Labelled{train, []int32{0, -1}}, Vote{2, 2, 0.1})[0]; a.Top1 != 0 || a.Top5 != 0 {
		t.Errorf("a class nobody votes for: top1 %g, top5 %g", a.Top1, a.Top5)
	}
	if a := KNN(products{}, 2, Labelled{train, []int32{1, 1}}, Labelled{train, []int32{-1, -1}}, Vote{2, 2, 0.1})[0]; a.Top1 != 0 {
		t.Errorf("nothing to count: top1 %g", a.Top1)
	}
	if a := KNN(products{}, 2, Labelled{nil, nil}, Labelled{train, []int32{0, 0}}, Vote{2, 2, 0.1})[0]; a.Top1 != 0 {
		t.Errorf("no training samples: top1 %g", a.Top1)
	}
	defer func() {
		if recover() == nil {
			t.Error("lengths that do not match did not panic")
		}
	}()
	KNN(products{}, 2, Labelled{train, []int32{0}}, Labelled{train, []int32{0, 0}}, Vote{2, 2, 0.1})
}

func TestGeometryAgainstFormulas(t *testing.T) {
	const d = 5
	r := rand.New(rand.NewPCG(4, 4))
	for _, n := range []int{2, 63, 64, 130} {
		x, y := randomUnit(r, n, d), randomUnit(r, n, d)
		distance := func(a, b []float32) (s float64) {
			for i := range a {
				s += (float64(a[i]) - float64(b[i])) * (float64(a[i]) - float64(b[i]))
			}
			return s
		}
		var align, mean float64
		for i := range n {
			align += distance(x[i*d:(i+1)*d], y[i*d:(i+1)*d]) / float64(n)
			for j := i + 1; j < n; j++ {
				mean += math.Exp(-2*distance(x[i*d:(i+1)*d], x[j*d:(j+1)*d])) / (float64(n) * float64(n-1) / 2)
			}
		}
		if got := Alignment(x, y, d); math.Abs(got-align) > 1e-12 {
			t.Errorf("n=%d: alignment %g, want %g", n, got, align)
		}
		if got := Uniformity(products{}, x, d); math.Abs(got-math.Log(mean)) > 1e-6 {
			t.Errorf("n=%d: uniformity %g, want %g", n, got, math.Log(mean))
		}
	}
	same := []float32{0.6, 0.8, 0.6, 0.8, 0.6, 0.8}
	if a, u := Alignment(same, same, 2), Uniformity(products{}, same, 2); a != 0 || math.Abs(u) > 1e-6 {
		t.Errorf("one point thrice: alignment %g, uniformity %g, want 0 and 0", a, u)
	}
	for name, f := range map[string]func(){
		"alignment":  func() { Alignment(same, same[2:], 2) },
		"uniformity": func() { Uniformity(products{}, same[:2], 2) },
		"spread":     func() { Spread(same[:1], 2) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s of wrong lengths did not panic", name)
				}
			}()
			f()
		}()
	}
}

// Spread is 0 in a dimension where all agree; √(1 − mean cosine) is the root
// of the mean of its squares.
func TestSpreadAgainstItsFormula(t *testing.T) {
	const n, d = 200, 6
	r := rand.New(rand.NewPCG(5, 5))
	x := randomUnit(r, n, d)
	for i := range n {
		x[i*d+2] = 0.5
		unit(x[i*d : (i+1)*d])
	}
	var squares float64
	for c, got := range Spread(x, d) {
		var mean, variance float64
		for i := range n {
			mean += float64(x[i*d+c]) / n
		}
		for i := range n {
			variance += (float64(x[i*d+c]) - mean) * (float64(x[i*d+c]) - mean) / n
		}
		if want := math.Sqrt(variance * d); math.Abs(got-want) > 1e-6 {
			t.Errorf("dimension %d: %g, want %g", c, got, want)
		}
		squares += got * got / d
	}
	var cosine float64
	for i := range n {
		for j := range n {
			for c := range d {
				cosine += float64(x[i*d+c]) * float64(x[j*d+c]) / (n * n)
			}
		}
	}
	if math.Abs(squares-(1-cosine)) > 1e-6 {
		t.Errorf("mean square %g, want 1 − the mean cosine = %g", squares, 1-cosine)
	}
	for c, s := range Spread([]float32{0.6, 0.8, 0.6, 0.8}, 2) {
		if s != 0 {
			t.Errorf("one point twice: spread %g in dimension %d", s, c)
		}
	}
}

func ExampleKNN() {
	train := []float32{1, 0, 0.6, 0.8, 0, 1}
	test := []float32{0.8, 0.6, 0, 1}
	accuracy := KNN(products{}, 2, Labelled{train, []int32{0, 1, 1}}, Labelled{test, []int32{1, 1}}, Vote{2, DefaultK, DefaultTemperature})
	fmt.Println(accuracy[0].Top1)
	// Output: 1
}
