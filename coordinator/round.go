package coordinator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"mochi/coordinator/protocol"
)

// round is one membership at work.
type round struct {
	number  int64
	members []*replica // those still alive, by rank
	world   int        // how many it began with
	deal    [][]int    // groups by rank
	step    int64      // to be committed next
	cursor  int64      // samples committed before it
	steps   int        // committed in this round
	since   time.Time  // the last commit, or the start
	votes   map[string]*protocol.Ready

	holders   [][]*replica // of each shard, the owner first; nil: every member holds all
	transfers []protocol.Transfer
	save      bool // without a step: the members store their state

	appending *protocol.Commit // on its way to the log
	open      *open            // published, not yet applied by all
	ending    string           // why no further step is committed, "" while it goes on
}

func (r *round) has(m *replica) bool { return slices.Contains(r.members, m) }

// end stops a round from committing further steps; the first reason stays.
func (r *round) end(why string) {
	if r.ending == "" {
		r.ending = why
	}
}

// endRound drops the round and lets its leavers go.
func (c *Core) endRound() {
	c.why = c.round.ending
	members := c.round.members
	c.round = nil
	for _, m := range members {
		if m.leaving {
			c.dismiss(m)
		}
	}
	c.resolve()
}

// gather begins the next round as soon as that is right, and says why not
// otherwise.
func (c *Core) gather() bool {
	c.phase = "waiting"
	candidates := c.eligible()
	holders := c.holders(candidates)
	if len(holders) > 0 && holders[0].state.Step > c.at {
		c.at = holders[0].state.Step // they were only away
	}
	if total := c.Total(); total > 0 && c.at >= total && (len(holders) > 0 || c.covered(c.at)) {
		return c.store()
	}
	if c.stop != "" {
		return c.store()
	}
	if c.now.Before(c.retryAt) {
		return c.wait("pausing after a failed step")
	}
	for _, r := range candidates {
		if !r.resolving.IsZero() && c.now.Before(r.resolving.Add(c.cfg.Limits.Stuck)) {
			return c.wait("waiting for " + r.String() + " to apply the last commit")
		}
	}
	if c.lastRoundIsOld() && len(holders) > 0 && c.now.Before(c.helloAt.Add(c.cfg.Limits.Settle)) {
		return c.wait("waiting for further replicas of the last round")
	}
	if len(holders) == 0 {
		if ready, rolledBack := c.source(); rolledBack {
			return true // look again, from where the job now stands
		} else if !ready {
			return false
		}
	}
	need := 1
	if len(holders) == 0 && !c.begun {
		need = max(1, c.cfg.Training.MinReplicas) // to start with; later whoever is left goes on
	}
	if len(candidates) < need {
		return c.wait(fmt.Sprintf("waiting for replicas: %d of %d are here", len(candidates), need))
	}
	c.begin(candidates, holders, false)
	return true
}

func (c *Core) wait(reason string) bool {
	c.reason = reason
	return false
}

// lastRoundIsOld says that this coordinator found a job in progress and has
// not begun a round yet.
func (c *Core) lastRoundIsOld() bool {
	return c.cfg.Limits.Grace > 0 && c.headCommit != nil && c.headCommit == c.cfg.Head &&
		c.now.Before(c.started.Add(c.cfg.Limits.Grace))
}

