package place

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

// Histories of members that join and leave one at a time: after each change
// every shard has R distinct holders, members hold and own equal numbers but
// for one, no more copies are new than the bound says, and a shard that
// somebody held is placed with a holder, so that it can be copied from there.
func TestPlaceMovesLittle(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		shards, copies := 1+rng.IntN(40), 1+rng.IntN(3)
		has := [][]bool{all(shards)}
		for range 12 {
			joined := len(has) == 1 || rng.IntN(2) == 0 && len(has) < 9
			var bound int
			if joined {
				has = append(has, make([]bool, shards))
				bound = copies * (shards + len(has)) / len(has)
			} else {
				bound = copies * (shards + len(has)) / len(has)
				out := rng.IntN(len(has))
				has = append(has[:out:out], has[out+1:]...)
			}
			if copies >= len(has) {
				bound = shards * len(has) // everybody holds everything
			}
			at := rng.IntN(len(has)) // ranks are not ages
			has[0], has[at] = has[at], has[0]
			if moved := place(t, has, shards, copies); moved > bound {
				t.Errorf("V=%d R=%d, joined=%v to P=%d: %d copies moved, bound %d", shards, copies, joined, len(has), moved, bound)
			}
		}
	}
}

// place checks a placement, makes it true and returns how many copies were new.
func place(t *testing.T, has [][]bool, shards, copies int) (moved int) {
	t.Helper()
	holders := Place(has, shards, copies)
	if again := Place(has, shards, copies); !reflect.DeepEqual(again, holders) {
		t.Fatalf("%v, and then %v", holders, again)
	}
	members := len(has)
	r := min(copies, members)
	holds, owns := make([]int, members), make([]int, members)
	next := make([][]bool, members)
	for m := range next {
		next[m] = make([]bool, shards)
	}
	for v, list := range holders {
		if len(list) != r {
			t.Fatalf("shard %d has %d holders, want %d", v, len(list), r)
		}
		owns[list[0]]++
		for _, m := range list {
			if next[m][v] {
				t.Fatalf("shard %d is twice with member %d", v, m)
			}
			next[m][v] = true
			holds[m]++
			if !has[m][v] {
				moved++
			}
		}
	}
	for m := range next {
		if n := shards * r / members; holds[m] < n || holds[m] > n+1 {
			t.Fatalf("member %d of %d holds %d of %d × %d", m, members, holds[m], r, shards)
		}
		if n := shards / members; owns[m] < n || owns[m] > n+1 {
			t.Fatalf("member %d of %d owns %d of %d", m, members, owns[m], shards)
		}
		copy(has[m], next[m])
	}
	return moved
}

func all(n int) []bool {
	list := make([]bool, n)
	for i := range list {
		list[i] = true
	}
	return list
}

// A start from a seed or a checkpoint: everybody has everything, nothing moves.
func TestPlaceFromScratch(t *testing.T) {
	for members := 1; members <= 6; members++ {
		for _, shards := range []int{1, 5, 16, 64} {
			var has [][]bool
			for range members {
				has = append(has, all(shards))
			}
			if moved := place(t, has, shards, 2); moved != 0 {
				t.Errorf("%d members, %d shards: %d copies moved", members, shards, moved)
			}
			if moved := place(t, has, shards, 2); moved != 0 {
				t.Errorf("%d members, %d shards: %d copies moved the second time", members, shards, moved)
			}
		}
	}
}

func TestPlaceManyShards(t *testing.T) {
	has := make([][]bool, 8)
	for m := range has {
		has[m] = all(2048)
	}
	place(t, has, 2048, 2)
	has = append(has, make([]bool, 2048))
	if moved := place(t, has, 2048, 2); moved > 2*(2048+9)/9 {
		t.Errorf("%d copies moved to a joiner", moved)
	}
	if moved := place(t, has[1:], 2048, 2); moved > 2*(2048+9)/9 {
		t.Errorf("%d copies moved from a leaver", moved)
	}
}

func ExamplePlace() {
	both, neither := []bool{true, true, true, true}, make([]bool, 4)
	holders := Place([][]bool{both, both, neither}, 4, 2) // a third member joins
	fmt.Println(holders)
	fmt.Println(Transfers([][]bool{both, both, neither}, holders))
	// Output:
	// [[1 2] [0 1] [0 1] [2 0]]
	// [{0 0 [2]} {3 1 [2]}]
}

// After the transfers everybody holds what was wanted; only holders send, to
// members that lack it, each shard once; and no other holder of a shard had less
// to send than the one chosen.
func TestTransfersMakeItSo(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		shards, members, copies := 1+rng.IntN(12), 1+rng.IntN(6), 1+rng.IntN(3)
		has := make([][]bool, members)
		for m := range has {
			has[m] = make([]bool, shards)
		}
		for v := range shards {
			has[rng.IntN(members)][v] = true
			for m := range members {
				has[m][v] = has[m][v] || rng.IntN(3) == 0
			}
		}
		want := Place(has, shards, copies)
		sends := make([]int, members)
		last := -1
		for _, tr := range Transfers(has, want) {
			if tr.Shard <= last || !has[tr.From][tr.Shard] || len(tr.To) == 0 {
				t.Fatalf("%+v after shard %d, of %v", tr, last, has)
			}
			last = tr.Shard
			for m := range members {
				if has[m][tr.Shard] && sends[m] < sends[tr.From] {
					t.Fatalf("%d sends %d although %d sends less: %v", tr.From, tr.Shard, m, sends)
				}
			}
			sends[tr.From]++
			for _, m := range tr.To {
				if has[m][tr.Shard] {
					t.Fatalf("%d gets shard %d, which it holds", m, tr.Shard)
				}
				has[m][tr.Shard] = true
			}
		}
		for v, holders := range want {
			for _, m := range holders {
				if !has[m][v] {
					t.Fatalf("%d lacks shard %d in the end", m, v)
				}
			}
		}
	}
}
