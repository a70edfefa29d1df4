package replica

import (
	"testing"

	"mochi/coordinator/protocol"
)

// A member that is to hold a shard of which it has no copy, and that nobody sends
// to it, says so before it computes with nothing.
func TestShardThatNobodySends(t *testing.T) {
	job := smallJob()
	job.Queue, job.QueueShards, job.QueueCopies = 12, 4, "1"
	n := newNegatives(job)
	all := make([][]int, n.Shards())
	for v := range all {
		all[v] = []int{0}
	}
	in := func(source protocol.Source, holders [][]int) *membership {
		return &membership{Round: protocol.Round{Members: []protocol.Member{{State: source}, {}}, Holders: holders}}
	}
	self := func(holders [][]int) *membership { return in(protocol.FromSelf, holders) }
	n.seat(in(protocol.FromSeed, all))
	n.Init(1)
	n.seat(self(all))
	if v, lacks := n.lacking(); lacks {
		t.Errorf("it lacks shard %d of all", v)
	}
	fewer := make([][]int, n.Shards())
	for v := range fewer {
		fewer[v] = []int{v % 2}
	}
	n.seat(self(fewer))
	n.release() // the round's first commit: shards 1, 3, … are gone
	if v, lacks := n.lacking(); lacks {
		t.Errorf("it lacks shard %d of its own", v)
	}
	n.seat(self(all))
	if v, lacks := n.lacking(); !lacks || v != 1 {
		t.Errorf("lacks %v, shard %d; it has no copy of shard 1", lacks, v)
	}
}
