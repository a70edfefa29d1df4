package coordinator

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
	share(f.room, shards*copies, held)
	for v := range shards {
		f.need[v] = copies
	}
	f.solve()

	// Which members own one more than the others is for the flow to find: first
	// everybody's floor, then one more where it fits. What has been reached an
	// augmenting path never takes away.
	owners := newFlow(shards, members, func(v, m int) int {
		if f.uses[v][m] {
			return 0
		}
		return impossible
	})
	for m := range owners.room {
		owners.room[m] = shards / members
	}
	for v := range shards {
		owners.need[v] = 1
	}
	owners.solve()
	for m := range owners.room {
		owners.room[m]++
	}
	owners.solve()

	holders := make([][]int, shards)
	for v := range shards {
		for m := range members {
			if f.uses[v][m] {
				holders[v] = append(holders[v], m)
			}
		}
		slices.SortStableFunc(holders[v], func(a, b int) int {
			first := func(m int) int {
				if owners.uses[v][m] {
					return 0
				}
				return 1
			}
			return cmp.Compare(first(a), first(b))
		})
	}
	return holders
}

// share splits total evenly; those that hold most get the remainder.
func share(room []int, total int, held []int) {
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

// flow gives each shard some distinct members within the members' room, at
// least cost, by shortest augmenting paths.
type flow struct {
	cost  func(shard, member int) int
	need  []int // units a shard still wants
	room  []int // units a member still takes
	uses  [][]bool
	reach []hop // scratch: how each node is reached
}

type hop struct {
	cost int
	from int // node before, −1 at a path's start
}

const impossible = 1 << 20

func newFlow(shards, members int, cost func(shard, member int) int) *flow {
	f := &flow{cost: cost, need: make([]int, shards), room: make([]int, members), uses: make([][]bool, shards), reach: make([]hop, shards+members)}
	for v := range f.uses {
		f.uses[v] = make([]bool, members)
	}
	return f
}

// solve places as many units as fit. It first takes what is free and then pays. Free direct edges alone are a
// flow of cost 0, so shortest paths from there on keep it optimal.
func (f *flow) solve() {
	for v := range f.need {
		for f.need[v] > 0 && f.direct(v, 0) {
		}
	}
	for v := range f.need {
		for f.need[v] > 0 && f.augment(v) {
		}
	}
}

// direct gives shard v the member with most room among those that cost so
// much.
func (f *flow) direct(v, cost int) bool {
	best := -1
	for m, room := range f.room {
		if room > 0 && !f.uses[v][m] && f.cost(v, m) == cost && (best < 0 || room > f.room[best]) {
			best = m
		}
	}
	if best < 0 {
		return false
	}
	f.uses[v][best] = true
	f.need[v]--
	f.room[best]--
	return true
}

// augment finds the cheapest way to give shard v one more member, moving
// others' units if need be (Bellman and Ford's shortest paths). False: there
// is no room that it can reach.
func (f *flow) augment(v int) bool {
	shards := len(f.need)
	for i := range f.reach {
		f.reach[i] = hop{impossible, -1}
	}
	f.reach[v] = hop{0, -1}
	queue, queued := []int{v}, make([]bool, len(f.reach))
	relax := func(to, cost, from int) {
		if cost < f.reach[to].cost {
			f.reach[to] = hop{cost, from}
			if !queued[to] {
				queued[to] = true
				queue = append(queue, to)
			}
		}
	}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		queued[n] = false
		at := f.reach[n].cost
		if n < shards {
			for m := range f.room {
				if !f.uses[n][m] {
					if c := f.cost(n, m); c < impossible {
						relax(shards+m, at+c, n)
					}
				}
			}
			continue
		}
		for w := range f.uses { // member n gives w up
			if m := n - shards; f.uses[w][m] {
				relax(w, at-f.cost(w, m), n)
			}
		}
	}
	best := -1
	for m, room := range f.room {
		if n := shards + m; room > 0 && f.reach[n].cost < impossible && (best < 0 || f.reach[n].cost < f.reach[best].cost) {
			best = n
		}
	}
	if best < 0 {
		return false
	}
	f.room[best-shards]--
	f.need[v]--
	for n := best; n >= 0; n = f.reach[n].from {
		from := f.reach[n].from
		switch {
		case from < 0:
		case n >= shards:
			f.uses[from][n-shards] = true
		default:
			f.uses[n][from-shards] = false
		}
	}
	return true
}
