package roster

import "time"

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
	if r.seen = r.seen.Add(stood); r.seen.After(now) {
		r.seen = now
	}
	return now.Sub(r.seen)
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
