package replica_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"mochi/coordinator/protocol/config"
	"mochi/replica"
	"mochi/replica/replicatest/cluster"
)

// groupsConfig is a job of six groups of two samples, n at once.
func groupsConfig(n int, copies string) config.Job {
	cfg := spreadConfig(copies)
	cfg.Steps, cfg.GroupsAtOnce = 3, n
	return cfg
}

// Results depend neither on how many replicas share the units of work, nor on
// how the queue is spread. They are those of one group at a time, whether the
// engine cannot compute several at once (it then runs one after the other) or
// can and gives a group the same bits; and where it does not, those of
// --groups-at-once.
func TestGroupsAtOnceAgree(t *testing.T) {
	changed := stagedCounts.changed.Load()
	one := runCluster(t, groupsConfig(1, "all"), 1, nil)
	for _, engine := range []struct {
		name   string
		open   replica.OpenEngine
		rounds bool
	}{
		{"one by one", openTestEngine, false},
		{"together", openTogether(false), false},
		{"together, rounding by how many", openTogether(true), true},
	} {
		t.Run(engine.name, func(t *testing.T) {
			losses := [][]float64{one.Losses}
			for _, n := range []int{2, 3, 6} {
				want := one
				if engine.rounds {
					want = cluster.Run(t, engine.open, groupsConfig(n, "all"), 1, nil)
					for _, other := range losses {
						if slices.Equal(other, want.Losses) {
							t.Errorf("%d at once: the losses of another number: the test shows nothing", n)
						}
					}
					losses = append(losses, want.Losses)
				}
				for _, copies := range []string{"all", "2"} {
					for world := 1; world <= 6/n; world++ {
						if !engine.rounds && world < 6/n {
							continue // one world is as good as another
						}
						got := cluster.Run(t, engine.open, groupsConfig(n, copies), world, nil)
						if !slices.Equal(got.Losses, want.Losses) {
							t.Errorf("%d at once, %d replicas, copies %s: losses %v, want %v", n, world, copies, got.Losses, want.Losses)
						}
						equalStates(t, got.Last(), want.Last())
					}
				}
			}
		})
	}
	if n := stagedCounts.changed.Load() - changed; n != 0 {
		t.Errorf("%d staged images had changed before they were used", n)
	}
}

// A member dies while others compute several groups at once: its units go to
// them, whole, and the job ends as if nothing had been.
func TestMemberDiesWithGroupsAtOnce(t *testing.T) {
	open := openTogether(true)
	for _, copies := range []string{"all", "2"} {
		cfg := groupsConfig(2, copies)
		cfg.Steps = 8
		calm := cluster.Run(t, open, cfg, 1, nil)
		var mu sync.Mutex
		var rounds []string
		killed := false
		got := cluster.Run(t, open, cfg, 3, func(r *replica.Replica, l *cluster.Link, step int64) {
			mu.Lock()
			defer mu.Unlock()
			round, rank := l.Seat()
			if deal := fmt.Sprint(round.Members); rank >= 0 && !slices.Contains(rounds, deal) {
				rounds = append(rounds, deal)
				for _, m := range round.Members {
					if len(m.Groups)%2 != 0 || m.Groups[0]%2 != 0 {
						t.Errorf("copies %s: a unit is split: %s", copies, deal)
					}
				}
			}
			if step == 4 && rank == 1 && !killed { // ranks change at once
				killed = true
				l.Kill()
			}
		})
		if got.Count("replica lost") != 1 || len(rounds) != 2 {
			t.Errorf("copies %s: rounds %q; %q", copies, rounds, got.Events)
		}
		if !slices.Equal(got.Losses, calm.Losses) {
			t.Errorf("copies %s: losses %v, want %v", copies, got.Losses, calm.Losses)
		}
		equalStates(t, got.Last(), calm.Last())
	}
}
