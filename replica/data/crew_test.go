package data

import (
	"testing"
	"time"
)

// simulate runs a crew through steps of 100 ms that need so much loading each;
// what the active workers do not manage meanwhile is waited for, with all
// hands.
func simulate(c *crew, now *time.Time, steps int, need time.Duration) (waited time.Duration) {
	for range steps {
		done := min(need, 100*time.Millisecond*time.Duration(c.active))
		wait := (need - done) / time.Duration(c.workers)
		*now = now.Add(100*time.Millisecond + wait)
		c.worked = need
		c.taken(*now, wait)
		waited += wait
	}
	return waited
}

// The crew is as small as the load allows, and grows within a few steps when
// the load does.
func TestCrewFollowsTheLoad(t *testing.T) {
	c, now := newCrew(7, true), time.Unix(0, 0)
	c.taken(now, time.Second) // the first batch is always waited for
	if c.active != 1 {
		t.Errorf("%d workers after the first batch", c.active)
	}
	for _, phase := range []struct {
		need  time.Duration // of loading, a step of 100 ms
		least int
		most  int
	}{{30 * time.Millisecond, 1, 1}, {350 * time.Millisecond, 4, 4}, {90 * time.Millisecond, 1, 2}, {5 * time.Second, 7, 7}, {10 * time.Millisecond, 1, 1}} {
		simulate(&c, &now, 150, phase.need)
		if c.active < phase.least || c.active > phase.most {
			t.Errorf("%v of loading a step: %d workers, want %d to %d", phase.need, c.active, phase.least, phase.most)
		}
		if waited := simulate(&c, &now, 50, phase.need); phase.most < 7 && waited != 0 {
			t.Errorf("%v of loading a step: still waits %v in 50 steps", phase.need, waited)
		}
	}
}

func TestCrewWithoutAnEngine(t *testing.T) {
	c, now := newCrew(3, false), time.Unix(0, 0)
	simulate(&c, &now, 100, time.Millisecond)
	if c.limit() != 3 {
		t.Errorf("%d of 3 workers", c.limit())
	}
}
