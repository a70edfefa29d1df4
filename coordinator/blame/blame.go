// Package blame keeps account of whose fault it is that rounds fail: a member's
// own, or that of two members which cannot reach each other. It says whom the
// next round should leave out and for how long, and which newcomers have to wait
// because those of their name died again and again. It decides for nobody: time,
// reports and members are arguments, and what is done with the answer is the
// core's affair.
//
// # Faults
//
// A ring error names two neighbours, and nobody else can tell which of them is
// to blame: both get a fault, as a pair. Trouble that a member reports of itself
// is its own fault. A fault stands until the two have committed Clears steps
// without another, or one of them is gone.
//
// One fault alone leaves nobody out: a connection may break once. From the second
// on the member with most faults is left out of the next round; in a tie the
// newest. It comes back after First, twice that, and so on up to Longest.
//
// # Crash loops
//
// Ids are new with every process, names are not (--name). When replicas of a
// name die young, that is within Young steps, the next of that name waits: not
// after the first, then 10 s, 30 s, 2 min.
//
// Nothing here survives the coordinator.
package blame

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Times and counts.
const (
	First   = 10 * time.Second // that a member is left out for at first
	Longest = 10 * time.Minute // … at last
	Enough  = 2                // faults
	Clears  = 50               // steps in a row that clear a fault
	Forgets = 500              // … that forget how often a member was left out

	Young     = 100             // steps: whoever dies before has died young
	YoungTime = 2 * time.Minute // … and before it was a member for so long
)

// waits is how long the next replica of a name waits, by how many of that name
// died young one after the other.
var waits = [...]time.Duration{0, 0, 10 * time.Second, 30 * time.Second, 2 * time.Minute}

// kept is how long faults of one that is gone are remembered.
const kept = time.Hour

// Blame is the account of one coordinator. Make it with New.
type Blame struct {
	members map[string]*member // by id
	names   map[string]*name   // by name
	seen    map[report]bool    // reports of the last rounds
	newest  int64              // the round of the last report
}

// member is what is held against one replica.
type member struct {
	own   []int64        // rounds that failed of its own trouble
	pairs map[string]int // with another, by its id
	good  int            // steps in a row without a fault
	times int            // it was left out
	until time.Time      // it is; zero: it is not
	why   string
	last  time.Time // of its last fault
}

// name is what is held against a name.
type name struct {
	deaths int
	died   map[string]bool // ids
	until  time.Time
}

// report is one that counts once.
type report struct {
	round  int64
	of, by string
}

// New is an account without entries.
func New() *Blame {
	return &Blame{members: map[string]*member{}, names: map[string]*name{}, seen: map[report]bool{}}
}

func (b *Blame) member(id string) *member {
	m := b.members[id]
	if m == nil {
		m = &member{pairs: map[string]int{}}
		b.members[id] = m
	}
	return m
}

// Pair counts a report of a round: two members could not reach each other. What
// both say of the same round, or one says twice, counts once.
func (b *Blame) Pair(now time.Time, round int64, by, of string) {
	if by == of || !b.counts(report{round, max(by, of), min(by, of)}) {
		return
	}
	for _, p := range [...][2]string{{by, of}, {of, by}} {
		m := b.member(p[0])
		m.pairs[p[1]]++
		m.good, m.last = 0, now
	}
}

// Own counts trouble in a round that is a member's own.
func (b *Blame) Own(now time.Time, round int64, id string) {
	if b.counts(report{round, id, id}) {
		m := b.member(id)
		m.own = append(m.own, round)
		m.good, m.last = 0, now
	}
}

// counts says whether a report is new, and remembers it while reports of its
// round may still come.
func (b *Blame) counts(r report) bool {
	if r.round > b.newest {
		b.newest = r.round
		for old := range b.seen {
			if old.round+8 < r.round {
				delete(b.seen, old)
			}
		}
	}
	if b.seen[r] || r.round+8 < b.newest {
		return false
	}
	b.seen[r] = true
	return true
}

// Faults are those that stand against a member.
func (b *Blame) Faults(id string) int {
	m := b.members[id]
	if m == nil {
		return 0
	}
	n := len(m.own)
	for _, faults := range m.pairs {
		n += faults
	}
	return n
}

