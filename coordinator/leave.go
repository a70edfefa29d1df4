package coordinator

import (
	"slices"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
)

// leaving lets a replica go: a member after the next commit, others at once. One
// that has little time (grace; 0: as much as it takes) does not wait for a step
// that takes longer than half of it: the round ends, and the others run the step
// again. The other half is for what it has to hand over.
func (c *Core) leaving(r *roster.Replica, grace time.Duration) {
	if !r.Leave() {
		return
	}
	if grace > 0 {
		r.LeaveBy(c.now.Add(grace / 2))
	}
	if !c.isMember(r) {
		c.dismiss(r)
		return
	}
	if grace > 0 && c.patience.LongStep(c.course.Round().Since(), c.now, grace/2) {
		c.giveUpStep(r)
	}
}

// giveUpStep ends the round of a leaver that cannot wait for the next commit.
func (c *Core) giveUpStep(r *roster.Replica) {
	c.course.Round().End(r.String() + " leaves, and cannot wait for the step")
}

// hurry ends rounds whose leavers have waited for long enough.
func (c *Core) hurry() {
	r := c.course.Round()
	if r == nil || r.Plan().Save {
		return
	}
	for _, m := range r.Members() {
		if by := m.LeavesBy(); m.Leaving() && !by.IsZero() && !c.now.Before(by) {
			c.giveUpStep(m)
		}
	}
}

// drain lets replicas of a name or id go because somebody says so, and tells who
// they are.
func (c *Core) drain(version int, from string, d protocol.Drain) {
	if version != protocol.Version || from == "" {
		return
	}
	answer := &protocol.Drained{Leaving: []string{}, Left: []string{}, Others: []string{}}
	for _, r := range c.roster.All() {
		if d.Replica == "" || r.Name() != d.Replica && r.ID() != d.Replica {
			answer.Others = append(answer.Others, r.Name())
			continue
		}
		if !r.Leaving() {
			c.report(event.Draining{Replica: about(r), Step: c.history.At()})
		}
		c.leaving(r, time.Duration(d.GraceMS)*time.Millisecond)
		if c.roster.Get(r.ID()) != nil {
			answer.Leaving = append(answer.Leaving, r.ID())
		} else {
			answer.Left = append(answer.Left, r.ID())
		}
	}
	c.send(from, protocol.Message{Drained: answer})
}

// handOver begins a round that stores the state when leavers hold a part of it
// that nobody else has; false when there is no need to, or no way.
func (c *Core) handOver(leavers []*roster.Replica) bool {
	at := c.history.At()
	if len(leavers) == 0 || c.course.Stopping() != "" || c.safe(at) || c.heldByStaying() || !c.patience.Insisting() ||
		slices.ContainsFunc(c.roster.All(), c.holdsAll) {
		return false // one that holds all of it sends it by itself
	}
	holders, _ := c.holders(c.roster.All())
	if len(holders) == 0 || holders[0].Step() != at {
		return false
	}
	c.course.Because(leavers[0].String() + " leaves, and holds what nobody else does")
	c.upload.Ask(at, holders[0].ID(), c.now)
	c.begin(holders, holders, true)
	return true
}

// dismiss says goodbye to a leaver. If it alone holds the job's state it
// stores that first.
func (c *Core) dismiss(r *roster.Replica) {
	c.roster.Remove(r)
	at := c.history.At()
	if c.holdsAll(r) && !c.safe(at) && !c.heldByStaying() {
		c.send(r.ID(), protocol.Message{Snapshot: &protocol.Snapshot{Step: at}})
		c.upload.Ask(at, r.ID(), c.now)
	}
	c.send(r.ID(), protocol.Message{Stop: &protocol.Stop{Reason: "left the job as asked"}})
	c.report(event.Left{Replica: about(r)})
}

// holdsAll says whether a replica is known to stand where the job stands, with
// all of the queue.
func (c *Core) holdsAll(r *roster.Replica) bool {
	return r.Step() == c.history.At() && c.copies.Covered(r)
}

// heldByStaying says whether those who stay hold the job's state, and between
// them the queue.
func (c *Core) heldByStaying() bool {
	there := slices.DeleteFunc(c.roster.Staying(), func(r *roster.Replica) bool { return r.Step() != c.history.At() })
	return len(there) > 0 && c.copies.Covered(there...)
}
