package coordinator

import (
	"fmt"
	"slices"
	"time"

	"mochi/coordinator/protocol"
)

// open is a published commit whose members have not all applied it yet.
type open struct {
	final   bool
	record  CommitRecord
	applied map[string]*protocol.Applied
	excused map[string]bool // members whose report will not come
}

func (o *open) complete(members []*replica) bool {
	for _, m := range members {
		if o.applied[m.id()] == nil && !o.excused[m.id()] {
			return false
		}
	}
	return true
}

// applied takes a member's report of the state after a commit, or that of a
// replica outside the round that was sent the last commit again.
func (c *Core) applied(m *replica, a *protocol.Applied) {
	r := c.round
	switch {
	case r != nil && r.open != nil && r.has(m) && a.Step == r.open.record.Commit.Step && a.Round == r.number:
		r.open.applied[m.id()] = a
		m.idle = time.Time{}
	case !m.resolving.IsZero() && a.Step == m.resolves:
		m.resolving = time.Time{}
		m.state, m.shards = &protocol.Position{Step: a.Step, Digest: a.StateDigest}, a.Shards
		for _, v := range a.Damaged {
			if v >= 0 && v < len(m.shards) {
				m.shards[v] = ""
			}
		}
	}
}

// settle compares what the members hold after a commit and tells the
// observer. Members that differ from the majority get its state in a new
// round; the step itself stands.
func (c *Core) settle() {
	r := c.round
	o := r.open
	r.open = nil
	var there []*replica
	for _, m := range r.members {
		if o.applied[m.id()] != nil {
			there = append(there, m)
		}
	}
	majority, others := split(there, func(m *replica) string {
		a := o.applied[m.id()]
		return a.StateDigest + " " + a.Digest
	})
	for _, m := range majority {
		a := o.applied[m.id()]
		m.state, m.shards = &protocol.Position{Step: a.Step, Digest: a.StateDigest}, slices.Clone(a.Shards)
		o.record.Digest, o.record.StateDigest = a.Digest, a.StateDigest
	}
	c.digest = o.record.StateDigest
	if len(majority) == 0 {
		for _, a := range o.applied { // applied, and then lost
			o.record.Digest, o.record.StateDigest = a.Digest, a.StateDigest
			break
		}
	}
	c.do(Record{o.record})
	if o.final {
		c.finishing = true
	}
	wrong := c.sift(majority, o.record.Commit.Step, func(m *replica, v int) bool {
		return slices.Contains(o.applied[m.id()].Damaged, v)
	})
	if len(others) == 0 && wrong == 0 {
		c.strikes = 0
		return
	}
	if wrong > 0 {
		// A checkpoint of this step may have been put together from them.
		if u := c.upload; u != nil && u.step == o.record.Commit.Step {
			u.from, u.bad = "", true
		}
	}
	if len(others) == 0 {
		if c.strikes++; c.strikes >= c.cfg.Limits.Mismatches {
			c.fail(fmt.Sprintf("step %d: copies of queue shards differ, %d times in a row: look for faulty memory in the replicas reported", o.record.Commit.Step, c.strikes))
			return
		}
		r.end(fmt.Sprintf("%d copies of queue shards differ at step %d", wrong, o.record.Commit.Step))
		return
	}
	c.disagree("states", o.record.Commit.Step, others, len(majority))
	if u := c.upload; u != nil && u.step == o.record.Commit.Step {
		for _, m := range others {
			if u.from == m.id() {
				u.from, u.bad = "", true
			}
		}
	}
}