// source finds a state without a replica that holds it: the seed, a
// checkpoint, or after some patience an older checkpoint, whose steps are
// then run again.
func (c *Core) source() (ready, rolledBack bool) {
	u := c.upload
	switch {
	case c.at == 0, c.checkpoint != nil && c.checkpoint.Step == c.at:
		return true, false
	case u != nil && u.step == c.at && u.from != "" && c.now.Before(u.since.Add(c.cfg.Limits.Upload)):
		return c.wait(fmt.Sprintf("waiting for the checkpoint of step %d", u.step)), false
	case c.missing.IsZero():
		c.missing = c.now
	}
	if c.now.Before(c.missing.Add(c.cfg.Limits.Grace)) {
		if len(c.gone) > 0 {
			return c.wait(fmt.Sprintf("waiting for replicas that hold %s of the queue after step %d", list(c.gone), c.at)), false
		}
		return c.wait(fmt.Sprintf("waiting for replicas that hold the state after step %d", c.at)), false
	}
	from := c.at
	c.at = 0
	where := "the seed"
	if c.checkpoint != nil {
		c.at, where = c.checkpoint.Step, "checkpoint "+c.checkpoint.Name
	}
	// A replica that stopped on the way is better than the checkpoint.
	for _, r := range c.eligible() {
		if r.state != nil && r.state.Step > c.at && len(c.lacking([]*replica{r})) == 0 {
			if _, ok := c.cursorAfter(r.state.Step); ok {
				c.at, where = r.state.Step, "the state of "+r.String()
			}
		}
	}
	c.upload = nil
	lost := fmt.Sprintf("nobody holds the state after step %d", from)
	if len(c.gone) > 0 {
		lost = fmt.Sprintf("all copies of %s of the queue after step %d are lost", list(c.gone), from)
		c.report("shards lost", map[string]any{"shards": list(c.gone), "step": from, "copies": c.cfg.Training.QueueCopies})
		for _, r := range c.replicas {
			if r.state != nil && r.state.Step > c.at {
				r.state, r.shards = nil, nil // a part of what cannot be completed
			}
		}
	}
	c.report("rolled back", map[string]any{"from": from, "to": c.at, "source": where})
	c.why = fmt.Sprintf("%s: going on from %s", lost, where)
	return false, true
}

// eligible are the replicas that may be members: holders of the job's state
// first (rank 0 is the donor), then by their last rank, then by arrival.
func (c *Core) eligible() []*replica {
	return slices.DeleteFunc(c.sorted(), func(r *replica) bool { return r.leaving })
}

func (c *Core) sorted() []*replica {
	all := make([]*replica, 0, len(c.replicas))
	for _, r := range c.replicas {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *replica) int {
		return cmp.Or(cmp.Compare(uint(a.rank), uint(b.rank)), cmp.Compare(a.seq, b.seq)) // rank −1 comes last
	})
	return all
}

// holders are the candidates that hold the most advanced known state, at the
// step where the job stands or later, and agree on it: the majority, or the
// lowest ranks in a tie.
func (c *Core) holders(candidates []*replica) []*replica {
	best := c.at
	for _, r := range candidates {
		if r.state != nil && r.state.Step > best && r.state.Step <= c.head {
			if _, ok := c.cursorAfter(r.state.Step); ok {
				best = r.state.Step
			}
		}
	}
	var there []*replica
	for _, r := range candidates {
		if r.state != nil && r.state.Step == best {
			there = append(there, r)
		}
	}
	majority, others := split(there, func(r *replica) string { return r.state.Digest })
	for _, r := range others {
		c.report("digest mismatch", map[string]any{"replica": r.hello.Name, "id": r.id(), "step": best, "what": "state"})
		r.state = nil
	}
	c.sift(majority, best, nil)
	majority = c.fit(majority)
	if c.gone = c.lacking(majority); len(majority) > 0 && len(c.gone) > 0 {
		return nil // together they do not hold the queue
	}
	c.gone = nil
	return majority
}

// split groups members by a key and separates the largest group (in a tie the
// one with the lowest rank) from the others.
func split(members []*replica, key func(*replica) string) (majority, others []*replica) {
	count := map[string]int{}
	for _, m := range members {
		count[key(m)]++
	}
	best := ""
	for i, m := range members {
		if k := key(m); i == 0 || count[k] > count[best] {
			best = k
		}
	}
	for _, m := range members {
		if key(m) == best {
			majority = append(majority, m)
		} else {
			others = append(others, m)
		}
	}
	return majority, others
}

