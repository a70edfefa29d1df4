package coordinator

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func ExampleDeal() {
	fmt.Println(Deal(8, []float64{0, 0, 0})) // nothing measured yet
	fmt.Println(Deal(8, []float64{30, 10}))  // the second is three times as fast
	// Output:
	// [[0 1 2] [3 4 5] [6 7]]
	// [[0 1] [2 3 4 5 6 7]]
}

// Every group exactly once, ascending, nobody idle; and no other counts would
// end the step earlier (all of them are tried).
func TestDealIsOptimal(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		groups := 1 + rng.IntN(9)
		ms := make([]float64, 1+rng.IntN(min(groups, 4)))
		for i := range ms {
			ms[i] = float64(1 + rng.IntN(40))
		}
		deal := Deal(groups, ms)
		var all []int
		for i, g := range deal {
			if len(g) == 0 {
				t.Fatalf("Deal(%d, %v): member %d has nothing to do", groups, ms, i)
			}
			all = append(all, g...)
		}
		if len(all) != groups || !slices.IsSorted(all) || all[0] != 0 || len(slices.Compact(all)) != groups {
			t.Fatalf("Deal(%d, %v) = %v", groups, ms, deal)
		}
		if got, want := predict(deal, ms), bestTime(groups, ms); math.Abs(got-want) > 1e-9 {
			t.Fatalf("Deal(%d, %v) = %v takes %v, %v is possible", groups, ms, deal, got, want)
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
