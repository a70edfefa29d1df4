package round_test

import (
	"fmt"
	"testing"

	"mochi/coordinator/round"
)

func ExampleCourse() {
	c := round.NewCourse(4, "start")
	c.Wait("waiting for replicas: 0 of 2 are here")
	fmt.Println(c.State(), "|", c.Phase(), "|", c.Explain())
	fmt.Println("the next round is number", c.NextNumber(), "because of", c.Why())
	c.Stop("interrupted")
	c.FinishSoon()
	fmt.Println(c.State(), "|", c.Phase())
	c.Finish(false, "stopped")
	fmt.Println(c.State(), "|", c.Phase(), "|", c.Explain())
	// Output:
	// gathering | waiting | waiting for replicas: 0 of 2 are here
	// the next round is number 5 because of start
	// concluding | stopping
	// finished | done | stopped
}

// A job with a round in hand is where the round is, and its phase is running
// unless it is about to end.
func TestCourseOfARound(t *testing.T) {
	c := round.NewCourse(0, "start")
	r, m := begin(t, false)
	c.Begin(r)
	if c.State() != round.Voting || c.Phase() != "running" || c.Explain() != "computing: a, b, c" || !c.Begun() {
		t.Errorf("%s, %s: %s", c.State(), c.Phase(), c.Explain())
	}
	r.Vote(m[1], vote(1, "g"))
	if c.Explain() != "computing: a, c" {
		t.Error(c.Explain())
	}
	if !c.Stop("enough") || c.Stop("more than enough") || c.Stopping() != "enough" || c.Phase() != "stopping" {
		t.Errorf("%s: %s", c.Phase(), c.Stopping())
	}
	r.End("over")
	if c.EndRound() != r || c.Round() != nil || c.Why() != "over" || c.State() != round.Gathering {
		t.Errorf("%s, next because %s", c.State(), c.Why())
	}
	saving, _ := begin(t, true)
	c = round.NewCourse(0, "start")
	c.FinishSoon()
	c.Begin(saving)
	if c.State() != round.Saving || c.Phase() != "stopping" || c.Explain() != "storing the last checkpoint" {
		t.Errorf("%s, %s: %s", c.State(), c.Phase(), c.Explain())
	}
	c.Finish(true, "no disk")
	if c.State() != round.Finished || c.Phase() != "failed" || c.Explain() != "no disk" || c.Round() != nil {
		t.Errorf("%s, %s: %s", c.State(), c.Phase(), c.Explain())
	}
}

// Every state has a name of its own.
func TestStateNames(t *testing.T) {
	seen := map[string]bool{}
	for s := range round.State(round.States) {
		if s.String() == "" || seen[s.String()] {
			t.Errorf("state %d is %q", s, s)
		}
		seen[s.String()] = true
	}
}