// Worst is the member of a round that should be left out of the next one, ""
// when nobody should. members are ordered from the oldest to the newest.
func (b *Blame) Worst(members []string) string {
	worst, most := "", Enough-1
	for _, id := range members {
		if n := b.Faults(id); n > most || n == most && worst != "" {
			worst, most = id, n
		}
	}
	return worst
}

// Exclude leaves a member out from now on, and says for how long: twice as long
// as the last time.
func (b *Blame) Exclude(now time.Time, id, why string) time.Duration {
	m := b.member(id)
	d := min(First<<min(m.times, 10), Longest)
	m.times++
	m.until, m.why, m.good, m.last = now.Add(d), why, 0, now
	return d
}

// Excluded says until when a member is left out, and why; false when it is not.
func (b *Blame) Excluded(now time.Time, id string) (until time.Time, why string, excluded bool) {
	m := b.members[id]
	if m == nil || !now.Before(m.until) {
		return time.Time{}, "", false
	}
	return m.until, m.why, true
}

// Worked notes that members have applied a step together.
func (b *Blame) Worked(members []string) {
	if len(b.members) == 0 {
		return // nothing is held against anybody
	}
	for _, id := range members {
		if m := b.members[id]; m != nil {
			m.good++
		}
	}
	for _, id := range members {
		m := b.members[id]
		if m == nil || m.good < Clears {
			continue
		}
		m.own = nil
		for _, other := range members {
			if o := b.members[other]; m.pairs[other] > 0 && o != nil && o.good >= Clears {
				delete(m.pairs, other)
				delete(o.pairs, id)
			}
		}
		if m.good >= Forgets {
			m.times = 0
		}
	}
}

// Gone notes that a replica is: it was probably at the other end of what others
// are blamed for, and the reason of what failed last. Whoever was left out
// because of it alone is taken in again.
// What is held against it itself stays for an hour: it may come back.
func (b *Blame) Gone(now time.Time, id string) {
	for other, m := range b.members {
		if before := b.Faults(other); other != id {
			delete(m.pairs, id)
			m.own = slices.DeleteFunc(m.own, func(round int64) bool { return round >= b.newest-1 })
			if after := b.Faults(other); after < before && after < Enough {
				m.until = time.Time{}
			}
		}
		if now.Sub(m.last) > kept {
			for _, partner := range b.Partners(other) {
				delete(b.members[partner].pairs, other)
			}
			delete(b.members, other)
		}
	}
	if m := b.members[id]; m != nil {
		clear(m.pairs)
	}
}

// Died notes that a replica of a name was lost after so many steps, and such a
// time, as a member.
func (b *Blame) Died(now time.Time, called, id string, steps int, lived time.Duration) {
	if steps >= Young || lived >= YoungTime {
		delete(b.names, called)
		return
	}
	n := b.names[called]
	if n == nil {
		n = &name{died: map[string]bool{}}
		b.names[called] = n
	}
	n.deaths++
	n.died[id] = true
	n.until = now.Add(waits[min(n.deaths, len(waits)-1)])
}

// Returned notes that a replica was not dead after all: it speaks.
func (b *Blame) Returned(called, id string) {
	if n := b.names[called]; n != nil && n.died[id] {
		delete(n.died, id)
		if n.deaths--; n.deaths == 0 {
			delete(b.names, called)
			return
		}
		n.until = time.Time{}
	}
}

// Waits says until when a replica of a name has to wait, and why; false when it
// need not.
func (b *Blame) Waits(now time.Time, called string) (until time.Time, why string, waits bool) {
	n := b.names[called]
	if n == nil || !now.Before(n.until) {
		return time.Time{}, "", false
	}
	return n.until, fmt.Sprintf("%d replicas called %s died young, one after the other", n.deaths, called), true
}

// Partners names those with whom a member shares faults, worst first, for people.
func (b *Blame) Partners(id string) []string {
	m := b.members[id]
	if m == nil {
		return nil
	}
	partners := make([]string, 0, len(m.pairs))
	for other := range m.pairs {
		partners = append(partners, other)
	}
	slices.SortFunc(partners, func(x, y string) int {
		return cmp.Or(cmp.Compare(m.pairs[y], m.pairs[x]), cmp.Compare(x, y))
	})
	return partners
}
