package coordinator

import (
	"strings"
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
		m.state = &protocol.Position{Step: a.Step, Digest: a.StateDigest}
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
		return a.StateDigest + " " + a.Digest + " " + strings.Join(a.Shards, " ")
	})
	for _, m := range majority {
		a := o.applied[m.id()]
		m.state = &protocol.Position{Step: a.Step, Digest: a.StateDigest}
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
	if len(others) == 0 {
		c.strikes = 0
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
