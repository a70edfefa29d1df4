package coordinator

import (
	"testing"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/roster"
	"mochi/coordinator/round"
)

// Every KNNEvery epochs, the commit that takes the last sample of the epoch,
// or reaches over its end, is evaluated.
func TestEvaluatedCommits(t *testing.T) {
	const batch, samples = 4, 10
	for every, want := range map[int][]int64{0: nil, 1: {3, 5, 8, 10}, 2: {5, 10}} {
		var got []int64
		for step := int64(1); step <= 10; step++ {
			if evaluated(&protocol.Commit{Step: step, Cursor: (step - 1) * batch, Batch: batch}, every, samples) {
				got = append(got, step)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("every %d epochs: steps %v, want %v", every, got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("every %d epochs: steps %v, want %v", every, got, want)
			}
		}
	}
}

// A job that goes on with another batch has as many steps more as the samples
// that are left fill; one that does not, as many as ever.
func TestTotalCountsSamplesLeft(t *testing.T) {
	for _, c := range []struct {
		step, cursor int64
		batch        int
		want         int64
	}{{0, 0, 16, 19}, {2, 32, 16, 19}, {19, 304, 16, 19}, {2, 32, 12, 25}, {2, 32, 300, 3}, {18, 288, 1, 30}} {
		core := NewCore(CoreConfig{
			Training:   config.Job{Batch: c.batch, Epochs: 3},
			Data:       protocol.Data{Kind: "idx", Train: 100},
			Checkpoint: &Checkpoint{Step: c.step, Cursor: c.cursor},
		})
		if got := core.Total(); got != c.want {
			t.Errorf("%+v: %d steps in all", c, got)
		}
	}
}

// Without --checkpoint-every a state is stored when 10,000 commits are covered by
// none, and, when that comes to nothing, 1,000 steps later; not while one is on its way.
func TestUncoveredCommits(t *testing.T) {
	now := time.Unix(1e9, 0)
	everybody := roster.New()
	members := []*roster.Replica{everybody.Admit(protocol.Hello{ID: "a", Name: "a"}, now)}
	everybody.NewRanks(members)
	r := round.New(round.Plan{Number: 1, Members: members, Deal: [][]int{{0}}, Step: 1}, now)
	for _, covered := range []int64{0, 500} {
		core := NewCore(CoreConfig{Training: config.Job{Batch: 4, Steps: 1e6}, Checkpoint: &Checkpoint{Step: covered}})
		core.now = now
		for n, want := range map[int64]bool{9_999: false, 10_000: true, 10_001: false, 10_999: false, 11_000: true} {
			if got := core.stores(r, protocol.Commit{Step: covered + n}); got != want {
				t.Errorf("%d commits after the checkpoint of step %d: %v", n, covered, got)
			}
		}
		core.upload.Ask(covered+10_000, "a", now)
		if core.stores(r, protocol.Commit{Step: covered + 11_000}) || core.upload.Missed() {
			t.Error("another is asked for while one is on its way")
		}
	}
}
