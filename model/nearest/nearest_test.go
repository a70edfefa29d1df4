package nearest_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"testing"

	"mochi/model/nearest"
)

// dumb sorts everything.
func dumb(row []float32, n int) []int32 {
	var order []int32
	for i, c := range row {
		if c > float32(math.Inf(-1)) {
			order = append(order, int32(i))
		}
	}
	sort.SliceStable(order, func(a, b int) bool { return row[order[a]] > row[order[b]] })
	return order[:min(n, len(order))]
}

func check(t *testing.T, row []float32, n, chunk int, s *nearest.Selection) {
	t.Helper()
	s.Reset()
	for i := 0; i < len(row); i += chunk {
		s.Scan(row[i:min(i+chunk, len(row))], i)
	}
	var got []int32
	for _, k := range s.Sorted() {
		got = append(got, k.Index())
		if k.Similarity() != row[k.Index()] {
			t.Fatalf("candidate %d has similarity %g, want %g", k.Index(), k.Similarity(), row[k.Index()])
		}
	}
	if want := dumb(row, n); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("N=%d of %v: %v, want %v", n, row, got, want)
	}
}

func TestAgainstSorting(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		n, k, levels := 1+r.IntN(20), 1+r.IntN(200), 1+r.IntN(100) // few levels: many ties
		row := make([]float32, k)
		for i := range row {
			row[i] = float32(r.IntN(levels)) - float32(levels)/2
		}
		switch r.IntN(4) {
		case 0:
			sort.Slice(row, func(a, b int) bool { return row[a] < row[b] })
		case 1:
			row[r.IntN(k)] = float32(math.Inf(-1))
		}
		check(t, row, n, 1+r.IntN(k), nearest.New(n))
	}
}

// Ties go to the lower index, and a signed zero is a tie.
func TestSignedZero(t *testing.T) {
	minusZero := float32(math.Copysign(0, -1))
	s := nearest.New(3)
	check(t, []float32{-1, 0, minusZero, 0, minusZero}, 3, 5, s)
	check(t, []float32{-1, minusZero, 0, minusZero, 0}, 3, 5, s)
}

func TestNaNIsNoCandidate(t *testing.T) {
	s := nearest.New(2)
	s.Scan([]float32{float32(math.NaN()), 1}, 0)
	if got := s.Sorted(); len(got) != 1 || got[0].Index() != 1 {
		t.Errorf("candidates %v, want index 1 only", got)
	}
}

func Example() {
	s := nearest.New(2)
	s.Scan([]float32{0.1, 0.9, 0.3, 0.9}, 0)
	for _, k := range s.Sorted() {
		fmt.Println(k.Index(), k.Similarity())
	}
	// Output:
	// 1 0.9
	// 3 0.9
}
