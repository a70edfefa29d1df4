package coordinator

import (
	"fmt"
	"maps"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
)

// lost removes a replica that is gone. Before a commit its round ends and the
// step is run again by the others; after the append the others get the commit
// first.
func (c *Core) lost(id, why string) {
	c.upload.LostBy(id, c.now)
	c.patience.Came(id)
	delete(c.foreign, id)
	m := c.roster.Get(id)
	if m == nil {
		return
	}
	c.dies(m)
	reason := fmt.Sprintf("%s lost: %s", m, why)
	if m.Leaving() {
		reason = m.String() + " left"
		c.report(event.LeftEarly{Replica: about(m), Reason: why, Step: c.history.At()})
	} else {
		c.report(event.Lost{Replica: about(m), Reason: why, Step: c.history.At()})
	}
	c.patience.Forgive() // whatever failed, this is probably why
	if c.isMember(m) {
		c.course.Round().Remove(m)
		c.course.Round().End(reason)
	}
}

// failed takes the report that a member could not finish a step.
func (c *Core) failed(m *roster.Replica, f protocol.Failed) {
	c.upload.FailedBy(m.ID(), f.Unsaved, c.now)
	if f.Leaves {
		c.leavesFailed(m, f)
		return
	}
	if f.NotFinite && c.audits.Every > 0 {
		c.notFinite(m, f)
		return
	}
	c.charge(m, f)
	r, member := c.course.Round(), c.isMember(m)
	if member && f.Round < r.Number() {
		return // of an older round; what is truly fatal will happen again
	}
	if f.NoState {
		m.Forget()
	}
	if !member || f.Round != r.Number() {
		return
	}
	if f.Fatal {
		c.fail(fmt.Sprintf("replica %s, step %d: %s", m, f.Step, f.Error))
		return
	}
	c.report(event.StepFailed{Replica: about(m), Round: f.Round, Step: f.Step, Suspect: f.Suspect, Error: f.Error})
	for _, v := range f.Damaged {
		if m.DropShard(v) {
			c.report(event.ShardDamaged{Replica: about(m), Step: c.history.At(), Shard: v, What: "own checksum"})
		}
	}
	r.Excuse(m)
	if s := c.roster.Get(f.Suspect); s != nil && s != m {
		s.Hint(true) // with missing heartbeats it will be lost soon
	}
	if r.Ending() != "" {
		return // it only shares the fate of the round
	}
	r.End(fmt.Sprintf("step %d failed on %s: %s", f.Step, m, f.Error))
	c.patience.StepFailed(c.now)
	c.tried = oldestFirst(r.Members())
	if r.World() == 1 {
		c.failsAlone(m, f)
	}
}

// leavesFailed lets a replica go that has trouble of its own: that costs the
// others a step, and not the job.
func (c *Core) leavesFailed(m *roster.Replica, f protocol.Failed) {
	c.report(event.ReplicaFailed{Replica: about(m), Round: f.Round, Step: f.Step, Error: f.Error})
	c.upload.LostBy(m.ID(), c.now)
	c.trouble = f.Error
	c.dies(m)
	c.patience.Forgive()
	if r := c.course.Round(); c.isMember(m) {
		first := r.Ending() == ""
		r.Remove(m)
		r.End(fmt.Sprintf("%s failed: %s", m, f.Error))
		if first {
			c.failsAlone(m, f)
		}
	}
}

// heartbeat notices a member that waits for something although the round
// waits for it: a message was lost. It is given up, and told so (Again).
func (c *Core) heartbeat(m *roster.Replica, h protocol.Heartbeat) {
	m.Beats(h, c.now)
	waits := h.Phase == protocol.PhaseReady || h.Phase == protocol.PhaseWaiting
	if r := c.course.Round(); !waits || r == nil || !r.Awaits(m) {
		m.Busy()
		return
	}
	if c.patience.Stuck(m.Waits(c.now)) {
		c.asleep[m.ID()] = true // it is there, and hears the end if that comes first
		c.lost(m.ID(), "it waits for a message that was lost")
	}
}

// tick gives up replicas that have been silent for too long, not counting the
// time that the coordinator itself stood still.
func (c *Core) tick(stood time.Duration) {
	for _, m := range c.roster.All() {
		if why := c.patience.Silent(m.Silence(c.now, stood), m.Hinted()); why != "" {
			c.asleep[m.ID()] = true
			if c.isMember(m) {
				c.sleeps = c.history.At()
			}
			c.lost(m.ID(), why)
		}
	}
	c.tickForeign(stood)
	c.watch()
	c.hurry()
	c.forgetAsked()
}

// askAgainEvery is how often a replica that is not admitted is asked to say Hello:
// what it says until it has read that is no reason to ask again, and each answer
// costs it a digest of its whole state.
const askAgainEvery = time.Second

// askAgain asks whoever is not admitted to say Hello.
func (c *Core) askAgain(id string) {
	if last, asked := c.asked[id]; asked && c.now.Sub(last) < askAgainEvery {
		return
	}
	c.asked[id] = c.now
	c.send(id, protocol.Message{Again: &protocol.Again{Instance: c.cfg.Instance}})
}

// forgetAsked forgets whom it would ask by now anyway.
func (c *Core) forgetAsked() {
	maps.DeleteFunc(c.asked, func(_ string, at time.Time) bool { return c.now.Sub(at) >= askAgainEvery })
}
