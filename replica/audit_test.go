package replica_test

import (
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"mochi/coordinator/protocol/audit"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/network"
	"mochi/replica"
	"mochi/replica/replicatest/cluster"
)

// fault is what is wrong with an engine: bit flips in what it computes, from one
// call on.
type fault struct {
	part  string        // gradient, statistic, key, query
	from  int64         // the first call of that kind that is wrong, from 0
	once  bool          // and the only one
	bad   uint32        // bits that flip in one value; infinite: it becomes +Inf
	calls *atomic.Int64 // of that kind
}

const infinite = math.MaxUint32

// liar is an engine that computes wrongly: finite numbers, all but right.
type liar struct {
	engine.Engine
	fault fault
}

func openLiar(open replica.OpenEngine, f fault) replica.OpenEngine {
	f.calls = new(atomic.Int64)
	return func(p engine.Precision) (engine.Engine, error) {
		e, err := open(p)
		return liar{e, f}, err
	}
}

func (e liar) NewState(net *network.Network) (engine.State, error) {
	s, err := e.Engine.NewState(net)
	if together, ok := s.(engine.Grouped); ok {
		return groupedLiar{liarState{s, e.fault}, together}, err
	}
	return liarState{s, e.fault}, err
}

type liarState struct {
	engine.State
	fault fault
}

func (s liarState) Compile(spec engine.Spec) (engine.Program, error) {
	p, err := s.State.Compile(spec)
	return liarProgram{p, spec, s.fault}, err
}

type groupedLiar struct {
	liarState
	grouped engine.Grouped
}

func (s groupedLiar) CompileGroups(spec engine.Spec, n int) (engine.Program, error) {
	p, err := s.grouped.CompileGroups(spec, n)
	return liarProgram{p, spec, s.fault}, err
}

type liarProgram struct {
	engine.Program
	spec  engine.Spec
	fault fault
}

// lie flips bits of one value, if this call is wrong.
func (p liarProgram) lie(part string, x []float32) {
	if part != p.fault.part {
		return
	}
	n := p.fault.calls.Add(1) - 1
	if n < p.fault.from || p.fault.once && n > p.fault.from {
		return
	}
	at := len(x) / 2
	for x[at] == 0 { // a bit of 0 is too small to count
		at = (at + 1) % len(x)
	}
	if p.fault.bad == infinite {
		x[at] = float32(math.Inf(1))
		return
	}
	x[at] = math.Float32frombits(math.Float32bits(x[at]) ^ p.fault.bad)
}

func (p liarProgram) Forward(images, out []float32) error {
	err := p.Program.Forward(images, out)
	if p.spec.Encoder == engine.Key {
		p.lie("key", out)
	} else {
		p.lie("query", out)
	}
	return err
}

func (p liarProgram) Features(features []float32) {
	p.Program.Features(features)
	p.lie("feature", features)
}

func (p liarProgram) Statistics(stats []float32) {
	p.Program.Statistics(stats)
	p.lie("statistic", stats)
}

func (p liarProgram) Backward(d, grads []float32, ready func(param int)) error {
	var late []int // final only when the lie is told
	hold := ready
	if ready != nil {
		hold = func(param int) { late = append(late, param) }
	}
	err := p.Program.Backward(d, grads, hold)
	p.lie("gradient", grads)
	for _, param := range late {
		ready(param)
	}
	return err
}

func auditConfig(copies string, x float64) config.Job {
	cfg := spreadConfig(copies)
	cfg.Steps, cfg.CheckpointEvery, cfg.Audit = 6, 0, x
	return cfg
}

// Audits change no result: losses and state are those of a run without them, of
// any world, with a queue held whole or spread, one group a batch or six, one
// group at a time or two, fp32 or bf16 on the wire. All that was to be computed
// twice was, and was the same.
func TestAuditsChangeNothing(t *testing.T) {
	for name, change := range map[string]func(*config.Job){
		"whole":        func(*config.Job) {},
		"spread":       func(c *config.Job) { c.QueueCopies = "2" },
		"one group":    func(c *config.Job) { c.BNGroup = 12 },
		"one, bf16":    func(c *config.Job) { c.BNGroup, c.Wire = 12, "bf16" },
		"one, spread":  func(c *config.Job) { c.BNGroup, c.QueueCopies = 12, "2" },
		"two at once":  func(c *config.Job) { c.GroupsAtOnce = 2 },
		"bf16":         func(c *config.Job) { c.Wire = "bf16" },
		"every second": func(c *config.Job) { c.Audit = 0.5 },
	} {
		t.Run(name, func(t *testing.T) {
			for world := 1; world <= 3; world++ {
				cfg := auditConfig("all", 1)
				change(&cfg)
				if world == 1 && cfg.QueueCopies != "all" || world > cfg.Units() {
					continue
				}
				off := cfg
				off.Audit = 0
				open := openTogether(true)
				calm, got := cluster.Run(t, open, off, world, nil), cluster.Run(t, open, cfg, world, nil)
				if !slices.Equal(got.Losses, calm.Losses) {
					t.Errorf("%d replicas: losses %v, want %v", world, got.Losses, calm.Losses)
				}
				equalStates(t, got.Last(), calm.Last())
				a := got.Core.Status().Audits
				if want := int(float64(cfg.Steps) * float64(cfg.Groups()) / float64(a.Every)); a.Done != want || a.Failed != 0 {
					t.Errorf("%d replicas: %+v, want %d audits; %q", world, a, want, got.Events)
				}
				if a := calm.Core.Status().Audits; a.Done != 0 {
					t.Errorf("without audits: %+v", a)
				}
				audited := 0
				for _, phases := range got.Phases {
					if phases["audit"] > 0 {
						audited++
					}
				}
				if audited == 0 || a.Every == 1 && audited != int(cfg.Steps) {
					t.Errorf("%d of %d steps have a phase audit", audited, cfg.Steps)
				}
			}
		})
	}
}

