package coordinator

import (
	"fmt"
	"time"

	"mochi/coordinator/protocol"
)

// lost removes a replica that is gone. Before a commit its round ends and the
// step is run again by the others; after the append the others get the commit
// first.
func (c *Core) lost(id, why string) {
	if u := c.upload; u != nil && u.from == id {
		u.from, u.since = "", c.now
	}
	m := c.replicas[id]
	if m == nil {
		return
	}
	delete(c.replicas, id)
	reason := fmt.Sprintf("%s lost: %s", m, why)
	name := "replica lost"
	if m.leaving {
		reason, name = m.String()+" left", "replica left"
	}
	c.report(name, map[string]any{"replica": m.hello.Name, "id": id, "reason": why, "step": c.at})
	c.retryAt = time.Time{} // whatever failed, this is probably why
	r := c.round
	if r == nil || !r.has(m) {
		return
	}
	for i, other := range r.members {
		if other == m {
			r.members = append(r.members[:i:i], r.members[i+1:]...)
			break
		}
	}
	delete(r.votes, id)
	r.end(reason)
}

// failed takes the report that a member could not finish a step.
func (c *Core) failed(m *replica, f protocol.Failed) {
	if u := c.upload; u != nil && f.Unsaved == u.step && u.from == m.id() {
		u.from, u.since = "", c.now
	}
	if r := c.round; r != nil && r.has(m) && f.Round < r.number {
		return // of an older round; what is truly fatal will happen again
	}
	if f.Fatal {
		c.fail(fmt.Sprintf("replica %s, step %d: %s", m, f.Step, f.Error))
		return
	}
	if f.NoState {
		m.state, m.shards = nil, nil
	}
	r := c.round
	if r == nil || !r.has(m) || f.Round != r.number {
		return
	}
	c.report("step failed", map[string]any{
		"replica": m.hello.Name, "id": m.id(), "round": f.Round, "step": f.Step, "suspect": f.Suspect, "error": f.Error,
	})
	for _, v := range f.Damaged {
		if v < len(m.shards) {
			m.shards[v] = ""
			c.report("shard mismatch", map[string]any{"replica": m.hello.Name, "id": m.id(), "step": c.at, "shard": v, "what": "own checksum"})
		}
	}
	if r.open != nil && r.open.applied[m.id()] == nil {
		r.open.excused[m.id()] = true
	}
	if s := c.replicas[f.Suspect]; s != nil && s != m {
		s.hinted = true // with missing heartbeats it will be lost soon
	}
	if r.ending != "" {
		return // it only shares the fate of the round
	}
	r.end(fmt.Sprintf("step %d failed on %s: %s", f.Step, m, f.Error))
	c.failures++
	if c.failures >= c.cfg.Limits.Failures {
		c.fail(fmt.Sprintf("step %d failed %d times in a row, last on %s: %s", f.Step, c.failures, m, f.Error))
		return
	}
	pause := min(c.cfg.Limits.Backoff<<(c.failures-1), 2*time.Second)
	c.retryAt = c.now.Add(pause)
}

// heartbeat notices a member that waits for something although the round
// waits for it: a message was lost. It is given up, and told so (Again).
func (c *Core) heartbeat(m *replica, h protocol.Heartbeat) {
	waits := h.Phase == protocol.PhaseReady || h.Phase == protocol.PhaseWaiting
	if !waits || !c.awaits(m) {
		m.idle = time.Time{}
		return
	}
	if m.idle.IsZero() {
		m.idle = c.now
	}
	if c.now.Sub(m.idle) >= c.cfg.Limits.Stuck {
		c.lost(m.id(), "it waits for a message that was lost")
	}
}

// awaits says whether the round cannot go on without a word of m.
func (c *Core) awaits(m *replica) bool {
	r := c.round
	switch {
	case r == nil, r.save, !r.has(m), r.appending != nil:
		return false
	case r.open != nil:
		return r.open.applied[m.id()] == nil && !r.open.excused[m.id()]
	}
	return r.ending == "" && r.votes[m.id()] == nil
}

// tick gives up replicas that have been silent for too long, not counting the
// time that the coordinator itself stood still.
func (c *Core) tick(stood time.Duration) {
	for _, m := range c.sorted() {
		if m.seen = m.seen.Add(stood); m.seen.After(c.now) {
			m.seen = c.now
		}
		silent := c.now.Sub(m.seen)
		switch l := c.cfg.Limits; {
		case silent >= l.Silent:
			c.lost(m.id(), fmt.Sprintf("silent for %v", silent.Round(time.Millisecond)))
		case m.hinted && silent >= l.SilentHinted:
			c.lost(m.id(), fmt.Sprintf("others call it dead, silent for %v", silent.Round(time.Millisecond)))
		}
	}
}
