package replica_test

import (
	"slices"
	"testing"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/replica"
	"mochi/replica/checkpoint"
	"mochi/replica/replicatest"
	"mochi/replica/replicatest/cluster"
)

// probed is a job with --probe, on data of three classes.
func probed(cfg config.Job) config.Job {
	cfg.Probe = true
	cfg.Learn(3)
	return cfg
}

// The probe changes no bit of what is trained, is the same on all members and, with
// exact sums, for any number of them, has learned something, and is audited as all
// else.
func TestProbeChangesNothing(t *testing.T) {
	for name, change := range map[string]func(*config.Job){
		"whole":       func(*config.Job) {},
		"spread":      func(c *config.Job) { c.QueueCopies = "2" },
		"one group":   func(c *config.Job) { c.BNGroup = 12 },
		"two at once": func(c *config.Job) { c.GroupsAtOnce = 2 },
		"bf16":        func(c *config.Job) { c.Wire = "bf16" },
	} {
		t.Run(name, func(t *testing.T) {
			var first *checkpoint.Probe
			for _, world := range []int{1, 3} {
				cfg := auditConfig("all", 1)
				change(&cfg)
				if world == 1 && cfg.QueueCopies != "all" || world > cfg.Units() {
					continue
				}
				open := openTogether(true)
				calm, got := cluster.Run(t, open, cfg, world, nil), cluster.Run(t, open, probed(cfg), world, nil)
				if !slices.Equal(got.Losses, calm.Losses) {
					t.Errorf("%d replicas: losses %v, want %v", world, got.Losses, calm.Losses)
				}
				last := got.Last()
				equalStates(t, last, calm.Last())
				if a := got.Core.Status().Audits; a.Failed != 0 || a.Done == 0 {
					t.Errorf("%d replicas: %+v", world, a)
				}
				p := last.Probe
				if p == nil || p.Classes != 3 || slices.Max(p.Params) <= 0 || slices.Max(p.Momentum) <= 0 {
					t.Fatalf("%d replicas: the probe is %+v", world, p)
				}
				if first == nil {
					first = p
				} else if cfg.Wire == "fp32" && checkpoint.Digest(p.Vectors()...) != checkpoint.Digest(first.Vectors()...) {
					t.Errorf("%d replicas have another probe", world)
				}
				for i, cpu := range got.CPU {
					if cpu[protocol.MeasureProbe] <= 0 || got.Phases[i][protocol.MeasureProbe] <= 0 {
						t.Errorf("step %d: processor time %v, phases %v", i+1, cpu, got.Phases[i])
					}
				}
			}
		})
	}
}

// A member whose probe is wrong is named by an audit.
func TestProbeOfALiar(t *testing.T) {
	cfg := probed(auditConfig("all", 1))
	bad := openLiar(openTestEngine, fault{part: "feature", from: 5, bad: 1})
	open := []replica.OpenEngine{openTestEngine, bad, openTestEngine}
	got := cluster.RunEngines(t, open, cfg, nil)
	if len(got.Failed) != 1 || got.Failed[0].Name != "r1" {
		t.Errorf("named are %+v; %q", got.Failed, got.Events)
	}
}

// A run goes on with its probe; one from a checkpoint without, with a new one.
func TestProbeContinues(t *testing.T) {
	cfg, ds := probed(testConfig()), replicatest.Pictures{N: 30, Size: 12}
	want := train(t, replicatest.NewScript(cfg, 9), ds)
	from := func(cfg config.Job) *checkpoint.State {
		half := replicatest.NewScript(cfg, 4)
		train(t, half, ds)
		rest := replicatest.NewScript(probed(cfg), 9)
		rest.Source, rest.Blob, rest.First = protocol.FromCheckpoint, half.Uploads[4], 4
		return train(t, rest, ds)
	}
	got, afresh := from(cfg), from(testConfig())
	for name, s := range map[string]*checkpoint.State{"with a probe": got, "without": afresh} {
		if checkpoint.Digest(s.QueryParams) != checkpoint.Digest(want.QueryParams) {
			t.Errorf("%s: another encoder", name)
		}
	}
	if checkpoint.Digest(got.Probe.Vectors()...) != checkpoint.Digest(want.Probe.Vectors()...) {
		t.Error("the continued run has another probe")
	}
	if checkpoint.Digest(afresh.Probe.Vectors()...) == checkpoint.Digest(want.Probe.Vectors()...) {
		t.Error("a probe that began later is the same: the test shows nothing")
	}
}
