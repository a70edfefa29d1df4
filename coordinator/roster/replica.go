package roster

import (
	"fmt"
	"slices"
	"time"

	"mochi/coordinator/protocol"
)

// Replica is one admitted replica.
type Replica struct {
	hello   protocol.Hello
	arrival int // order of admission
	rank    int // in the current or its last round, −1 before any
	leaving bool
	leaveBy time.Time // it cannot wait longer; zero: it can
	ms      float64   // per group, smoothed; 0 = unknown

	steps int       // that it applied as a member
	since time.Time // its first round; zero before

	// What it holds.
	state   *protocol.Position // what it is known to hold, nil: nothing to rely on
	shards  []string           // digests of the queue shards it holds with that state, "" for the others
	pending *protocol.Pending  // what it voted for and did not see committed
	again   *resent

	// Signs of life.
	seen   time.Time
	hinted bool      // others call it dead
	idle   time.Time // since when it waits although the round waits for it

	beat    protocol.Heartbeat // the last
	moved   time.Time          // since when that has been so, or since when it has had anything to do
	stalled bool               // people know that it has been so for long

	said time.Time // the last Hello
}

// resent is a commit that was sent again to a replica outside the round.
type resent struct {
	step  int64
	since time.Time
}

// ID is unique to the replica's process.
func (r *Replica) ID() string { return r.hello.ID }

// Name is what people call it.
func (r *Replica) Name() string { return r.hello.Name }

// String is its name and id, for messages.
func (r *Replica) String() string { return fmt.Sprintf("%s (%s)", r.hello.Name, r.hello.ID) }

// Hello is the last Hello it said.
func (r *Replica) Hello() protocol.Hello { return r.hello }

// Ready says whether it has built what a round needs.
func (r *Replica) Ready() bool { return r.hello.Config != "" }

// Rank is that in the current or its last round, −1 before any.
func (r *Replica) Rank() int { return r.rank }

// Leave notes that it asked to leave; false when it had.
func (r *Replica) Leave() bool {
	first := !r.leaving
	r.leaving = true
	return first
}

// LeaveBy notes until when a leaver can wait for a commit.
func (r *Replica) LeaveBy(by time.Time) { r.leaveBy = by }

// LeavesBy is until when; zero: as long as it takes.
func (r *Replica) LeavesBy() time.Time { return r.leaveBy }

// Leaving says whether it asked to leave.
func (r *Replica) Leaving() bool { return r.leaving }

// MSPerGroup is its time for one group, smoothed; 0 when not measured yet.
func (r *Replica) MSPerGroup() float64 { return r.ms }

// Measured takes how long it was busy with some groups of a step.
func (r *Replica) Measured(busyMS float64, groups int) {
	if groups == 0 || busyMS <= 0 {
		return
	}
	ms := busyMS / float64(groups)
	if r.ms > 0 {
		ms = 0.7*r.ms + 0.3*ms
	}
	r.ms = ms
}

// Said is when it said Hello last.
func (r *Replica) Said() time.Time { return r.said }

// Enters notes that it becomes a member of a round.
func (r *Replica) Enters(now time.Time) {
	r.Moves(now)
	if r.since.IsZero() {
		r.since = now
	}
}

// Worked notes that it applied a step as a member.
func (r *Replica) Worked() { r.steps++ }

// Steps is how many it applied as a member.
func (r *Replica) Steps() int { return r.steps }

// Lived is for how long it has been a member of rounds, or between them; false
// when it never was.
func (r *Replica) Lived(now time.Time) (lived time.Duration, ever bool) {
	if r.since.IsZero() {
		return 0, false
	}
	return now.Sub(r.since), true
}

// Arrival is its place in the order of admission.
func (r *Replica) Arrival() int { return r.arrival }

// enter makes it a member of a round that begins.
func (r *Replica) enter(rank int) {
	r.rank, r.idle, r.pending, r.again = rank, time.Time{}, nil, nil
}

// Says takes another Hello: what the replica says that it holds replaces what
// was known. False: that Hello crossed with a commit that was sent again, which
// the replica is about to apply, so what it says is about to be wrong.
func (r *Replica) Says(h protocol.Hello, now time.Time) bool {
	r.hello, r.said = h, now
	r.Seen(now)
	if r.again != nil && h.Pending != nil && h.Pending.Step == r.again.step {
		return false
	}
	r.state, r.shards, r.pending, r.again = h.State, nil, h.Pending, nil
	if h.State != nil {
		r.shards = slices.Clone(h.State.Shards)
	}
	return true
}

// Step is the step of the state that it is known to hold, −1 when there is
// nothing to rely on.
func (r *Replica) Step() int64 {
	if r.state == nil {
		return -1
	}
	return r.state.Step
}

// StateDigest is the digest of that state.
func (r *Replica) StateDigest() string {
	if r.state == nil {
		return ""
	}
	return r.state.Digest
}

// Forget gives up what it was known to hold.
func (r *Replica) Forget() { r.state, r.shards = nil, nil }

// ComputedFrom notes that it has the state after a step: it computed from what
// it was sent. Its shards are noted one by one (GotShard).
func (r *Replica) ComputedFrom(step int64, digest string) {
	r.state = &protocol.Position{Step: step, Digest: digest}
}

// Holds notes the state that it reported after a commit, and the digest of each
// shard that it holds.
func (r *Replica) Holds(step int64, digest string, shards []string) {
	r.state, r.shards = &protocol.Position{Step: step, Digest: digest}, slices.Clone(shards)
}

// ReportsShards says whether it named the shards that it holds. One that does
// not holds all, where every member does.
func (r *Replica) ReportsShards() bool { return len(r.shards) > 0 }

// Shard is the digest of a shard that it holds, "" when it is not known to hold
// a sound copy.
func (r *Replica) Shard(v int) string {
	if v < 0 || v >= len(r.shards) {
		return ""
	}
	return r.shards[v]
}

// DropShard gives up its copy of a shard; false when it reports no such shard.
func (r *Replica) DropShard(v int) bool {
	if v < 0 || v >= len(r.shards) {
		return false
	}
	r.shards[v] = ""
	return true
}

// GotShard notes that it has shard v of so many, as it was sent.
func (r *Replica) GotShard(v, of int, digest string) {
	if len(r.shards) < of {
		r.shards = append(r.shards, make([]string, of-len(r.shards))...)
	}
	r.shards[v] = digest
}

// Missed says whether it voted for this commit, holds the state before it and
// did not see it: it still has the gradients, so it can apply it.
func (r *Replica) Missed(commit *protocol.Commit) bool {
	p := r.pending
	return p != nil && p.Step == commit.Step && p.Digest == commit.Digest && r.Step() == commit.Step-1
}

// SentAgain notes that it is sent a commit that it missed. Until it answers it
// stands between two steps.
func (r *Replica) SentAgain(step int64, now time.Time) {
	r.pending, r.again = nil, &resent{step, now}
	r.Forget()
}

// Applying says whether it is to apply a commit that was sent again, and since
// when.
func (r *Replica) Applying() (since time.Time, applying bool) {
	if r.again == nil {
		return time.Time{}, false
	}
	return r.again.since, true
}

// AppliedAgain takes its answer to a commit that was sent again; an answer to
// anything else is dropped.
func (r *Replica) AppliedAgain(a *protocol.Applied) {
	if r.again == nil || a.Step != r.again.step {
		return
	}
	r.again = nil
	r.Holds(a.Step, a.StateDigest, a.Shards)
	for _, v := range a.Damaged {
		r.DropShard(v)
	}
}
