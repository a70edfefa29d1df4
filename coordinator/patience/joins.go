package patience

import "time"

// Of replicas that come while a round is at work. Each change of members costs
// the ring, the state around it and what was loaded ahead, so those that come
// together are taken in together, and not one after the other for ever.
const (
	joinsWithin = 5                // times Limits.Joins: after the first, whoever else may come
	joinShare   = 20               // a change may take one part in so many of the time
	longestJoin = 10 * time.Minute // between two changes
	cheapJoin   = time.Second      // a change that takes less may follow at once
	joinSteps   = 10               // … and nobody is waited for longer than so many steps take
)

// joins is the last change of members that newcomers made.
type joins struct {
	began time.Time     // its round; zero: its first step is committed, or there was none
	ended time.Time     // that step
	cost  time.Duration // what it took longer than a step
}

// JoinsBegin notes that a round begins with newcomers while the job is at work.
func (p *Patience) JoinsBegin(now time.Time) { p.joins.began = now }

// JoinsEnd notes that the first step of a round is committed.
func (p *Patience) JoinsEnd(now time.Time) {
	j := &p.joins
	if j.began.IsZero() {
		return
	}
	j.cost = max(0, now.Sub(j.began)-p.pace.mean())
	j.began, j.ended = time.Time{}, now
}

// MayJoin says whether a round should end for newcomers, of which the first said
// that it is ready then, and the last then: nobody has come for Limits.Joins, or
// ten steps if that is shorter (or the first has waited for five times that), and
// the last change, if it took a second or more, is twenty times as long ago as it
// took.
func (p *Patience) MayJoin(now, first, last time.Time) bool {
	if p.limits.Joins < 0 {
		return true
	}
	if p.joins.cost >= cheapJoin && now.Sub(p.joins.ended) < min(joinShare*p.joins.cost, longestJoin) {
		return false
	}
	settle := min(p.limits.Joins, joinSteps*p.pace.mean())
	return now.Sub(last) >= settle || now.Sub(first) >= joinsWithin*settle
}
