// Package patience says how long a coordinator waits, and how often it tries
// again. It holds the clocks and counters of a job; time is an argument.
//
// Who decides that a replica is gone? Only the coordinator. It takes notice of
// a closed connection, which the message server reports; of silence, because
// replicas send heartbeats; of a member that waits for a message which was
// lost, as its heartbeats tell; and of ring errors, which name a suspect. Gossip
// among the replicas only shortens its patience with one that is silent: it is
// a hint and never a reason by itself. While the coordinator itself stood still
// (a suspended or starved process) it heard nothing, so that time counts as
// nobody's silence.
//
// All limits are in Limits, with their defaults.
package patience

import (
	"fmt"
	"time"
)

// longestPause is the most that a failed step is put off.
const longestPause = 2 * time.Second

// Patience is the clocks and counters of one coordinator.
type Patience struct {
	limits Limits

	started time.Time // the first input
	helloAt time.Time // the last Hello
	missing time.Time // since when nobody holds the state where the job stands; zero: somebody does
	retryAt time.Time // no new round before

	failures   int // of the step in hand, in a row
	mismatches int // of digests, in a row
}

// New is a patience that has not been tried yet. Limits that are zero take
// their default.
func New(limits Limits) *Patience { return &Patience{limits: limits.withDefaults()} }

// Starts notes when the coordinator began; later calls change nothing.
func (p *Patience) Starts(now time.Time) {
	if p.started.IsZero() {
		p.started = now
	}
}

// Greeted notes that a replica said Hello.
func (p *Patience) Greeted(now time.Time) { p.helloAt = now }

// Returning says whether replicas of the last round may still be on their way
// back to a coordinator that found a job in progress: the last of those that
// are here has just come.
func (p *Patience) Returning(now time.Time) bool {
	return p.limits.Grace > 0 && now.Before(p.started.Add(p.limits.Grace)) && now.Before(p.helloAt.Add(p.limits.Settle))
}

// AwaitsState says whether it is worth waiting for a replica that holds the
// state where the job stands. The first call starts the clock, BeginRound stops
// it.
func (p *Patience) AwaitsState(now time.Time) bool {
	if p.missing.IsZero() {
		p.missing = now
	}
	return now.Before(p.missing.Add(p.limits.Grace))
}

// AwaitsSender says the same of a checkpoint that has had no sender since then.
func (p *Patience) AwaitsSender(now, since time.Time) bool {
	return now.Before(since.Add(max(p.limits.Grace, 0)))
}

// AwaitsUpload says whether a checkpoint that was asked for then may still
// come.
func (p *Patience) AwaitsUpload(now, since time.Time) bool {
	return now.Before(since.Add(p.limits.Upload))
}

// AwaitsApplied says whether a replica that was sent the last commit again then
// may still apply it.
func (p *Patience) AwaitsApplied(now, since time.Time) bool {
	return now.Before(since.Add(p.limits.Stuck))
}

// Pausing says whether it is too early to try a failed step again.
func (p *Patience) Pausing(now time.Time) bool { return now.Before(p.retryAt) }

// Forgive ends the pause: what made the step fail is probably gone.
func (p *Patience) Forgive() { p.retryAt = time.Time{} }

// BeginRound notes that a round begins.
func (p *Patience) BeginRound() { p.missing, p.retryAt = time.Time{}, time.Time{} }

// StepFailed counts a failure and begins a pause. It says how many there were
// in a row, and whether that is enough to fail the job.
func (p *Patience) StepFailed(now time.Time) (failures int, enough bool) {
	p.failures++
	if p.failures >= p.limits.Failures {
		return p.failures, true
	}
	p.retryAt = now.Add(min(p.limits.Backoff<<(p.failures-1), longestPause))
	return p.failures, false
}

// Committed forgets failures: a step is committed.
func (p *Patience) Committed() { p.failures = 0 }

// Mismatch counts digests that differ, likewise.
func (p *Patience) Mismatch() (mismatches int, enough bool) {
	p.mismatches++
	return p.mismatches, p.mismatches >= p.limits.Mismatches
}

// Agreed forgets mismatches: all members hold the same.
func (p *Patience) Agreed() { p.mismatches = 0 }

// Silent says why a replica is given up that has said nothing for so long, ""
// when it is not.
func (p *Patience) Silent(silence time.Duration, hinted bool) string {
	switch {
	case silence >= p.limits.Silent:
		return fmt.Sprintf("silent for %v", silence.Round(time.Millisecond))
	case hinted && silence >= p.limits.SilentHinted:
		return fmt.Sprintf("others call it dead, silent for %v", silence.Round(time.Millisecond))
	}
	return ""
}

// Stuck says whether a member that has waited for so long has lost a message.
func (p *Patience) Stuck(waited time.Duration) bool { return waited >= p.limits.Stuck }

// MayRebalance says whether a round has gone on for long enough to look whether
// another deal would be faster.
func (p *Patience) MayRebalance(steps int) bool { return steps >= p.limits.RebalanceMin }

// WorthRebalance says whether the gain is worth a new round; ms a step.
func (p *Patience) WorthRebalance(now, then float64) bool {
	return then <= (1-p.limits.Rebalance)*now
}
