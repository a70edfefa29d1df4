// Package place decides which members of a round hold which shards of the
// negative queue, and which copies have to be sent to make it so. It is pure:
// both functions work on numbers alone.
//
// Slot i of the queue belongs to shard i mod V. With --queue-copies all every
// member holds all shards and nothing is placed. With R copies a member holds
// R/P of the shards (P members), and this is what changes:
//
//   - Who holds what is Place: R distinct holders a shard (all members, when
//     they are fewer), equal shares, and the fewest new copies, at most
//     R·(V/P + 1) when one member joins or leaves. It travels in
//     protocol.Round.Holders, the owner first. There is no other record of it:
//     a coordinator that starts again learns from each Hello which shards a
//     replica holds, with their digests.
//   - What is missing is Transfers: a holder sends it around the ring before
//     the round's first step (protocol.Round.Transfers). What a member gives up
//     it keeps until that step is committed: before, it may be the last copy.
//   - A checkpoint is complete as ever: the owners send their shards to rank 0
//     right after the commit. If a member dies meanwhile rank 0 says so
//     (protocol.Failed.Unsaved), and the next commit, or at the end a round
//     without a step (protocol.Round.Save), tries again.
//   - If no copy of a shard is left (R members lost at once), the job goes back
//     to the last checkpoint: event "shards lost", then "rolled back".
//
// Copies that differ although they should not are the matter of package
// copies; how the loss is computed over a queue that is spread, that of
// package replica.
//
// Placing is a flow of least cost, solved by shortest augmenting paths (Ahuja,
// Magnanti and Orlin, Network Flows, chapter 9). Cost: O(V·R) paths, each
// O(V·P) where nothing moves; 8 members and 2,048 shards take milliseconds.
package place

import (
	"cmp"
	"slices"
)

// Place says which members hold which of the queue's virtual shards: for each
// shard `copies` distinct members (all of them when there are fewer), by
// index, the owner first. The owner evaluates the shard in the loss.
//
// has[m] lists, by shard, what member m holds already. What is held stays
// where it is as far as balance allows: every member ends with ⌊V·R/P⌋ or
// ⌈V·R/P⌉ shards and owns ⌊V/P⌋ or ⌈V/P⌉, and as few copies as possible are
// new. So when one member joins or leaves, at most R·(V/P + 1) copies have to
// be sent, V/P + 1 for each of the R, where P counts that member (all V when
// there are not more than R members: each holds everything). A change of owner
// alone sends nothing. The result is a function of the arguments alone.
//
// Placing is a flow of least cost from shards (R units each) to members (their
// share), a held copy for nothing and a new one for 1; owning is another, over
// the holders. Both are integral and exist: spreading each shard evenly over
// its holders is a fractional solution.
func Place(has [][]bool, shards, copies int) [][]int {
	members := len(has)
	copies = min(copies, members)
	held := make([]int, members)
	for m := range has {
		for _, h := range has[m] {
			if h {
				held[m]++
			}
		}
	}
	f := newFlow(shards, members, func(v, m int) int {
		if has[m][v] {
			return 0
		}
		return 1
	})
	shares(f.room, shards*copies, held)
	for v := range shards {
		f.need[v] = copies
	}
	f.solve()

	holders := make([][]int, shards)
	for v, owner := range owners(f.uses, members) {
		holders[v] = append(holders[v], owner)
		for m := range members {
			if f.uses[v][m] && m != owner {
				holders[v] = append(holders[v], m)
			}
		}
	}
	return holders
}

// owners chooses one of each shard's holders, holds[v][m], so that members own
// equal numbers but for one.
//
// Which members own one more than the others is for the flow to find: first
// everybody's floor, then one more where it fits. What has been reached an
// augmenting path never takes away.
func owners(holds [][]bool, members int) []int {
	f := newFlow(len(holds), members, func(v, m int) int {
		if holds[v][m] {
			return 0
		}
		return impossible
	})
	for m := range f.room {
		f.room[m] = len(holds) / members
	}
	for v := range f.need {
		f.need[v] = 1
	}
	f.solve()
	for m := range f.room {
		f.room[m]++
	}
	f.solve()
	owner := make([]int, len(holds))
	for v := range owner {
		owner[v] = slices.Index(f.uses[v], true)
	}
	return owner
}

// shares gives every member an equal part of total as its room; those that
// hold most get the remainder.
func shares(room []int, total int, held []int) {
	order := make([]int, len(room))
	for m := range order {
		order[m] = m
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(held[b], held[a]) })
	for i, m := range order {
		room[m] = total / len(room)
		if i < total%len(room) {
			room[m]++
		}
	}
}