// A member that flips one low bit in what it computes is named in the step that
// is audited, by those that do not; nothing of it is in the result, which has the
// bits of an honest run.
func TestLiarIsLeftOut(t *testing.T) {
	for _, c := range []struct {
		name, part string
		change     func(*config.Job)
	}{
		{"gradient", "gradient", func(*config.Job) {}},
		{"statistic", "statistic", func(*config.Job) {}},
		{"key", "key", func(*config.Job) {}},
		{"query", "query", func(*config.Job) {}},
		{"spread", "gradient", func(c *config.Job) { c.QueueCopies = "2" }},
		{"spread key", "key", func(c *config.Job) { c.QueueCopies = "2" }},
		{"two at once", "gradient", func(c *config.Job) { c.GroupsAtOnce = 2 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := auditConfig("all", 1)
			c.change(&cfg)
			open := openTogether(true)
			calm := cluster.Run(t, open, cfg, 3, nil)
			for _, once := range []bool{false, true} {
				bad := openLiar(open, fault{part: c.part, from: 5, once: once, bad: 1})
				got := cluster.RunEngines(t, []replica.OpenEngine{open, bad, open}, cfg, nil)
				if len(got.Failed) != 1 || got.Failed[0].Name != "r1" || got.Failed[0].Agree < 2 {
					t.Fatalf("once %v: named are %+v; %q", once, got.Failed, got.Events)
				}
				if err := got.Refused["r1"]; err == nil || len(got.Refused) != 1 {
					t.Errorf("refused: %v", got.Refused)
				}
				if a := got.Core.Status().Audits; a.Failed == 0 || !slices.Equal(a.LeftOut, []string{"r1 (r1)"}) {
					t.Errorf("%+v", a)
				}
				if !slices.Equal(got.Losses, calm.Losses) {
					t.Errorf("once %v: losses %v, want %v", once, got.Losses, calm.Losses)
				}
				equalStates(t, got.Last(), calm.Last())
			}
		})
	}
}

// A batch of one group has one member, whose result the sums overwrite: it is
// compared as it was before.
func TestLiarWithTheOnlyGroup(t *testing.T) {
	cfg := auditConfig("all", 1)
	cfg.BNGroup = 12
	bad := openLiar(openTestEngine, fault{part: "gradient", from: 3, once: true, bad: 1})
	calm := runCluster(t, cfg, 1, nil)
	got := cluster.RunEngines(t, []replica.OpenEngine{bad}, cfg, nil)
	if len(got.Failed) != 1 || len(got.Refused) != 0 {
		t.Errorf("%+v; refused %v", got.Failed, got.Refused)
	}
	equalStates(t, got.Last(), calm.Last())
}

// Of two members one has a fault that passes: computed again, its group is right,
// so that it is known who was wrong. The other goes on alone.
func TestOneOfTwoLiesOnce(t *testing.T) {
	cfg := auditConfig("all", 1)
	calm := runCluster(t, cfg, 1, nil)
	bad := openLiar(openTestEngine, fault{part: "gradient", from: 8, once: true, bad: 1})
	got := cluster.RunEngines(t, []replica.OpenEngine{bad, openTestEngine}, cfg, nil)
	if len(got.Failed) != 1 || got.Failed[0].Name != "r0" || got.Refused["r0"] == nil {
		t.Errorf("named are %+v; refused %v; %q", got.Failed, got.Refused, got.Events)
	}
	equalStates(t, got.Last(), calm.Last())
}

// A member that is alone repeats the step in which it contradicted itself.
func TestAloneItRepeatsTheStep(t *testing.T) {
	cfg := auditConfig("all", 1)
	calm := runCluster(t, cfg, 1, nil)
	got := cluster.RunEngines(t, []replica.OpenEngine{openLiar(openTestEngine, fault{part: "gradient", from: 14, once: true, bad: 1})}, cfg, nil)
	if len(got.Failed) != 1 || len(got.Refused) > 0 || got.Core.Status().Audits.Failed != 1 {
		t.Errorf("%+v; refused %v", got.Failed, got.Refused)
	}
	equalStates(t, got.Last(), calm.Last())
}

