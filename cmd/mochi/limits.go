package main

import (
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator"
)

// limitFlags are how long people want a coordinator to wait.
type limitFlags struct {
	step, giveUp time.Duration
}

// addLimits adds --step-timeout, and --give-up where replicas come and go.
func addLimits(c *cli.Command, replicasCome bool) *limitFlags {
	l := &limitFlags{}
	c.DurationVar(&l.step, "step-timeout", 0, "how long a replica may make no progress in a step before the others go on without it; 0 = a minute, or ten times the slowest of the last 20 steps (30m in its first)")
	if replicasCome {
		c.DurationVar(&l.giveUp, "give-up", 0, "how long to wait without any replica before the job fails; 0 = for ever")
	}
	return l
}

// limits are those for the coordinator; faults are added to f.
func (l *limitFlags) limits(f *cli.Faults) coordinator.Limits {
	for _, flag := range []struct {
		name  string
		value time.Duration
	}{{"step-timeout", l.step}, {"give-up", l.giveUp}} {
		if flag.value < 0 {
			f.Add(flag.name, "is %v, which is negative; 0 is the default", flag.value)
		}
	}
	return coordinator.Limits{Step: l.step, GiveUp: l.giveUp}
}
