package place

import "slices"

// Transfer is one shard on its way around the ring: From sends it, the members
// of To keep it. Members are indices, in the order of their ranks.
type Transfer struct {
	Shard int
	From  int
	To    []int
}

// Transfers lists the copies that have to be made so that every member named
// in want[v] holds shard v, in the order of the shards. has[m] lists, by shard,
// what member m holds already, as for Place. Each is sent by the holder that
// sends least so far, the lowest rank among equals. Every shard that somebody
// lacks must have a holder.
func Transfers(has [][]bool, want [][]int) []Transfer {
	var list []Transfer
	sends := make([]int, len(has))
	for v := range want {
		t := Transfer{Shard: v, From: -1}
		for m := range has {
			switch {
			case has[m][v]:
				if t.From < 0 || sends[m] < sends[t.From] {
					t.From = m
				}
			case slices.Contains(want[v], m):
				t.To = append(t.To, m)
			}
		}
		if len(t.To) > 0 {
			sends[t.From]++
			list = append(list, t)
		}
	}
	return list
}
