package patience_test

import (
	"fmt"
	"testing"
	"time"

	"mochi/coordinator/patience"
)

var start = time.Unix(1e9, 0)

func after(d time.Duration) time.Time { return start.Add(d) }

func ExamplePatience_Silent() {
	p := patience.New(patience.DefaultLimits())
	fmt.Printf("%q\n", p.Silent(2*time.Second, false))
	fmt.Printf("%q\n", p.Silent(2*time.Second, true))
	fmt.Printf("%q\n", p.Silent(5*time.Second, false))
	// Output:
	// ""
	// "others call it dead, silent for 2s"
	// "silent for 5s"
}

// The pause after a failed step doubles up to its limit, and ends when a step
// is committed, a round begins, or the cause is gone.
func TestPauses(t *testing.T) {
	p := patience.New(patience.Limits{Failures: 7})
	for i, pause := range []time.Duration{100, 200, 400, 800, 1600, 2000} {
		p.StepFailed(start)
		if pause *= time.Millisecond; !p.Insisting() || !p.Pausing(after(pause-1)) || p.Pausing(after(pause)) {
			t.Errorf("after failure %d (%v) the pause is not %v", i+1, p.Insisting(), pause)
		}
	}
	if p.StepFailed(start); p.Insisting() {
		t.Error("it insists after seven failures")
	}
	for range 100 {
		p.StepFailed(start)
	}
	if !p.Pausing(after(2*time.Second-1)) || p.Pausing(after(2*time.Second)) {
		t.Error("after a hundred failures the pause is not 2 s")
	}
	p.Committed()
	if p.StepFailed(start); !p.Insisting() || p.Pausing(after(100*time.Millisecond)) {
		t.Error("after a commit it remembers failures")
	}
	if p.Forgive(); p.Pausing(start) {
		t.Error("forgiven")
	}
	p.StepFailed(start)
	if p.BeginRound(); p.Pausing(start) {
		t.Error("a round has begun")
	}
}

// Only failures alike, but for numbers, and without a step between are the job's.
func TestFailedAlike(t *testing.T) {
	p := patience.New(patience.Limits{Failures: 3})
	for i, c := range []struct {
		text      string
		committed bool
		n         int
		enough    bool
	}{
		{"port 41", false, 1, false}, {"port 7", false, 2, false}, {"memory", false, 1, false},
		{"port 1", false, 1, false}, {"port 2", true, 2, false}, {"port 3", false, 1, false},
		{"port 4", false, 2, false}, {"port 55", false, 3, true},
	} {
		if n, enough := p.FailedAlike(c.text); n != c.n || enough != c.enough {
			t.Errorf("failure %d (%s): %d, %v", i, c.text, n, enough)
		}
		if c.committed {
			p.Committed()
		}
	}
}

func TestMismatches(t *testing.T) {
	p := patience.New(patience.Limits{})
	for i := 1; i < 3; i++ {
		if n, enough := p.Mismatch(); n != i || enough {
			t.Errorf("mismatch %d: %v", n, enough)
		}
	}
	p.Agreed()
	p.Mismatch()
	p.Mismatch()
	if n, enough := p.Mismatch(); n != 3 || !enough {
		t.Errorf("mismatch %d: %v", n, enough)
	}
}

// The wait for a state begins when it is first missed, and anew in the next
// round.
func TestAwaitsState(t *testing.T) {
	p := patience.New(patience.Limits{Grace: time.Second})
	if !p.AwaitsState(after(time.Hour)) || !p.AwaitsState(after(time.Hour+999*time.Millisecond)) || p.AwaitsState(after(time.Hour+time.Second)) {
		t.Error("it is one second")
	}
	p.BeginRound()
	if !p.AwaitsState(after(2 * time.Hour)) {
		t.Error("a round was begun since")
	}
	cold := patience.New(patience.Limits{Grace: -1})
	if cold.AwaitsState(start) || cold.AwaitsSender(start, start) {
		t.Error("a negative grace is none")
	}
}

// A restarted coordinator waits until replicas cease to come, but not for ever.
func TestReturning(t *testing.T) {
	p := patience.New(patience.Limits{})
	p.Starts(start)
	p.Starts(after(time.Hour)) // changes nothing
	for ms, want := range map[time.Duration]bool{499: true, 500: false} {
		p.Greeted(start)
		if got := p.Returning(after(ms * time.Millisecond)); got != want {
			t.Errorf("%d ms after a Hello: %v", ms, got)
		}
	}
	p.Greeted(after(3 * time.Second))
	if p.Returning(after(3 * time.Second)) {
		t.Error("the grace is over")
	}
}

func TestRebalance(t *testing.T) {
	p := patience.New(patience.Limits{})
	if p.MayRebalance(19) || !p.MayRebalance(20) {
		t.Error("20 steps lie between")
	}
	if p.WorthRebalance(100, 86) || !p.WorthRebalance(100, 85) {
		t.Error("15 % are worth it")
	}
}
