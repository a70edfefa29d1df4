package replica_test

import (
	"fmt"
	"slices"
	"testing"

	"mochi/coordinator/protocol/config"
	"mochi/replica"
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
	changed := replica.ChangedWhileStaged()
	one := runCluster(t, groupsConfig(1, "all"), 1, nil)
	for _, engine := range []struct {
		name   string
		open   replica.OpenEngine
		rounds bool
	}{
		{"one by one", replica.OpenTestEngine, false},
		{"together", replica.OpenTogether(false), false},
		{"together, rounding by how many", replica.OpenTogether(true), true},
	} {
		t.Run(engine.name, func(t *testing.T) {
			losses := [][]float64{one.losses}
			for _, n := range []int{2, 3, 6} {
				want := one
				if engine.rounds {
					want = runClusterOn(t, engine.open, groupsConfig(n, "all"), 1, nil)
					for _, other := range losses {
						if slices.Equal(other, want.losses) {
							t.Errorf("%d at once: the losses of another number: the test shows nothing", n)
						}
					}
					losses = append(losses, want.losses)
				}
				for _, copies := range []string{"all", "2"} {
					for world := 1; world <= 6/n; world++ {
						if !engine.rounds && world < 6/n {
							continue // one world is as good as another
						}
						got := runClusterOn(t, engine.open, groupsConfig(n, copies), world, nil)
						if !slices.Equal(got.losses, want.losses) {
							t.Errorf("%d at once, %d replicas, copies %s: losses %v, want %v", n, world, copies, got.losses, want.losses)
						}
						equalStates(t, got.last(), want.last())
					}
				}
			}
		})
	}
	if n := replica.ChangedWhileStaged() - changed; n != 0 {
		t.Errorf("%d staged images had changed before they were used", n)
	}
}

// A member dies while others compute several groups at once: its units go to
// them, whole, and the job ends as if nothing had been.
func TestMemberDiesWithGroupsAtOnce(t *testing.T) {
	open := replica.OpenTogether(true)
	for _, copies := range []string{"all", "2"} {
		cfg := groupsConfig(2, copies)
		cfg.Steps = 8
		calm := runClusterOn(t, open, cfg, 1, nil)
		var rounds []string
		killed := false
		got := runClusterOn(t, open, cfg, 3, func(r *replica.Replica, l *link, step int64) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if deal := fmt.Sprint(l.round.Members); l.rank >= 0 && !slices.Contains(rounds, deal) {
				rounds = append(rounds, deal)
				for _, m := range l.round.Members {
					if len(m.Groups)%2 != 0 || m.Groups[0]%2 != 0 {
						t.Errorf("copies %s: a unit is split: %s", copies, deal)
					}
				}
			}
			if step == 4 && l.rank == 1 && !killed { // ranks change at once
				killed = true
				l.kill(errKilled)
			}
		})
		if got.count("replica lost") != 1 || len(rounds) != 2 {
			t.Errorf("copies %s: rounds %q; %q", copies, rounds, got.events)
		}
		if !slices.Equal(got.losses, calm.losses) {
			t.Errorf("copies %s: losses %v, want %v", copies, got.losses, calm.losses)
		}
		equalStates(t, got.last(), calm.last())
	}
}