// limit is how many members a round can have.
func (c *Core) limit() int {
	units := c.cfg.Training.Units()
	if m := c.cfg.Training.MaxReplicas; m > 0 {
		return min(m, units)
	}
	return units
}

// deal is Deal of the job's units.
func (c *Core) deal(msPerGroup []float64) [][]int {
	units := c.cfg.Training.Units()
	return Deal(units, c.cfg.Training.Groups()/units, msPerGroup)
}

// begin starts a round, or one that only saves the state.
func (c *Core) begin(candidates, holders []*replica, save bool) {
	ordered := append([]*replica(nil), holders...)
	for _, r := range candidates {
		if !slices.Contains(holders, r) {
			ordered = append(ordered, r)
		}
	}
	members := ordered[:min(len(ordered), c.limit())]
	cursor, ok := c.cursorAfter(c.at)
	if !ok {
		panic(fmt.Sprintf("coordinator: step %d is not in the history", c.at))
	}
	c.lastRound++
	c.do(Reserve{c.lastRound})
	r := &round{
		number: c.lastRound, members: slices.Clone(members), world: len(members), deal: c.deal(speeds(members)),
		step: c.at + 1, cursor: cursor, since: c.now, votes: map[string]*protocol.Ready{}, save: save,
	}
	msg := protocol.Round{Round: r.number, Step: r.step, Cursor: cursor, Donor: -1, Reason: c.why, Save: save}
	c.place(r, members, holders, &msg)
	for _, m := range c.replicas {
		m.rank = -1
	}
	var names []string
	for rank, m := range members {
		m.rank, m.idle, m.pending, m.resolving = rank, time.Time{}, nil, time.Time{}
		names = append(names, m.hello.Name)
		state := protocol.FromSelf
		if !slices.Contains(holders, m) {
			m.state, m.shards = nil, nil
			switch {
			case len(holders) > 0:
				state, msg.Donor = protocol.FromPeer, 0 // rank 0 is a holder
			case c.at > 0:
				state, msg.Checkpoint = protocol.FromCheckpoint, c.checkpoint.Name
			default:
				state = protocol.FromSeed
			}
		}
		msg.Members = append(msg.Members, protocol.Member{
			ID: m.id(), Name: m.hello.Name, BulkURL: m.hello.BulkURL, Groups: r.deal[rank], State: state,
		})
	}
	for _, m := range ordered { // those on standby too: their old round is over
		c.send(m.id(), protocol.Message{Round: &msg})
	}
	c.report("round", map[string]any{
		"round": r.number, "step": r.step, "world": r.world, "members": strings.Join(names, " "), "reason": c.why,
	})
	c.digest = ""
	if len(holders) > 0 {
		c.digest = holders[0].state.Digest
	}
	c.round, c.phase, c.missing, c.retryAt = r, "running", time.Time{}, time.Time{}
	c.begun = true
}

func speeds(members []*replica) []float64 {
	ms := make([]float64, len(members))
	for i, m := range members {
		ms[i] = m.ms
	}
	return ms
}

// boundary says why a new round should begin after the next commit, "" when
// it should not.
func (c *Core) boundary() string {
	r := c.round
	staying := 0
	for _, m := range r.members {
		if m.leaving {
			return m.String() + " leaves"
		}
		staying++
	}
	for _, m := range c.eligible() {
		if !r.has(m) && staying < c.limit() {
			return m.String() + " joins"
		}
	}
	if r.steps < c.cfg.Limits.RebalanceMin || len(r.members) != r.world {
		return ""
	}
	ms := speeds(r.members)
	if slices.Contains(ms, 0) {
		return ""
	}
	now, then := predict(r.deal, ms), predict(c.deal(ms), ms)
	if then <= (1-c.cfg.Limits.Rebalance)*now {
		return fmt.Sprintf("rebalance: %.0f ms a step instead of %.0f", then, now)
	}
	return ""
}
