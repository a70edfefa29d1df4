package patience

import "time"

// Limits are the times and counts by which a coordinator loses patience.
type Limits struct {
	Grace        time.Duration // for replicas that hold the state to come back before going back to a checkpoint; default 3 s, negative: none
	Parts        time.Duration // the same while those that are here hold a part of it, or as long as running it again would take; default 30 s
	Callers      time.Duration // for replicas that speak and have not introduced themselves yet: they are in a long step; default 10 min
	Settle       time.Duration // after the last Hello before a restarted coordinator begins its first round; default 500 ms
	Joins        time.Duration // after the last replica that came, and at most ten steps, before a round ends for newcomers; default 1 s, negative: at once, always
	Silent       time.Duration // without any message: lost; default 5 s
	SilentHinted time.Duration // the same for a replica that others call dead; default 3 s
	Stuck        time.Duration // a member waiting for a message that was lost; default 10 s
	Step         time.Duration // without progress in a step: it hangs; default 0: 1 min, or ten times the slowest of the last 20 steps; 30 min in a replica's first one
	Upload       time.Duration // for a checkpoint that something waits for; default 60 s
	Backoff      time.Duration // after a failed step, doubled each time, at most 2 s; default 100 ms
	Failures     int           // rounds in a row that fail alike, on one replica each, and then the job; default 8
	GiveUp       time.Duration // without a replica: the job fails; default 0: never
	Mismatches   int           // consecutive digest mismatches that fail the job; default 3
	Rebalance    float64       // predicted gain of the step time worth a new round; default 0.15
	RebalanceMin int           // steps between rebalances; default 20
}

// DefaultLimits are the defaults named at each field.
func DefaultLimits() Limits {
	return Limits{
		Grace: 3 * time.Second, Parts: 30 * time.Second, Callers: 10 * time.Minute, Settle: 500 * time.Millisecond, Joins: time.Second,
		Silent: 5 * time.Second, SilentHinted: 3 * time.Second, Stuck: 10 * time.Second,
		Upload: 60 * time.Second, Backoff: 100 * time.Millisecond,
		Failures: 8, Mismatches: 3, Rebalance: 0.15, RebalanceMin: 20,
	}
}

// withDefaults gives fields that are zero their default.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	orDefault(&l.Grace, d.Grace)
	orDefault(&l.Parts, d.Parts)
	orDefault(&l.Callers, d.Callers)
	orDefault(&l.Settle, d.Settle)
	orDefault(&l.Joins, d.Joins)
	orDefault(&l.Silent, d.Silent)
	orDefault(&l.SilentHinted, d.SilentHinted)
	orDefault(&l.Stuck, d.Stuck)
	orDefault(&l.Upload, d.Upload)
	orDefault(&l.Backoff, d.Backoff)
	orDefault(&l.Failures, d.Failures)
	orDefault(&l.Mismatches, d.Mismatches)
	orDefault(&l.Rebalance, d.Rebalance)
	orDefault(&l.RebalanceMin, d.RebalanceMin)
	return l
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
