package coordinator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
)

// A round that fails costs whoever made it fail, and not the job: package blame
// keeps the account, and this file acts on it.

// charge puts a failed round down to whom it belongs to: two that do not reach
// each other, or the member itself.
func (c *Core) charge(m *roster.Replica, f protocol.Failed) {
	if f.Round < 1 || f.Round > c.course.Last() || f.Fatal || f.Follows || f.Unsaved > 0 {
		return
	}
	if f.Suspect == "" {
		c.blame.Own(c.now, f.Round, m.ID())
		return
	}
	if s := c.roster.Get(f.Suspect); s != nil { // otherwise it is gone, and that is why
		c.blame.Pair(c.now, f.Round, m.ID(), s.ID())
	}
}

// dies strikes off a replica that did not leave in order.
func (c *Core) dies(m *roster.Replica) {
	c.roster.Remove(m)
	c.blame.Gone(c.now, m.ID())
	if lived, ever := m.Lived(c.now); ever && !m.Leaving() {
		c.blame.Died(c.now, m.Name(), m.ID(), m.Steps(), lived)
	}
}

// failsAlone counts rounds that failed on one replica. When they do alike again
// and again, whoever it is, then it is the job that is at fault.
func (c *Core) failsAlone(m *roster.Replica, f protocol.Failed) {
	if n, enough := c.patience.FailedAlike(f.Error); enough {
		c.fail(fmt.Sprintf("step %d failed %d times in a row with the same error, last on %s: %s", f.Step, n, m, f.Error))
	}
}

// leaveOut leaves the worst member of a round that failed out of the next ones,
// if it failed before.
func (c *Core) leaveOut() {
	tried := slices.DeleteFunc(c.tried, func(id string) bool { return c.roster.Get(id) == nil })
	c.tried = nil
	worst := c.roster.Get(c.blame.Worst(tried))
	if worst == nil || len(c.roster.Ready()) < 2 {
		return // nobody, or there is nobody else
	}
	why := fmt.Sprintf("%d rounds failed with it", c.blame.Faults(worst.ID()))
	var unreached []string
	for _, id := range c.blame.Partners(worst.ID()) {
		if r := c.roster.Get(id); r != nil {
			unreached = append(unreached, r.Name())
		}
	}
	if len(unreached) > 0 {
		why += ": it and " + strings.Join(unreached, ", ") + " did not reach each other"
	}
	d := c.blame.Exclude(c.now, worst.ID(), why)
	c.report(event.LeftOut{Replica: about(worst), Reason: why, Seconds: d.Seconds(), Step: c.history.At()})
}

// heldBack says until when a replica is not made a member, and why; false when
// it may be one at once.
func (c *Core) heldBack(r *roster.Replica) (until time.Time, why string, held bool) {
	if until, why, held = c.blame.Excluded(c.now, r.ID()); held {
		return until, why, held
	}
	if _, ever := r.Lived(c.now); !ever {
		return c.blame.Waits(c.now, r.Name())
	}
	return time.Time{}, "", false
}

// candidates are the replicas that the next round may be made of: those that are
// ready and not held back. If the state where the job stands is not among them,
// the one with the fewest faults that has it comes too, or all, as long as it
// takes to see that this is no way either.
func (c *Core) candidates() []*roster.Replica {
	ready := slices.DeleteFunc(c.roster.Ready(), func(r *roster.Replica) bool { return c.bringsParts(r) || c.beyond(r) })
	free := slices.DeleteFunc(slices.Clone(ready), func(r *roster.Replica) bool {
		_, _, held := c.heldBack(r)
		return held
	})
	state := c.cover(ready)
	if len(free) == len(ready) || len(free) > 0 && c.cover(free) == state {
		return free
	}
	held := slices.DeleteFunc(slices.Clone(ready), func(r *roster.Replica) bool { return slices.Contains(free, r) })
	slices.SortStableFunc(held, func(a, b *roster.Replica) int {
		return cmp.Or(cmp.Compare(c.blame.Faults(a.ID()), c.blame.Faults(b.ID())), cmp.Compare(a.Arrival(), b.Arrival()))
	})
	for _, r := range held {
		if c.cover(append(slices.Clone(free), r)) == state {
			return slices.DeleteFunc(ready, func(o *roster.Replica) bool { return o != r && slices.Contains(held, o) })
		}
	}
	switch {
	case c.patience.Insisting():
		return ready
	case len(free) > 0:
		return free
	}
	return held[:1]
}

// bringsParts says whether a replica holds a part of a state that the job has
// given up, for want of the other parts. As a member it would lose it, so it is
// none as long as the others may follow.
func (c *Core) bringsParts(r *roster.Replica) bool {
	step := r.Step()
	return step > c.history.At() && c.history.Has(step) && c.cover(c.roster.Ready()) < step && c.patience.AwaitsParts(c.now, r.Said())
}

// absent says why replicas that are connected are not here yet, and of what the
// last one died when none is.
func (c *Core) absent() string {
	all := c.roster.All()
	if len(all) == 0 {
		return c.lastTrouble()
	}
	var words []string
	for _, r := range all {
		if until, why, held := c.heldBack(r); held {
			words = append(words, fmt.Sprintf("%s is left out until %s (%s)", r.Name(), until.UTC().Format(time.TimeOnly), why))
		} else if !r.Ready() {
			words = append(words, r.Name()+" starts its engine")
		} else if c.bringsParts(r) {
			words = append(words, fmt.Sprintf("%s holds a part of the state after step %d", r.Name(), r.Step()))
		}
	}
	if len(words) == 0 {
		return ""
	}
	return "; " + strings.Join(words, ", ")
}

// lastTrouble is what the last replica died of that said so, since the last
// step.
func (c *Core) lastTrouble() string {
	if c.trouble == "" {
		return ""
	}
	return "; the last one ended with: " + c.trouble
}

// cover is the latest step, not before the one where the job stands, whose state
// some replicas hold with all of the queue; −1 when there is none.
func (c *Core) cover(replicas []*roster.Replica) int64 {
	best := int64(-1)
	for _, r := range replicas {
		if step := r.Step(); step > best && step >= c.history.At() && c.history.Has(step) {
			there := slices.DeleteFunc(slices.Clone(replicas), func(o *roster.Replica) bool { return o.Step() != step })
			if c.copies.Covered(there...) {
				best = step
			}
		}
	}
	return best
}

// oldestFirst are the ids of replicas in the order of their admission.
func oldestFirst(replicas []*roster.Replica) []string {
	sorted := slices.SortedFunc(slices.Values(replicas), func(a, b *roster.Replica) int {
		return cmp.Compare(a.Arrival(), b.Arrival())
	})
	ids := make([]string, len(sorted))
	for i, r := range sorted {
		ids[i] = r.ID()
	}
	return ids
}
