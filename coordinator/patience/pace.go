package patience

import "time"

// Of a computation that hangs.
const (
	shortestHang = time.Minute
	timesSlowest = 10 // a step may take so many times as long as the slowest of the last ones
	firstHang    = 30 * time.Minute
	longStall    = 30 * time.Second // people are told
)

// pace is how long the last steps took.
type pace struct {
	last [20]time.Duration
	n    int // ever
}

func (p *pace) note(d time.Duration) {
	p.last[p.n%len(p.last)] = d
	p.n++
}

func (p *pace) slowest() (most time.Duration) {
	for _, d := range p.last {
		most = max(most, d)
	}
	return most
}

func (p *pace) mean() time.Duration {
	n := min(p.n, len(p.last))
	if n == 0 {
		return 0
	}
	var sum time.Duration
	for _, d := range p.last[:n] {
		sum += d
	}
	return sum / time.Duration(n)
}

// Stepped notes how long a step took.
func (p *Patience) Stepped(d time.Duration) { p.pace.note(d) }

// LongStep says whether a step that began then will probably take longer from now
// on than somebody can wait.
func (p *Patience) LongStep(began, now time.Time, wait time.Duration) bool {
	return p.pace.mean()-now.Sub(began) > wait
}

// Hangs says whether a member that the round waits for, and that has made no
// progress for so long, hangs. Before a replica's first step (fresh) an engine
// may compile, so that takes longer.
func (p *Patience) Hangs(still time.Duration, fresh bool) bool { return still >= p.hang(fresh) }

func (p *Patience) hang(fresh bool) time.Duration {
	switch {
	case p.limits.Step > 0:
		return p.limits.Step
	case fresh:
		return max(firstHang, timesSlowest*p.pace.slowest())
	}
	return max(shortestHang, timesSlowest*p.pace.slowest())
}

// Stalls says whether it is time to tell people of such a member.
func (p *Patience) Stalls(still time.Duration) bool {
	return still >= max(longStall, 3*p.pace.slowest()) || p.limits.Step > 0 && still >= p.limits.Step/2
}
