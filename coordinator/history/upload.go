package history

import "time"

// Upload is the checkpoint that is asked for and not yet stored. The zero value
// is none. One without a sender is owed: the replica that should have sent it
// was lost, or what it sends cannot be trusted.
type Upload struct {
	wanted bool
	step   int64
	from   string // "" when nobody sends it
	bad    bool   // what is on its way differs from the majority's state
	since  time.Time
	missed bool // a later one was due and left out
	times  int  // that a replica was asked for one
}

// Ask wants the state after a step as a checkpoint, from a replica, or from
// nobody yet (""). It takes the place of what was wanted before.
func (u *Upload) Ask(step int64, from string, now time.Time) {
	*u = Upload{wanted: true, step: step, from: from, since: now, times: u.times + 1}
}

// AskAnother makes another replica send it.
func (u *Upload) AskAnother(from string, now time.Time) {
	u.from, u.since, u.bad = from, now, false
	u.times++
}

// Drop wants nothing any more.
func (u *Upload) Drop() { *u = Upload{times: u.times} }

// Moves says that a replica's upload of the state after a step gets on. What is
// behind it in the same hands does too.
func (u *Upload) Moves(from string, step int64, now time.Time) {
	if u.Of(step) || u.wanted && u.from == from {
		u.since = now
	}
}

// here is who sends what has arrived whole, and is on its way to other coordinators.
const here = "(this coordinator)"

// Here says that the state after a step has arrived, and gets on to where it is safe: no
// loss of a replica stops it any more.
func (u *Upload) Here(step int64, now time.Time) {
	if u.Of(step) && !u.bad {
		u.from, u.since = here, now
	}
}

// IsHere says whether it has arrived.
func (u *Upload) IsHere() bool { return u.wanted && u.from == here }

// Found says that a replica is sending the state after a step, for an earlier
// coordinator or since before it was lost. It goes on with that, if it is of use, and
// nothing else is.
func (u *Upload) Found(id string, step int64, now time.Time) {
	switch {
	case u.Sent():
	case !u.wanted:
		u.Ask(step, id, now)
	case u.step == step:
		u.AskAnother(id, now)
	}
}

// Leave leaves out a checkpoint that is due while one is on its way: the state
// after the first step that can be sent is stored in place of it.
func (u *Upload) Leave() { u.missed = true }

// Missed says whether one was left out since the last one was asked for.
func (u *Upload) Missed() bool { return u.missed }

// Asked is who was asked last, for the state after which step, and how often anybody was so
// far. from is "" when nobody sends it.
func (u *Upload) Asked() (from string, step int64, times int) { return u.from, u.step, u.times }

// Sent says whether somebody sends any state.
func (u *Upload) Sent() bool { return u.wanted && u.from != "" }

// Wanted says whether any checkpoint is.
func (u *Upload) Wanted() bool { return u.wanted }

// Step is whose state is wanted.
func (u *Upload) Step() int64 { return u.step }

// Since is when it was asked for, or last got on.
func (u *Upload) Since() time.Time { return u.since }

// Owed says that one is wanted and nobody sends it.
func (u *Upload) Owed() bool { return u.wanted && u.from == "" }

// Of says whether the state after a step is wanted.
func (u *Upload) Of(step int64) bool { return u.wanted && u.step == step }

// OnItsWay says whether somebody sends the state after a step.
func (u *Upload) OnItsWay(step int64) bool { return u.Of(step) && u.from != "" }

// Lose says that whoever sends it does not get on with it.
func (u *Upload) Lose(now time.Time) { u.from, u.since = "", now }

// LostBy says that a replica is gone, and with it what it was sending.
func (u *Upload) LostBy(id string, now time.Time) {
	if u.wanted && u.from == id {
		u.from, u.since = "", now
	}
}

// FailedBy says that a replica could not send the state after a step.
func (u *Upload) FailedBy(id string, step int64, now time.Time) {
	if u.Of(step) {
		u.LostBy(id, now)
	}
}

// Spoil says that what anybody sends of a step may be wrong.
func (u *Upload) Spoil(step int64) {
	if u.Of(step) {
		u.from, u.bad = "", true
	}
}

// SpoilFrom says so of what one replica sends.
func (u *Upload) SpoilFrom(id string, step int64) {
	if u.Of(step) && u.from == id {
		u.from, u.bad = "", true
	}
}

// Stored takes the news that the state after a step is safe: whatever was
// wanted up to there is done, unless it was found wrong on its way.
func (u *Upload) Stored(step int64) {
	if u.wanted && u.step <= step && !u.bad {
		*u = Upload{missed: u.missed, times: u.times}
	}
}