// A member whose engine comes to an infinity is not taken for divergence: it is
// named, and the others go on as if nothing had been; be it always or once, in
// what it sums or in the keys of all, alone or among three. Audits as such are too
// rare here to find it.
func TestInfinityOfOneMember(t *testing.T) {
	for _, copies := range []string{"all", "2"} {
		cfg := auditConfig(copies, 1e-6)
		calm := runCluster(t, cfg, 3, nil)
		for _, part := range []string{"gradient", "statistic", "key", "query"} {
			for _, once := range []bool{true, false} {
				bad := openLiar(openTestEngine, fault{part: part, from: 5, once: once, bad: infinite})
				got := cluster.RunEngines(t, []replica.OpenEngine{bad, openTestEngine, openTestEngine}, cfg, nil)
				if len(got.Failed) != 1 || got.Failed[0].Name != "r0" || got.Refused["r0"] == nil || got.Failure != "" {
					t.Errorf("copies %s, %s, once %v: %s; named are %+v; %q", copies, part, once, got.Failure, got.Failed, got.Events)
					continue
				}
				if !slices.Equal(got.Losses, calm.Losses) {
					t.Errorf("copies %s, %s, once %v: losses %v, want %v", copies, part, once, got.Losses, calm.Losses)
				}
				equalStates(t, got.Last(), calm.Last())
			}
		}
	}
	cfg := auditConfig("all", 1e-6)
	calm := runCluster(t, cfg, 1, nil)
	two := cluster.RunEngines(t, []replica.OpenEngine{openTestEngine, openLiar(openTestEngine, fault{part: "gradient", from: 5, bad: infinite})}, cfg, nil)
	if two.Failure != "" || len(two.Failed) != 1 || two.Refused["r1"] == nil {
		t.Fatalf("one of two: %q; %+v; %q", two.Failure, two.Failed, two.Events)
	}
	equalStates(t, two.Last(), calm.Last())
	got := cluster.RunEngines(t, []replica.OpenEngine{openLiar(openTestEngine, fault{part: "gradient", from: 5, once: true, bad: infinite})}, cfg, nil)
	if got.Failure != "" || len(got.Failed) != 1 || len(got.Refused) > 0 {
		t.Fatalf("alone: %q; %+v; %q", got.Failure, got.Failed, got.Events)
	}
	equalStates(t, got.Last(), calm.Last())
}

// Divergence is still divergence: the job ends with it, and nobody is blamed.
func TestDivergenceEndsTheJob(t *testing.T) {
	for _, world := range []int{1, 2} {
		for _, x := range []float64{0, 0.5} {
			cfg := auditConfig("all", x)
			cfg.LR = 1e30
			got := cluster.RunEngines(t, slices.Repeat([]replica.OpenEngine{openTestEngine}, world), cfg, nil)
			if !strings.Contains(got.Failure, "finite") || len(got.Failed) > 0 || len(got.Refused) > 0 {
				t.Errorf("%d replicas, audit %v: %q; named are %+v", world, x, got.Failure, got.Failed)
			}
		}
	}
}

// What audits cost: the programs that run besides are the share of groups that
// the setting says, and not one more.
func TestAuditsCostTheirShare(t *testing.T) {
	for _, world := range []int{1, 2, 3} {
		cfg := auditConfig("all", 0.25)
		cfg.Steps = 8 // two blocks
		count := func(x float64) int64 {
			cfg.Audit = x
			var open []replica.OpenEngine
			f := fault{part: "gradient", from: math.MaxInt64, calls: new(atomic.Int64)} // it only counts
			for range world {
				open = append(open, func(p engine.Precision) (engine.Engine, error) {
					e, err := openTestEngine(p)
					return liar{e, f}, err
				})
			}
			cluster.RunEngines(t, open, cfg, nil)
			return f.calls.Load()
		}
		without, with := count(0), count(0.25)
		if want := cfg.Steps * int64(cfg.Groups()); without != want || with != want+want/4 {
			t.Errorf("%d replicas: %d programs without audits, %d with; want %d and a quarter more", world, without, with, want)
		}
	}
}

// The rule that a replica follows is the job's.
func TestRuleOfAJob(t *testing.T) {
	for x, every := range map[float64]int64{0: 0, 1: 1, 0.5: 2, 0.002: 500, 0.003: 333, 1e-12: math.MaxInt32} {
		cfg := config.Default()
		cfg.Audit = x
		if got := audit.RuleOf(cfg); got.Every != every || got.Seed != cfg.Seed || got.Unit != 1 {
			t.Errorf("--audit %v: %+v", x, got)
		}
	}
	if cfg := config.Default(); audit.RuleOf(cfg).Every != 500 {
		t.Error("the default is 1 group in 500")
	}
}
