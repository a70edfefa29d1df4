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
	"strings"
	"time"
)

// longestPause is the most that a failed step is put off.
const longestPause = 2 * time.Second

// longestNoRoom is how long it is at most before it is looked whether there is room
// again for the last checkpoint, which travels once more for that.
const longestNoRoom = 30 * time.Second

// longestParts is how long the rest of a state is waited for at most, however
// long it would take to run the steps again.
const longestParts = 30 * time.Minute

// Patience is the clocks and counters of one coordinator.
type Patience struct {
	limits Limits

	started time.Time         // the first input
	helloAt time.Time         // the last Hello
	missing time.Time         // since when nobody holds the state where the job stands; zero: somebody does
	lost    time.Time         // since when replicas are here without the commits that the log has lost; zero: none are
	retryAt time.Time         // no new round before
	callers map[string]caller // by id: they speak and are not admitted
	nobody  time.Time         // since when there is no replica; zero: there is one

	failures   int // of rounds, in a row
	noRoom     int // times that there was no room for the last checkpoint
	unstored   int // times that the last checkpoint could not be stored
	trouble    string
	alike      int // rounds in a row that failed with that trouble
	mismatches int // of digests, in a row

	pace  pace // of the last steps
	joins joins
}

// New is a patience that has not been tried yet. Limits that are zero take
// their default.
func New(limits Limits) *Patience {
	return &Patience{limits: limits.withDefaults(), callers: map[string]caller{}}
}

// caller is a replica that speaks and is not admitted.
type caller struct{ since, last time.Time }

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

// AwaitsState says whether it is worth waiting for replicas that hold the state
// where the job stands. The clock starts when a round could begin without it
// (could), which it cannot while nobody is here, and BeginRound stops it. When
// those that are here hold a part of it, or one that holds it was silent, and so is
// likely to come back (parts), the others are waited for longer: steps would have to
// be run again, so many.
func (p *Patience) AwaitsState(now time.Time, could, parts bool, steps int64) bool {
	switch {
	case !could:
		p.missing = time.Time{}
		return true
	case p.missing.IsZero():
		p.missing = now
	}
	limit := p.limits.Grace
	if parts && limit > 0 {
		limit = max(p.limits.Parts, min(time.Duration(steps)*p.pace.mean(), longestParts))
	}
	return now.Before(p.missing.Add(limit))
}

// AwaitsLost says whether it is worth waiting for replicas that hold commits which the
// log has lost. The clock starts when replicas are here that do not (could).
func (p *Patience) AwaitsLost(now time.Time, could bool) bool {
	switch {
	case !could:
		p.lost = time.Time{}
		return true
	case p.lost.IsZero():
		p.lost = now
	}
	return now.Before(p.lost.Add(p.limits.Parts))
}

// AwaitsRecalled says whether a replica that was asked for commits then may still
// answer.
func (p *Patience) AwaitsRecalled(now, asked time.Time) bool {
	return now.Before(asked.Add(p.limits.Stuck))
}

// AwaitsParts says whether a replica that said Hello then may still be the first
// of several that bring back between them a state which the job has given up.
func (p *Patience) AwaitsParts(now, said time.Time) bool {
	return p.limits.Grace > 0 && now.Before(said.Add(p.limits.Parts))
}

// Calls notes that a replica that is not admitted speaks, and was asked for a
// Hello.
func (p *Patience) Calls(now time.Time, id string) {
	c, known := p.callers[id]
	if !known {
		c.since = now
	}
	c.last = now
	p.callers[id] = c
}

// Came notes that it has said Hello, or is gone.
func (p *Patience) Came(id string) { delete(p.callers, id) }

// AwaitsCallers says whether a replica that speaks still has to say Hello: it is
// in a long step, at the end of which it will.
func (p *Patience) AwaitsCallers(now time.Time) bool {
	for id, c := range p.callers {
		if now.Sub(c.last) >= p.limits.Silent || now.Sub(c.since) >= p.limits.Callers {
			if now.Sub(c.last) >= p.limits.Callers {
				delete(p.callers, id) // long gone
			}
			continue
		}
		return true
	}
	return false
}

// Nobody notes whether there is a replica at all, and says since when there is
// none, and whether that is so long that the job is given up.
func (p *Patience) Nobody(now time.Time, none bool) (since time.Time, giveUp bool) {
	switch {
	case !none:
		p.nobody = time.Time{}
	case p.nobody.IsZero():
		p.nobody = now
	}
	return p.nobody, none && p.limits.GiveUp > 0 && now.Sub(p.nobody) >= p.limits.GiveUp
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

// StepFailed counts a failed round and begins a pause.
func (p *Patience) StepFailed(now time.Time) {
	p.failures++
	p.retryAt = now.Add(min(p.limits.Backoff<<min(p.failures-1, 16), longestPause))
}

// storeTries is how often the last checkpoint is stored before its errors are
// believed.
const storeTries = 4

// NotStored counts a checkpoint that the job was to end with and that could not
// be stored, and begins a pause. It says whether that is enough; a disk that is full
// is waited for as long as it takes.
func (p *Patience) NotStored(now time.Time, full bool) (enough bool) {
	if full {
		p.noRoom++
		p.retryAt = now.Add(min(p.limits.Backoff<<min(p.noRoom, 16), longestNoRoom))
		return false
	}
	p.unstored++
	p.retryAt = now.Add(min(p.limits.Backoff<<min(p.unstored-1, 16), longestPause))
	return p.unstored >= storeTries
}

// Insisting says whether it is still worth to try with all that hold the state,
// although rounds with some of them fail.
func (p *Patience) Insisting() bool { return p.failures < p.limits.Failures }

// FailedAlike counts rounds in a row that failed on one replica with the same
// error, but for numbers in it, without a step between. It says how many there
// were, and whether that is enough to fail the job: then the error is the job's.
func (p *Patience) FailedAlike(text string) (failures int, enough bool) {
	text = strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text)
	if p.alike = p.alike + 1; text != p.trouble {
		p.trouble, p.alike = text, 1
	}
	return p.alike, p.alike >= p.limits.Failures
}

// Committed forgets failures: a step is committed.
func (p *Patience) Committed() { p.failures, p.trouble, p.alike = 0, "", 0 }

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
