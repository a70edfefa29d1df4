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
	fmt.Printf("%q\n", p.Silent(3*time.Second, true))
	fmt.Printf("%q\n", p.Silent(5*time.Second, false))
	// Output:
	// ""
	// "others call it dead, silent for 3s"
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
	p := patience.New(patience.Limits{Grace: time.Second, Parts: 20 * time.Second})
	whole := func(at time.Duration) bool { return p.AwaitsState(after(at), true, false, 5) }
	parts := func(at time.Duration, steps int64) bool { return p.AwaitsState(after(at), true, true, steps) }
	if !whole(time.Hour) || !whole(time.Hour+999*time.Millisecond) || whole(time.Hour+time.Second) {
		t.Error("it is one second")
	}
	p.BeginRound()
	if !whole(2 * time.Hour) {
		t.Error("a round was begun since")
	}
	// While nobody is here, the clock stands.
	if !p.AwaitsState(after(3*time.Hour), false, false, 0) || !whole(3*time.Hour) || whole(3*time.Hour+time.Second) {
		t.Error("the clock ran while no round could begin")
	}
	// For the rest of a state that is here in part it is longer: 20 s, or what
	// running the steps again takes.
	p.BeginRound()
	if !parts(4*time.Hour, 5) || !parts(4*time.Hour+19*time.Second, 5) || parts(4*time.Hour+20*time.Second, 5) {
		t.Error("it is 20 seconds")
	}
	for range 100 {
		p.Stepped(time.Second)
	}
	if !parts(4*time.Hour+299*time.Second, 300) || parts(4*time.Hour+300*time.Second, 300) || parts(5*time.Hour, 1<<40) {
		t.Error("300 steps of a second are 300 seconds")
	}
	if !p.AwaitsParts(after(19*time.Second), start) || p.AwaitsParts(after(20*time.Second), start) {
		t.Error("the first of several waits 20 seconds for the others")
	}
	cold := patience.New(patience.Limits{Grace: -1})
	if cold.AwaitsState(start, true, true, 1e9) || cold.AwaitsParts(start, start) || cold.AwaitsSender(start, start) {
		t.Error("a negative grace is none")
	}
}

// A replica that speaks without having introduced itself is in a long step: what
// it holds is worth waiting for while it goes on to speak, but not for ever.
func TestAwaitsCallers(t *testing.T) {
	p := patience.New(patience.Limits{Silent: 5 * time.Second, Callers: time.Minute})
	if p.AwaitsCallers(start) {
		t.Error("nobody calls")
	}
	for s := range 60 {
		p.Calls(after(time.Duration(s)*time.Second), "a")
		if !p.AwaitsCallers(after(time.Duration(s) * time.Second)) {
			t.Fatalf("not waited for after %d s", s)
		}
	}
	if p.Calls(after(time.Minute), "a"); p.AwaitsCallers(after(time.Minute)) {
		t.Error("a minute is over")
	}
	p = patience.New(patience.Limits{Silent: 5 * time.Second})
	p.Calls(start, "b")
	if !p.AwaitsCallers(after(5*time.Second-1)) || p.AwaitsCallers(after(5*time.Second)) {
		t.Error("b is silent since 5 s")
	}
	p = patience.New(patience.Limits{})
	p.Calls(start, "c")
	if p.Came("c"); p.AwaitsCallers(start) {
		t.Error("c has come")
	}
}

// A member hangs when it makes no progress for a minute, for ten times as long
// as the slowest of the last steps, or for as long as people say; before its
// first step an engine may compile.
func TestHangs(t *testing.T) {
	p := patience.New(patience.Limits{})
	at := func(p *patience.Patience, fresh bool, limit time.Duration) {
		t.Helper()
		if p.Hangs(limit-1, fresh) || !p.Hangs(limit, fresh) {
			t.Errorf("not after %v", limit)
		}
	}
	at(p, true, 30*time.Minute)
	at(p, false, time.Minute)
	if p.Stalls(30*time.Second-1) || !p.Stalls(30*time.Second) {
		t.Error("people hear of it after 30 s")
	}
	p.Stepped(7 * time.Minute)
	at(p, false, 70*time.Minute)
	at(p, true, 70*time.Minute)
	if p.Stalls(21*time.Minute-1) || !p.Stalls(21*time.Minute) {
		t.Error("of steps of 7 min people hear after 21 min")
	}
	for range 20 {
		p.Stepped(30 * time.Second)
	}
	at(p, false, 5*time.Minute)
	flag := patience.New(patience.Limits{Step: 4 * time.Second})
	flag.Stepped(time.Hour)
	at(flag, true, 4*time.Second)
	at(flag, false, 4*time.Second)
}

// Those that come together join together; who comes a little later waits until
// the last change has paid off.
func TestJoins(t *testing.T) {
	p := patience.New(patience.Limits{Joins: time.Second})
	for range 20 {
		p.Stepped(20 * time.Millisecond)
	}
	if p.MayJoin(after(200*time.Millisecond-1), start, start) || !p.MayJoin(after(200*time.Millisecond), start, start) {
		t.Error("ten steps of 20 ms are enough")
	}
	for range 20 {
		p.Stepped(2 * time.Second)
	}
	if p.MayJoin(after(time.Second-1), start, start) || !p.MayJoin(after(time.Second), start, start) {
		t.Error("it joins a second after it came")
	}
	if p.MayJoin(after(5*time.Second-1), start, after(4500*time.Millisecond)) || !p.MayJoin(after(5*time.Second), start, after(4500*time.Millisecond)) {
		t.Error("the first waits no longer than five seconds for others")
	}
	p.JoinsBegin(start)
	p.JoinsEnd(after(2999 * time.Millisecond)) // less than a second more than a step
	if !p.MayJoin(after(4*time.Second), start, start) {
		t.Error("a cheap change may be followed at once")
	}
	p.JoinsBegin(start)
	p.JoinsEnd(after(5 * time.Second)) // three more than a step
	p.JoinsEnd(after(9 * time.Second)) // of a round without newcomers
	if p.MayJoin(after(65*time.Second-1), start, start) || !p.MayJoin(after(65*time.Second), start, start) {
		t.Error("not twenty times as long after it")
	}
	p.JoinsBegin(start)
	p.JoinsEnd(after(time.Hour))
	if p.MayJoin(after(70*time.Minute-1), start, start) || !p.MayJoin(after(70*time.Minute), start, start) {
		t.Error("however long the change took, ten minutes are enough")
	}
	if always := patience.New(patience.Limits{Joins: -1}); !always.MayJoin(start, start, start) {
		t.Error("a negative limit is none")
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
