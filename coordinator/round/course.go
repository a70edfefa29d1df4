package round

import "strings"

// Course is a job from its first round to its end.
type Course struct {
	round   *Round // in hand, nil between rounds
	last    int64  // highest number ever used
	begun   bool   // this coordinator has begun a round
	why     string // why the next round is needed
	waiting string // what is awaited while there is no round; at the end, why it ended

	stop      string // why an orderly stop was asked for, "" if not
	failing   string // why the job fails once its state is stored, "" if it does not
	finishing bool   // the last commit is applied; its checkpoint is awaited
	over      bool
	failed    bool
}

// NewCourse is a course whose first round gets the number after last, for the
// reason why.
func NewCourse(last int64, why string) *Course {
	return &Course{last: last, why: why, waiting: "waiting for replicas"}
}

// State is where the job stands.
func (c *Course) State() State {
	switch {
	case c.over:
		return Finished
	case c.round != nil:
		return c.round.State()
	case c.finishing:
		return Concluding
	}
	return Gathering
}

// Round is the one in hand, nil between rounds.
func (c *Course) Round() *Round { return c.round }

// Last is the highest number of a round ever used.
func (c *Course) Last() int64 { return c.last }

// Begun says whether this coordinator has begun a round.
func (c *Course) Begun() bool { return c.begun }

// Because gives the reason for the next round.
func (c *Course) Because(why string) { c.why = why }

// Why is the reason for the next round.
func (c *Course) Why() string { return c.why }

// AtLeast says that the rounds up to a number are another coordinator's.
func (c *Course) AtLeast(number int64) { c.last = max(c.last, number) }

// NextNumber is that of the next round; no other will get it.
func (c *Course) NextNumber() int64 {
	c.last++
	return c.last
}

// Begin takes a round in hand.
func (c *Course) Begin(r *Round) { c.round, c.begun = r, true }

// EndRound drops the round and returns it. Why it ended is why the next one is
// needed.
func (c *Course) EndRound() *Round {
	r := c.round
	c.round, c.why = nil, r.ending
	return r
}

// Wait says what is awaited while there is no round.
func (c *Course) Wait(reason string) { c.waiting = reason }

// Stop asks for an orderly stop; false when one was asked for before.
func (c *Course) Stop(reason string) bool {
	if c.stop != "" {
		return false
	}
	c.stop = reason
	return true
}

// Stopping is why an orderly stop was asked for, "" if not.
func (c *Course) Stopping() string { return c.stop }

// Fail stops the job in order, and makes it a failed one.
func (c *Course) Fail(reason string) {
	c.failing = reason
	c.Stop(reason)
}

// Failing is why the job fails once its state is stored, "" if it does not.
func (c *Course) Failing() string { return c.failing }

// Finishing says whether the last commit is applied.
func (c *Course) Finishing() bool { return c.finishing }

// FinishSoon says that no further step is run, only a checkpoint awaited.
func (c *Course) FinishSoon() { c.finishing = true }

// GoOn takes that back: the checkpoint is lost, steps have to be run again.
func (c *Course) GoOn() { c.finishing = false }

// Finish ends the job.
func (c *Course) Finish(failed bool, reason string) {
	c.over, c.failed, c.round, c.waiting = true, failed, nil, reason
}

// Phase is the state in the five words of protocol.Status.
func (c *Course) Phase() string {
	switch s := c.State(); {
	case s == Finished && c.failed:
		return "failed"
	case s == Finished:
		return "done"
	case c.stop != "", s == Concluding, s == Saving:
		return "stopping"
	case s == Gathering:
		return "waiting"
	}
	return "running"
}

// Explain says in words what the job is waiting for.
func (c *Course) Explain() string {
	switch c.State() {
	case Appending:
		return "waiting for the log"
	case Closing:
		return "finishing the round: " + c.round.ending
	case Saving:
		return "storing the last checkpoint"
	case Voting, Applying:
		return "computing: " + strings.Join(c.round.Absent(), ", ")
	}
	return c.waiting
}
