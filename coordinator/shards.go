package coordinator

import (
	"fmt"
	"slices"
	"strings"

	"mochi/coordinator/protocol"
)

// The shards of the negative queue: who holds which, what must be copied, and
// what is lost. With --queue-copies all every member holds everything and no
// map is made, but copies are compared and repaired alike.

// shards is V.
func (c *Core) shards() int { return max(c.cfg.Training.QueueShards, 1) }

// hasShard says whether a replica that holds the job's state has a sound copy
// of a shard. One that does not report shards holds all.
func (c *Core) hasShard(r *replica, v int) bool {
	if len(r.shards) == 0 {
		return c.cfg.Training.Copies() == 0
	}
	return v < len(r.shards) && r.shards[v] != ""
}

// lacking lists the shards that none of some holders of the state has.
func (c *Core) lacking(holders []*replica) (missing []int) {
	for v := range c.shards() {
		if !slices.ContainsFunc(holders, func(r *replica) bool { return c.hasShard(r, v) }) {
			missing = append(missing, v)
		}
	}
	return missing
}

// fit chooses, of more holders than a round can have members, some that hold
// all of the queue between them where there are such, in their order.
func (c *Core) fit(holders []*replica) []*replica {
	limit := c.limit()
	if len(holders) <= limit {
		return holders
	}
	var chosen []*replica
	for len(chosen) < limit {
		var next *replica
		fewest := 0
		for _, r := range holders {
			if slices.Contains(chosen, r) {
				continue
			}
			if n := len(c.lacking(append(chosen[:len(chosen):len(chosen)], r))); next == nil || n < fewest {
				next, fewest = r, n
			}
		}
		chosen = append(chosen, next)
	}
	return slices.DeleteFunc(slices.Clone(holders), func(r *replica) bool { return !slices.Contains(chosen, r) })
}

// sift compares the copies of each shard and gives up those that are damaged
// or differ from the majority, in a tie from the owner or the lowest rank. It
// returns how many it gave up. damaged may be nil.
func (c *Core) sift(there []*replica, step int64, damaged func(r *replica, v int) bool) (given int) {
	for v := range c.shards() {
		var sound, odd []*replica
		for _, r := range c.ownerFirst(there, v) {
			switch {
			case len(r.shards) == 0 || !c.hasShard(r, v):
			case damaged != nil && damaged(r, v):
				odd = append(odd, r)
			default:
				sound = append(sound, r)
			}
		}
		majority, others := split(sound, func(r *replica) string { return r.shards[v] })
		for _, r := range append(others, odd...) {
			r.shards[v] = ""
			given++
			from := "nobody"
			if len(majority) > 0 {
				from = majority[0].String()
				c.repairs++
			}
			c.report("shard mismatch", map[string]any{
				"replica": r.hello.Name, "id": r.id(), "step": step, "shard": v, "majority": len(majority), "repaired from": from,
			})
		}
	}
	return given
}

// ownerFirst orders holders as the round has them.
func (c *Core) ownerFirst(there []*replica, v int) []*replica {
	r := c.round
	if r == nil || r.holders == nil {
		return there
	}
	var list []*replica
	for _, m := range r.holders[v] {
		if slices.Contains(there, m) {
			list = append(list, m)
		}
	}
	return list
}

// place decides who holds which shard in a round and what must be copied.
// holders are those of the members that have the state already; without any,
// all members get a whole queue from the seed or a checkpoint.
func (c *Core) place(r *round, members, holders []*replica, msg *protocol.Round) {
	has := make([][]bool, len(members))
	for rank, m := range members {
		has[rank] = make([]bool, c.shards())
		for v := range has[rank] {
			has[rank][v] = len(holders) == 0 || slices.Contains(holders, m) && c.hasShard(m, v)
		}
	}
	if copies := c.cfg.Training.Copies(); copies > 0 {
		msg.Holders = Place(has, c.shards(), copies)
		for _, ranks := range msg.Holders {
			var list []*replica
			for _, rank := range ranks {
				list = append(list, members[rank])
			}
			r.holders = append(r.holders, list)
		}
	}
	sends := make([]int, len(members))
	for v := range c.shards() {
		want := holders // joiners get the queue with the state
		if r.holders != nil {
			want = r.holders[v]
		}
		t := protocol.Transfer{Shard: v, From: -1}
		for rank, m := range members {
			switch {
			case has[rank][v]:
				if t.From < 0 || sends[rank] < sends[t.From] {
					t.From = rank
				}
			case slices.Contains(want, m):
				t.To = append(t.To, rank)
			}
		}
		if len(t.To) == 0 {
			continue
		}
		sends[t.From]++
		if s := members[t.From].shards; v < len(s) {
			t.Digest = s[v]
		}
		msg.Transfers = append(msg.Transfers, t)
		c.moved += len(t.To)
	}
	r.transfers = msg.Transfers
}

// received notes that a member has what was to be sent to it: it computed with
// it.
func (c *Core) received(r *round, m *replica) {
	for _, t := range r.transfers {
		if !slices.Contains(t.To, m.rank) || t.Digest == "" {
			continue
		}
		if len(m.shards) < c.shards() {
			m.shards = append(m.shards, make([]string, c.shards()-len(m.shards))...)
		}
		m.shards[t.Shard] = t.Digest
	}
}

// stayersCover says whether the members that do not leave will hold the state
// and all of the queue.
func (c *Core) stayersCover() bool {
	stays := func(m *replica) bool { return !m.leaving && c.round.has(m) }
	if !slices.ContainsFunc(c.round.members, stays) {
		return false
	}
	for _, holders := range c.round.holders {
		if !slices.ContainsFunc(holders, stays) {
			return false
		}
	}
	return true
}

// queueState is the queue's part of a Status.
func (c *Core) queueState() protocol.QueueState {
	s := protocol.QueueState{Copies: c.cfg.Training.QueueCopies, Repairs: c.repairs, Moved: c.moved}
	if c.round == nil {
		return s
	}
	for _, holders := range c.round.holders {
		state := protocol.ShardState{Copies: []string{}}
		for _, m := range holders {
			switch {
			case !c.round.has(m):
			case state.Owner == "":
				state.Owner = m.id()
			default:
				state.Copies = append(state.Copies, m.id())
			}
		}
		s.Shards = append(s.Shards, state)
	}
	return s
}

// list prints shard numbers.
func list(shards []int) string {
	if len(shards) == 1 {
		return fmt.Sprintf("shard %d", shards[0])
	}
	return "shards " + strings.Trim(fmt.Sprint(shards), "[]")
}
