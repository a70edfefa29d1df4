package replica_test

import (
	"testing"

	"mochi/coordinator/protocol"
	"mochi/replica/replicatest/cluster"
)

// What makes a step a transaction is measured of each step, by each member: the
// clock's time and the processor's.
func TestTransactionsAreMeasured(t *testing.T) {
	cfg := spreadConfig("all")
	cfg.Steps, cfg.CheckpointEvery = 4, 0
	c := cluster.Run(t, openTogether(true), cfg, 2, nil)
	if len(c.Phases) != int(cfg.Steps) || len(c.CPU) != int(cfg.Steps) {
		t.Fatalf("%d and %d records of %d steps", len(c.Phases), len(c.CPU), cfg.Steps)
	}
	for i := range c.Phases {
		for _, name := range []string{protocol.MeasureDigest, protocol.MeasureVote, protocol.MeasureCommit, protocol.MeasureApply, protocol.MeasureApplied} {
			if c.Phases[i][name] <= 0 {
				t.Errorf("step %d: no %s in %v", i+1, name, c.Phases[i])
			}
		}
		for _, name := range []string{protocol.MeasureDigest, protocol.MeasureVote, protocol.MeasureApplied} {
			if c.CPU[i][name] <= 0 {
				t.Errorf("step %d: no %s in %v", i+1, name, c.CPU[i])
			}
		}
	}
}
