package coordinator

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
	ms := fill(msPerGroup)
	counts := make([]int, len(ms))
	for left := units; left > 0; left-- {
		best := units - left // one each to begin with
		if best >= len(ms) {
			best = 0
			for i := range ms {
				if finish(counts[i]+1, ms[i]) < finish(counts[best]+1, ms[best]) {
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

func finish(groups int, ms float64) float64 { return float64(groups) * ms }

// fill replaces unknown speeds by the mean of the known ones.
func fill(ms []float64) []float64 {
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

// predict is the time of a step's computation under a deal, in ms.
func predict(deal [][]int, msPerGroup []float64) float64 {
	ms := fill(msPerGroup)
	slowest := 0.0
	for i, groups := range deal {
		slowest = max(slowest, finish(len(groups), ms[i]))
	}
	return slowest
}
