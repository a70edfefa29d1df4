package replica_test

import (
	"slices"
	"testing"

	"mochi/coordinator/protocol/config"
	"mochi/replica"
	"mochi/replica/augment"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
	"mochi/replica/input"
	"mochi/replica/replicatest"
	"mochi/replica/replicatest/cluster"
)

// supervisedConfig is a supervised job of six groups on data of three classes.
func supervisedConfig() config.Job {
	cfg := auditConfig("all", 1)
	cfg.Supervised, cfg.LabelSmoothing = true, 0.1
	cfg.Learn(3)
	return cfg
}

// A supervised job has the same bits for any number of replicas and of groups at once,
// and in steps that are audited. It has no keys: the key encoder is a copy, and the
// queue stays as it began.
func TestSupervised(t *testing.T) {
	for name, change := range map[string]func(*config.Job){
		"six groups":  func(*config.Job) {},
		"one group":   func(c *config.Job) { c.BNGroup = 12 },
		"two at once": func(c *config.Job) { c.GroupsAtOnce = 2 },
		"lars":        func(c *config.Job) { c.Optimizer = "lars" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := supervisedConfig()
			change(&cfg)
			open := openTogether(false)
			one := cluster.Run(t, open, cfg, 1, nil)
			st := one.Last()
			if checkpoint.Digest(st.QueryParams) != checkpoint.Digest(st.KeyParams) || checkpoint.Digest(st.QueryBuffers) != checkpoint.Digest(st.KeyBuffers) {
				t.Error("the key encoder is no copy")
			}
			if st.K != 1 || st.QueueFilled != 0 || st.Dim != 3 {
				t.Errorf("a queue of %d keys of %d elements, %d enqueued", st.K, st.Dim, st.QueueFilled)
			}
			for _, phases := range one.Phases {
				if phases["query"] <= 0 || phases["audit"] <= 0 {
					t.Errorf("phases %v", phases)
				}
			}
			if cfg.Units() < 3 {
				return
			}
			three := cluster.Run(t, open, cfg, 3, nil)
			if !slices.Equal(one.Losses, three.Losses) {
				t.Errorf("losses %v, of three replicas %v", one.Losses, three.Losses)
			}
			equalStates(t, st, three.Last())
			if a := three.Core.Status().Audits; a.Failed != 0 || a.Done == 0 {
				t.Errorf("%+v", a)
			}
		})
	}
}

// It learns: the loss on data that repeats every 30 samples falls below chance.
func TestSupervisedLearns(t *testing.T) {
	cfg := supervisedConfig()
	cfg.Recipe, cfg.LabelSmoothing, cfg.Audit, cfg.Steps, cfg.BNGroup, cfg.LR = augment.None, 0, 0, 40, 6, 0.05
	c := cluster.Run(t, openTestEngine, cfg, 1, nil)
	if n := len(c.Losses); n != 40 || c.Losses[n-1] > c.Losses[0]/2 {
		t.Errorf("losses %v", c.Losses)
	}
}

// A member that computes a wrong gradient is named.
func TestSupervisedLiar(t *testing.T) {
	cfg := supervisedConfig()
	bad := openLiar(openTestEngine, fault{part: "gradient", from: 5, bad: 1})
	got := cluster.RunEngines(t, []replica.OpenEngine{openTestEngine, bad, openTestEngine}, cfg, nil)
	if len(got.Failed) != 1 || got.Failed[0].Name != "r1" {
		t.Errorf("named are %+v; %q", got.Failed, got.Events)
	}
}

// listed keeps what its images are asked for.
type listed struct {
	*replicatest.Images
	keys, queries *int
}

func (l listed) Submit(r data.Request) error {
	for i := range r.Query {
		*l.queries += len(r.Query[i])
		*l.keys += len(r.Key[i])
	}
	return l.Images.Submit(r)
}

// No key view is decoded.
func TestSupervisedHasNoKeyViews(t *testing.T) {
	cfg := supervisedConfig()
	keys, queries := 0, 0
	r := replica.New(replica.Config{
		ID: "r", Name: "r", Engine: openTestEngine, Link: replicatest.NewScript(cfg, 3), Ring: alone, Data: replicatest.Pictures{N: 30, Size: 12}.Set(),
		Images: func(config.Job) input.Source { return listed{replicatest.NewImages(12, 1), &keys, &queries} },
	})
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys != 0 || queries < 3*cfg.Batch {
		t.Errorf("%d key views and %d queries were asked for", keys, queries)
	}
}
