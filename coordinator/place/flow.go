package place

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

// solve places as many units as fit: first what is free, then what has to be
// paid. Free direct edges alone are a flow of cost 0, so shortest paths from
// there on keep it optimal.
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
