package replica_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"mochi/coordinator/protocol/config"
	"mochi/replica"
	"mochi/replica/checkpoint"
	"mochi/replica/replicatest/cluster"
)

// runCluster trains with n replicas until the job is over.
func runCluster(t *testing.T, cfg config.Job, n int, applied cluster.Applied) *cluster.Cluster {
	t.Helper()
	return cluster.Run(t, openTestEngine, cfg, n, applied)
}

func spreadConfig(copies string) config.Job {
	cfg := testConfig()
	cfg.Batch, cfg.BNGroup = 12, 2
	cfg.QueueShards, cfg.QueueCopies, cfg.Pairs, cfg.MoCHiWarmup = 6, copies, "shard", 0
	cfg.Steps, cfg.CheckpointEvery, cfg.KNNEvery = 12, 5, 0
	return cfg
}

// A bit flips in a copy that nobody evaluates: found at the next commit,
// replaced, reported, counted, and nothing of it is left: losses and state are
// those of a run without. A bit flips in the owner's copy, in one that all
// hold, once more in another: found and replaced alike, and the step before
// the comparison is the only one that saw it.
func TestFlippedBitIsRepaired(t *testing.T) {
	calm := runCluster(t, spreadConfig("2"), 3, nil)
	victims := map[int64]int{1: 0, 4: 1, 7: 2} // the rank whose memory changes after a step
	for _, c := range []struct {
		name, copies string
		owner        bool
	}{{"copy", "2", false}, {"owner", "2", true}, {"all", "all", true}, {"one of three", "3", false}} {
		t.Run(c.name, func(t *testing.T) {
			var flipped []string // by the events that they must lead to
			var mu sync.Mutex
			got := runCluster(t, spreadConfig(c.copies), 3, func(r *replica.Replica, l *cluster.Link, step int64) {
				round, rank := l.Seat()
				if victim, chosen := victims[step]; !chosen || rank != victim {
					return
				}
				shard := int(step) % 6
				for v, h := range round.Holders {
					if slices.Contains(h, rank) && (h[0] == rank) == c.owner {
						shard = v
					}
				}
				r.FlipBit(shard, 5) // a slot that the next batch does not overwrite
				mu.Lock()
				flipped = append(flipped, fmt.Sprintf("shard mismatch shard=%d replica=%s", shard, l.ID))
				mu.Unlock()
			})
			var found []string
			for _, e := range got.Events {
				if strings.HasPrefix(e, "shard mismatch") {
					found = append(found, e)
				}
			}
			if len(flipped) == 0 || !slices.Equal(found, flipped) {
				t.Errorf("flipped %q, found %q", flipped, found)
			}
			if q := got.Core.Status().Queue; q.Repairs != len(flipped) || got.Count("digest mismatch") > 0 || got.Count("rolled back") > 0 {
				t.Errorf("%d flips: %+v; %q", len(flipped), q, got.Events)
			}
			if !c.owner {
				if !slices.Equal(got.Losses, calm.Losses) {
					t.Errorf("losses %v, want %v", got.Losses, calm.Losses)
				}
				equalStates(t, got.Last(), calm.Last())
			}
		})
	}
}

// With one member there is no other copy: the job goes back to its checkpoint
// and ends as if nothing had been.
func TestFlippedBitWithoutACopy(t *testing.T) {
	calm := runCluster(t, spreadConfig("all"), 1, nil)
	flipped := false
	got := runCluster(t, spreadConfig("all"), 1, func(r *replica.Replica, l *cluster.Link, step int64) {
		if step == 8 && !flipped {
			flipped = true
			r.FlipBit(3, 1)
		}
	})
	if got.Count("shards lost") != 1 || got.Count("rolled back") != 1 {
		t.Errorf("%q", got.Events)
	}
	equalStates(t, got.Last(), calm.Last())
}

// A queue stored as bf16: spread, on all members or on one, the losses and the
// state are the same bits, and not those of fp32. The keys of its checkpoint
// are bfloat16. A flipped bit is found and replaced.
func TestQueueInBF16(t *testing.T) {
	config := func(copies, storage string) config.Job {
		cfg := spreadConfig(copies)
		cfg.QueueStorage = storage
		return cfg
	}
	one := runCluster(t, config("all", "bf16"), 1, nil)
	for i, x := range one.Last().Queue {
		if math.Float32bits(x)&0xffff != 0 {
			t.Fatalf("element %d of the queue is %v, not a bfloat16", i, x)
		}
	}
	for _, copies := range []string{"all", "2"} {
		flipped := false
		got := runCluster(t, config(copies, "bf16"), 3, func(r *replica.Replica, l *cluster.Link, step int64) {
			round, rank := l.Seat()
			if step != 4 || rank != 2 || flipped {
				return
			}
			flipped = true
			for v, h := range round.Holders {
				if slices.Contains(h, rank) && h[0] != rank {
					r.FlipBit(v, 5)
					return
				}
			}
			r.FlipBit(3, 5)
		})
		if q := got.Core.Status().Queue; q.Repairs != 1 {
			t.Errorf("copies %s: %+v; %q", copies, q, got.Events)
		}
		if copies == "2" { // nobody evaluates the copy that was flipped
			if !slices.Equal(got.Losses, one.Losses) {
				t.Errorf("copies %s: losses %v, want %v", copies, got.Losses, one.Losses)
			}
			equalStates(t, got.Last(), one.Last())
		}
	}
	if calm := runCluster(t, config("all", "bf16"), 3, nil); !slices.Equal(calm.Losses, one.Losses) {
		t.Errorf("copies all: losses %v, want %v", calm.Losses, one.Losses)
	}
	exact := runCluster(t, config("all", "auto"), 1, nil) // so short a queue is fp32
	if slices.Equal(exact.Losses, one.Losses) {
		t.Error("fp32 and bf16 give the same losses: is it stored as asked?")
	}
	for i := range exact.Losses {
		if math.Abs(exact.Losses[i]-one.Losses[i]) > 0.05*exact.Losses[i] {
			t.Errorf("step %d: loss %g in bf16, %g in fp32", i+1, one.Losses[i], exact.Losses[i])
		}
	}
}

// A member holds R/P of the queue, give or take a shard.
func TestSpreadQueueIsSpread(t *testing.T) {
	c := runCluster(t, spreadConfig("2"), 3, func(r *replica.Replica, l *cluster.Link, step int64) {
		if want := 4 * 7 * 16 * 4; r.QueueBytes() > want { // K = 37: a shard has 6 or 7 rows
			t.Errorf("%s holds %d bytes of keys after step %d, want at most %d", l.ID, r.QueueBytes(), step, want)
		}
	})
	for _, l := range c.Links {
		if l.Most != 4 {
			t.Errorf("%s held %d of 6 shards, want 4", l.ID, l.Most)
		}
	}
}

func equalStates(t *testing.T, a, b *checkpoint.State) {
	t.Helper()
	if x, y := checkpoint.Digest(a.QueryParams, a.KeyParams, a.Momentum, a.QueryBuffers, a.KeyBuffers, a.Queue),
		checkpoint.Digest(b.QueryParams, b.KeyParams, b.Momentum, b.QueryBuffers, b.KeyBuffers, b.Queue); x != y {
		t.Error("the states differ")
	}
	if !slices.Equal(a.QueueLabels, b.QueueLabels) || a.QueuePtr != b.QueuePtr || a.Step != b.Step {
		t.Error("labels or positions differ")
	}
}
