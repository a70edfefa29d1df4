package coordinator

import (
	"fmt"

	"mochi/coordinator/event"
	"mochi/coordinator/roster"
	"mochi/coordinator/round"
)

// added looks at what the members of a round found when they looked at a part of
// their additions a second time: a member that adds wrongly gives all of them the
// same wrong sum. False: something was wrong, so that the step is not committed;
// the round has ended.
func (c *Core) added(r *round.Round) bool {
	members := r.Members()
	var wrong []*roster.Replica
	for _, m := range members {
		if s := r.VoteOf(m).Sums; s != nil && s.Wrong > 0 {
			c.report(event.SumsFailed{Replica: about(m), Step: r.Step(), Elements: s.Wrong})
			wrong = append(wrong, m)
		}
	}
	switch {
	case len(wrong) == 0:
		return c.passedOn(r)
	case len(members) == 1:
		m := wrong[0]
		if n, enough := c.patience.Mismatch(); enough {
			c.fail(fmt.Sprintf("step %d: %s added up gradients wrongly, %d times in a row: its processor or memory is faulty (--audit 0 turns the second look off)", r.Step(), m, n))
			return false
		}
		r.End(fmt.Sprintf("step %d: %s added up gradients wrongly", r.Step(), m))
		return false
	case len(wrong) == len(members): // that is no machine's fault
		c.fail(fmt.Sprintf("step %d: all members say that they added up gradients wrongly (%s): this build does not add as it should; --audit 0 turns the second look off", r.Step(), names(wrong)))
		return false
	}
	for _, m := range wrong {
		c.leavesForGood(r, about(m), fmt.Sprintf("%s added up gradients wrongly at step %d", m, r.Step()))
	}
	return false
}

// passedOn says whether each member got what the one before it around the ring
// passed on. Where not, it changed in the memory of one of the two.
func (c *Core) passedOn(r *round.Round) bool {
	members := r.Members()
	if len(members) != r.World() {
		return true // some are lost, and the round with them
	}
	for i, m := range members {
		next := members[(i+1)%len(members)]
		sent, got := r.VoteOf(m).Sums, r.VoteOf(next).Sums
		if sent == nil || got == nil || sent.Sent == got.Got || len(members) == 1 {
			continue
		}
		c.report(event.SumsDiffer{Replica: about(m), To: next.Name(), Step: r.Step()})
		c.blame.Pair(c.now, r.Number(), m.ID(), next.ID())
		c.tried = oldestFirst(members)
		r.End(fmt.Sprintf("step %d: what %s passed on of a sum is not what %s got", r.Step(), m, next))
	}
	return r.Ending() == ""
}
