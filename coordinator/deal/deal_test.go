package deal

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func ExampleDeal() {
	fmt.Println(Deal(8, 1, []float64{0, 0, 0})) // nothing measured yet
	fmt.Println(Deal(8, 1, []float64{30, 10}))  // the second is three times as fast
	fmt.Println(Deal(4, 2, []float64{30, 10}))  // two groups at once
	// Output:
	// [[0 1 2] [3 4 5] [6 7]]
	// [[0 1] [2 3 4 5 6 7]]
	// [[0 1] [2 3 4 5 6 7]]
}

// Every group exactly once, ascending, nobody idle, no unit split; and no other
// counts of units would end the step earlier (all of them are tried).
func TestDealIsOptimal(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		units, size := 1+rng.IntN(9), 1+rng.IntN(4)
		groups := units * size
		ms := make([]float64, 1+rng.IntN(min(units, 4)))
		for i := range ms {
			ms[i] = float64(1 + rng.IntN(40))
		}
		deal := Deal(units, size, ms)
		var all []int
		for i, g := range deal {
			if len(g) == 0 {
				t.Fatalf("Deal(%d, %d, %v): member %d has nothing to do", units, size, ms, i)
			}
			if len(g)%size != 0 || g[0]%size != 0 {
				t.Fatalf("Deal(%d, %d, %v) = %v splits a unit", units, size, ms, deal)
			}
			all = append(all, g...)
		}
		if len(all) != groups || !slices.IsSorted(all) || all[0] != 0 || len(slices.Compact(all)) != groups {
			t.Fatalf("Deal(%d, %d, %v) = %v", units, size, ms, deal)
		}
		if got, want := Predict(deal, ms), float64(size)*bestTime(units, ms); math.Abs(got-want) > 1e-9 {
			t.Fatalf("Deal(%d, %d, %v) = %v takes %v, %v is possible", units, size, ms, deal, got, want)
		}
	}
}

// Members of equal speed, known or not, get counts that differ by at most one
// unit, the lower ranks the larger ones.
func TestDealIsFair(t *testing.T) {
	for units := 1; units <= 12; units++ {
		for size := 1; size <= 3; size++ {
			for world := 1; world <= units; world++ {
				for _, ms := range []float64{0, 7} {
					deal := Deal(units, size, slices.Repeat([]float64{ms}, world))
					for rank, g := range deal {
						want := units / world
						if rank < units%world {
							want++
						}
						if len(g) != want*size {
							t.Errorf("Deal(%d, %d, %d × %v) = %v", units, size, world, ms, deal)
						}
					}
				}
			}
		}
	}
}

// bestTime tries all counts ≥ 1.
func bestTime(groups int, ms []float64) float64 {
	if len(ms) == 1 {
		return float64(groups) * ms[0]
	}
	best := math.Inf(1)
	for n := 1; n <= groups-len(ms)+1; n++ {
		best = min(best, max(float64(n)*ms[0], bestTime(groups-n, ms[1:])))
	}
	return best
}

// Members whose speed is unknown count as the mean of the others.
func TestPredictUnknownSpeeds(t *testing.T) {
	deal := [][]int{{0, 1}, {2}, {3, 4, 5}}
	if got := Predict(deal, []float64{10, 0, 20}); got != 60 {
		t.Errorf("%v ms, want 60 of the last", got)
	}
	if got := Predict(deal, []float64{10, 20, 0}); got != 45 {
		t.Errorf("%v ms, want 3 groups of 15", got)
	}
	if got := Predict(deal, []float64{0, 0, 0}); got != 3 {
		t.Errorf("%v, want the longest", got)
	}
}
