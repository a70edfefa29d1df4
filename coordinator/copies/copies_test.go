package copies_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"mochi/coordinator/copies"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/roster"
)

// holding makes replicas that hold the state after step 1 and these shards, as
// digests; "" for a shard that one does not hold.
func holding(shards ...[]string) []*roster.Replica {
	s := roster.New()
	var list []*roster.Replica
	for i, digests := range shards {
		id := fmt.Sprintf("r%d", i)
		r := s.Admit(protocol.Hello{ID: id, Name: id}, time.Unix(0, 0))
		r.Holds(1, "s", digests)
		list = append(list, r)
	}
	return list
}

func none(*roster.Replica, int) bool { return false }

func ExampleCopies_DropOddCopies() {
	c := copies.New(config.Job{QueueShards: 2, QueueCopies: "all", Pairs: "shard"})
	all := holding([]string{"x", "y"}, []string{"x", "?"}, []string{"x", "y"})
	for _, e := range c.DropOddCopies(1, func(int) []*roster.Replica { return all }, none) {
		fmt.Printf("%s, shard %d: %d agree, repaired from %s\n", e.Name, e.Shard, e.Majority, e.RepairedFrom)
	}
	fmt.Println(c.Repairs(), all[1].Shard(1) == "")
	// Output:
	// r1, shard 1: 2 agree, repaired from r0 (r0)
	// 1 true
}

// Of two copies that differ, the one is wrong whose holder says so.
func TestDamagedCopy(t *testing.T) {
	c := copies.New(config.Job{QueueShards: 1, QueueCopies: "all", Pairs: "shard"})
	all := holding([]string{"x"}, []string{"y"})
	dropped := c.DropOddCopies(1, func(int) []*roster.Replica { return all }, func(r *roster.Replica, _ int) bool { return r == all[0] })
	if len(dropped) != 1 || dropped[0].ID != "r0" || all[1].Shard(0) != "y" {
		t.Errorf("%+v", dropped)
	}
	if again := c.DropOddCopies(1, func(int) []*roster.Replica { return all }, none); len(again) > 0 {
		t.Errorf("%+v", again)
	}
}

// A replica that reports no shards holds all of them, unless they are spread.
func TestUnreportedShards(t *testing.T) {
	for label, want := range map[string]bool{"all": true, "2": false} {
		c := copies.New(config.Job{QueueShards: 3, QueueCopies: label})
		if got := c.Covered(holding(nil)...); got != want {
			t.Errorf("copies %s: %v", label, got)
		}
	}
}

// Where a few holders have the whole queue between them, such are chosen.
func TestChooseCovering(t *testing.T) {
	c := copies.New(config.Job{QueueShards: 4, QueueCopies: "2"})
	all := holding([]string{"a", "b", "", ""}, []string{"a", "b", "", ""}, []string{"", "", "c", "d"}, []string{"", "b", "c", ""})
	if got := c.Lacking(all[:2]); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("lacking %v", got)
	}
	chosen := c.ChooseCovering(all, 2)
	if len(chosen) != 2 || !c.Covered(chosen...) || chosen[0] != all[0] || chosen[1] != all[2] {
		t.Errorf("%v", chosen)
	}
	if got := c.ChooseCovering(all, 4); !slices.Equal(got, all) {
		t.Errorf("all fit: %v", got)
	}
}

// With all copies joiners get the queue with the state, and only a holder that
// lacks a shard is sent it; with R copies, who is to hold it is.
func TestArrange(t *testing.T) {
	all := holding([]string{"a", "b"}, []string{"a", ""}, nil)
	holders := all[:2]
	a := copies.New(config.Job{QueueShards: 2, QueueCopies: "all", Pairs: "shard"}).Arrange(all, holders)
	if a.Spread() || len(a.Transfers) != 1 || a.Transfers[0].Shard != 1 || !slices.Equal(a.Transfers[0].To, []int{1}) || a.Transfers[0].Digest != "b" {
		t.Errorf("%+v", a)
	}
	c := copies.New(config.Job{QueueShards: 2, QueueCopies: "2"})
	a = c.Arrange(all, holders)
	sent := 0
	for _, tr := range a.Transfers {
		sent += len(tr.To)
	}
	if !a.Spread() || len(a.Holders) != 2 || sent == 0 || c.Moved() != sent {
		t.Errorf("%+v, moved %d", a, c.Moved())
	}
	if a = c.Arrange(all, nil); len(a.Transfers) > 0 {
		t.Errorf("everybody starts with a whole queue: %+v", a.Transfers)
	}
}
