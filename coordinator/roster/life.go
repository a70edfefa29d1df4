package roster

import (
	"time"

	"mochi/coordinator/protocol"
)

// Seen notes that a message of the replica arrived: whoever speaks is not dead.
func (r *Replica) Seen(now time.Time) { r.seen, r.hinted = now, false }

// Hint notes what others believe.
func (r *Replica) Hint(dead bool) { r.hinted = dead }

// Hinted says whether others call it dead, and it said nothing since.
func (r *Replica) Hinted() bool { return r.hinted }

// Silence is for how long it has said nothing. stood is how long the
// coordinator itself stood still since the last call: in that time it heard
// nothing from anybody, so it does not count.
func (r *Replica) Silence(now time.Time, stood time.Duration) time.Duration {
	r.seen = notAfter(r.seen.Add(stood), now)
	r.moved = notAfter(r.moved.Add(stood), now)
	return now.Sub(r.seen)
}

func notAfter(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}

// Beats takes a heartbeat. One that differs from the last one is progress.
func (r *Replica) Beats(h protocol.Heartbeat, now time.Time) {
	if h != r.beat {
		r.beat = h
		r.Moves(now)
	}
}

// Moves notes that it makes progress, or only now has anything to do.
func (r *Replica) Moves(now time.Time) { r.moved, r.stalled = now, false }

// Beat is its last heartbeat.
func (r *Replica) Beat() protocol.Heartbeat { return r.beat }

// Moved is when it last made progress.
func (r *Replica) Moved() time.Time { return r.moved }

// Stalls notes that it has made none for long; false when that was noted.
func (r *Replica) Stalls() bool {
	first := !r.stalled
	r.stalled = true
	return first
}

// Waits notes that it waits for a message while others wait for it, and says
// for how long it has.
func (r *Replica) Waits(now time.Time) time.Duration {
	if r.idle.IsZero() {
		r.idle = now
	}
	return now.Sub(r.idle)
}

// Busy notes that it does not.
func (r *Replica) Busy() { r.idle = time.Time{} }
