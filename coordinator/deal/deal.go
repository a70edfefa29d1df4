// Package deal gives the BatchNorm groups of a step to the members of a round,
// so that the slowest of them is done as early as possible. It is pure.
//
// A step's global batch of B samples is cut into G groups of g samples. What is
// dealt is units: N consecutive groups each (--groups-at-once, default 1),
// which are never split, because a group's bits may depend on how many groups
// are computed at once and must not depend on how many a member was dealt.
//
// Members differ in speed, and the speed of each is measured. Greedy list
// scheduling (Graham 1969) is optimal here, since all units take a member the
// same time. Cost: O(units · members).
package deal

// Deal gives BatchNorm groups 0…units·size−1 to members by rank, contiguously
// and each exactly once, so that the slowest member is done as early as
// possible. A unit is size groups from a multiple of size on; none is split.
// msPerGroup is each member's measured time for one group, 0 where unknown
// (taken as the mean of the others). Every member gets at least one unit while
// there are enough. There must be at least one member.
//
// Each unit goes to the member that would finish it first, which is optimal
// for equal tasks on machines of different speed; ties go to the lower rank,
// so members of equal speed get counts that differ by at most one unit.
func Deal(units, size int, msPerGroup []float64) [][]int {
	ms := withMean(msPerGroup)
	counts := make([]int, len(ms))
	for left := units; left > 0; left-- {
		best := units - left // one each to begin with
		if best >= len(ms) {
			best = 0
			for i := range ms {
				if timeFor(counts[i]+1, ms[i]) < timeFor(counts[best]+1, ms[best]) {
					best = i
				}
			}
		}
		counts[best]++
	}
	deal := make([][]int, len(ms))
	next := 0
	for i, n := range counts {
		deal[i] = make([]int, n*size)
		for j := range deal[i] {
			deal[i][j] = next
			next++
		}
	}
	return deal
}

// timeFor is how long a member computes so many units or groups.
func timeFor(n int, ms float64) float64 { return float64(n) * ms }

// withMean replaces unknown speeds by the mean of the known ones.
func withMean(ms []float64) []float64 {
	sum, known := 0.0, 0
	for _, v := range ms {
		if v > 0 {
			sum += v
			known++
		}
	}
	mean := 1.0
	if known > 0 {
		mean = sum / float64(known)
	}
	full := make([]float64, len(ms))
	for i, v := range ms {
		if full[i] = v; v <= 0 {
			full[i] = mean
		}
	}
	return full
}

// Predict is how long the computation of a step takes under a deal, in ms: the
// time of its slowest member. Unknown speeds are taken as in Deal.
func Predict(deal [][]int, msPerGroup []float64) float64 {
	ms := withMean(msPerGroup)
	slowest := 0.0
	for i, groups := range deal {
		slowest = max(slowest, timeFor(len(groups), ms[i]))
	}
	return slowest
}
