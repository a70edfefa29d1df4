package patience

import "time"

// Limits are the times and counts by which a coordinator loses patience.
type Limits struct {
	Grace        time.Duration // for replicas that hold the state to come back before going back to a checkpoint; default 3 s, negative: none
	Settle       time.Duration // after the last Hello before a restarted coordinator begins its first round; default 500 ms
	Silent       time.Duration // without any message: lost; default 5 s
	SilentHinted time.Duration // the same for a replica that others call dead; default 1 s
	Stuck        time.Duration // a member waiting for a message that was lost; default 10 s
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
		Grace: 3 * time.Second, Settle: 500 * time.Millisecond,
		Silent: 5 * time.Second, SilentHinted: time.Second, Stuck: 10 * time.Second,
		Upload: 60 * time.Second, Backoff: 100 * time.Millisecond,
		Failures: 8, Mismatches: 3, Rebalance: 0.15, RebalanceMin: 20,
	}
}

// withDefaults gives fields that are zero their default.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	orDefault(&l.Grace, d.Grace)
	orDefault(&l.Settle, d.Settle)
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
