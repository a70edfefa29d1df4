// Package copies watches over the copies of the negative queue's shards: which
// replicas have sound ones, which copies are odd, whether some replicas hold
// the whole queue between them, and what must be sent when members change.
//
// With --queue-copies all every member holds every shard and nothing is
// placed; with R copies package place says who holds what. Either way copies
// are compared at every commit, and after it each replica reads a part of its
// queue again: a shard that no longer matches its own checksums is the wrong
// one of two. Only the odd copy is replaced, in a new round. A step that was
// computed between the fault and the next comparison may have seen the wrong
// copy; then all members saw the same.
package copies

import (
	"fmt"
	"slices"
	"strings"

	"mochi/coordinator/event"
	"mochi/coordinator/place"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/roster"
)

// Copies are the copies of a job's queue.
type Copies struct {
	shards int // V
	each   int // R; 0: every member holds all

	repairs int // copies that were found odd and replaced
	moved   int // copies that were sent because members came or went
}

// New is for a job's queue.
func New(job config.Job) *Copies {
	return &Copies{shards: max(job.Shards(), 1), each: job.Copies()}
}

// Shards is V.
func (c *Copies) Shards() int { return c.shards }

// Repairs is how many copies were replaced because they differed.
func (c *Copies) Repairs() int { return c.repairs }

// Moved is how many copies were sent because members came or went.
func (c *Copies) Moved() int { return c.moved }

// has says whether a replica that holds the job's state has a sound copy of a
// shard. One that does not report shards holds all, unless they are spread.
func (c *Copies) has(r *roster.Replica, v int) bool {
	if !r.ReportsShards() {
		return c.each == 0
	}
	return r.Shard(v) != ""
}

// Lacking lists the shards that none of some holders of the state has.
func (c *Copies) Lacking(holders []*roster.Replica) (missing []int) {
	for v := range c.shards {
		if !slices.ContainsFunc(holders, func(r *roster.Replica) bool { return c.has(r, v) }) {
			missing = append(missing, v)
		}
	}
	return missing
}

// Covered says whether some holders of the state have all shards between them.
func (c *Copies) Covered(holders ...*roster.Replica) bool { return len(c.Lacking(holders)) == 0 }

// ChooseCovering chooses limit of the holders, or all when they are fewer,
// such that they have all shards between them where that is possible. Their
// order stays.
func (c *Copies) ChooseCovering(holders []*roster.Replica, limit int) []*roster.Replica {
	if len(holders) <= limit {
		return holders
	}
	var chosen []*roster.Replica
	for len(chosen) < limit {
		var next *roster.Replica
		fewest := 0
		for _, r := range holders {
			if slices.Contains(chosen, r) {
				continue
			}
			if n := len(c.Lacking(append(chosen[:len(chosen):len(chosen)], r))); next == nil || n < fewest {
				next, fewest = r, n
			}
		}
		chosen = append(chosen, next)
	}
	return slices.DeleteFunc(slices.Clone(holders), func(r *roster.Replica) bool { return !slices.Contains(chosen, r) })
}

// DropOddCopies compares the copies of each shard and gives up those that are
// damaged or differ from most others, in a tie from the first. holders lists
// the replicas whose copies of a shard are compared, its owner first; damaged
// says what a holder found out itself. It reports each copy that it gave up.
func (c *Copies) DropOddCopies(step int64, holders func(v int) []*roster.Replica, damaged func(r *roster.Replica, v int) bool) []event.ShardMismatch {
	var dropped []event.ShardMismatch
	for v := range c.shards {
		var sound, odd []*roster.Replica
		for _, r := range holders(v) {
			switch {
			case r.Shard(v) == "":
			case damaged(r, v):
				odd = append(odd, r)
			default:
				sound = append(sound, r)
			}
		}
		majority, others := roster.Majority(sound, func(r *roster.Replica) string { return r.Shard(v) })
		for _, r := range append(others, odd...) {
			r.DropShard(v)
			from := "nobody"
			if len(majority) > 0 {
				from = majority[0].String()
				c.repairs++
			}
			dropped = append(dropped, event.ShardMismatch{
				Replica: event.Replica{Name: r.Name(), ID: r.ID()}, Step: step, Shard: v, Majority: len(majority), RepairedFrom: from,
			})
		}
	}
	return dropped
}

// Arrangement is who holds which shard in a round, and what is sent for it, as
// protocol.Round has it.
type Arrangement struct {
	Holders   [][]int // ranks by shard, the owner first; none when every member holds all
	Transfers []protocol.Transfer
}

// Spread says whether shards are placed; otherwise every member holds all.
func (a Arrangement) Spread() bool { return len(a.Holders) > 0 }

// Arrange decides who holds which shard in a round and what must be sent.
// holders are those of the members that have the state already; without any,
// all members get a whole queue from the seed or a checkpoint.
func (c *Copies) Arrange(members, holders []*roster.Replica) Arrangement {
	has := make([][]bool, len(members))
	var stay []int // ranks of the holders; joiners get the queue with the state
	for rank, m := range members {
		holds := slices.Contains(holders, m)
		if holds {
			stay = append(stay, rank)
		}
		has[rank] = make([]bool, c.shards)
		for v := range has[rank] {
			has[rank][v] = len(holders) == 0 || holds && c.has(m, v)
		}
	}
	var a Arrangement
	want := slices.Repeat([][]int{stay}, c.shards)
	if c.each > 0 {
		a.Holders = place.Place(has, c.shards, c.each)
		want = a.Holders
	}
	for _, t := range place.Transfers(has, want) {
		a.Transfers = append(a.Transfers, protocol.Transfer{Shard: t.Shard, From: t.From, To: t.To, Digest: members[t.From].Shard(t.Shard)})
		c.moved += len(t.To)
	}
	return a
}

// Words names shards for people: "shard 3", "shards 1 4".
func Words(shards []int) string {
	if len(shards) == 1 {
		return fmt.Sprintf("shard %d", shards[0])
	}
	return "shards " + strings.Trim(fmt.Sprint(shards), "[]")
}
