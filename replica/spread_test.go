package replica_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
	"mochi/coordinator"
	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/replica"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
)

// cluster is a job in memory: the coordinator's core, replicas, rings.
type cluster struct {
	t     *testing.T
	cfg   config.Job
	mu    sync.Mutex
	core  *coordinator.Core
	links map[string]*link
	rings map[int64][]allreduce.Transport
	saved map[int64][]byte

	events []string // the name, and of a shard mismatch "shard=… replica=…"
	losses []float64
	failed string
	over   chan struct{}
}

// link is one replica's way to the core.
type link struct {
	*cluster
	id      string
	in      chan protocol.Message
	round   protocol.Round // the last it was sent
	rank    int
	applied func(l *link, step int64) // on the replica's goroutine, after each commit
	kill    func(cause error)         // ends the replica at once
	most    int                       // shards held, by the digests it reported
}

// errKilled is why a replica ends that a test has killed.
var errKilled = errors.New("killed")

// runCluster trains with n replicas until the job is over.
func runCluster(t *testing.T, cfg config.Job, n int, applied func(r *replica.Replica, l *link, step int64)) *cluster {
	t.Helper()
	return runClusterOn(t, replica.OpenTestEngine, cfg, n, applied)
}

// runClusterOn is runCluster on another engine.
func runClusterOn(t *testing.T, open replica.OpenEngine, cfg config.Job, n int, applied func(r *replica.Replica, l *link, step int64)) *cluster {
	t.Helper()
	set := &data.Set{Train: replica.Pictures(30, 12), Info: protocol.Data{Kind: "test", Train: 30}}
	cfg.MinReplicas = n
	c := &cluster{
		t: t, cfg: cfg, links: map[string]*link{}, rings: map[int64][]allreduce.Transport{},
		saved: map[int64][]byte{}, over: make(chan struct{}),
		core: coordinator.NewCore(coordinator.CoreConfig{
			Instance: "1", Training: cfg, ConfigDigest: cfg.Digest(), LR: func(float64) float64 { return cfg.LR },
		}),
	}
	var replicas []*replica.Replica // all are known before the first one speaks
	for i := range n {
		l := &link{cluster: c, id: fmt.Sprintf("r%d", i), in: make(chan protocol.Message, 256), rank: -1}
		c.links[l.id] = l
		r := replica.New(replica.Config{
			ID: l.id, Name: l.id, Engine: open, Data: set, Link: l, Ring: c.ring,
		})
		if applied != nil {
			l.applied = func(l *link, step int64) { applied(r, l, step) }
		}
		replicas = append(replicas, r)
	}
	var running sync.WaitGroup
	for i, r := range replicas {
		l := c.links[fmt.Sprintf("r%d", i)]
		var ctx context.Context
		ctx, l.kill = context.WithCancelCause(t.Context())
		running.Go(func() {
			err := r.Run(ctx)
			if errors.Is(context.Cause(ctx), errKilled) {
				c.step(coordinator.Lost{ID: l.id, Why: "killed"})
			} else if err != nil {
				t.Errorf("r%d: %v", i, err)
			}
		})
	}
	ticks := time.NewTicker(20 * time.Millisecond)
	defer ticks.Stop()
	for waiting := true; waiting; {
		select {
		case <-ticks.C:
			c.step(coordinator.Tick{})
		case <-c.over:
			waiting = false
		}
	}
	running.Wait()
	if c.failed != "" {
		t.Fatal(c.failed)
	}
	return c
}

func (c *cluster) step(in coordinator.Input) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for inputs := []coordinator.Input{in}; len(inputs) > 0; inputs = inputs[1:] {
		for _, a := range c.core.Step(time.Now(), inputs[0]).Actions {
			switch a := a.(type) {
			case coordinator.Send:
				l := c.links[a.To]
				if r := a.Message.Round; r != nil {
					l.round, l.rank = *r, slices.IndexFunc(r.Members, func(m protocol.Member) bool { return m.ID == l.id })
				}
				l.in <- a.Message
			case coordinator.Append:
				inputs = append(inputs, coordinator.Appended{Step: a.Commit.Step})
			case coordinator.Record:
				c.losses = append(c.losses, a.Loss)
			case coordinator.Report:
				text := a.Event.EventName() + " "
				switch e := a.Event.(type) {
				case event.ShardMismatch:
					text += fmt.Sprintf("shard=%d replica=%s", e.Shard, e.Name)
				case event.ShardDamaged:
					text += fmt.Sprintf("shard=%d replica=%s", e.Shard, e.Name)
				}
				c.events = append(c.events, text)
			case coordinator.Finish:
				if a.Failed {
					c.failed = a.Reason
				}
				close(c.over)
			}
		}
	}
}

func (c *cluster) ring(ctx context.Context, round protocol.Round, rank int, _ string) (replica.Ring, error) {
	c.mu.Lock()
	if c.rings[round.Round] == nil {
		c.rings[round.Round] = allreducetest.NewNetwork("test", round.Round, len(round.Members), allreducetest.Plan{}).Transports()
	}
	t := c.rings[round.Round][rank]
	c.mu.Unlock()
	g, err := allreduce.NewGroup(t, allreduce.DefaultConfig())
	if err != nil {
		return nil, err
	}
	return g, g.Connect(ctx)
}

func (c *cluster) count(event string) (n int) {
	for _, e := range c.events {
		if strings.HasPrefix(e, event+" ") {
			n++
		}
	}
	return n
}

// last is the last checkpoint.
func (c *cluster) last() *checkpoint.State {
	c.t.Helper()
	s, err := checkpoint.Read(strings.NewReader(string(c.saved[c.cfg.Steps])))
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

func (l *link) Messages() <-chan protocol.Message { return l.in }

func (l *link) Send(_ context.Context, m protocol.Message) error {
	if m.Applied != nil {
		held := 0
		for _, d := range m.Applied.Shards {
			if d != "" {
				held++
			}
		}
		l.most = max(l.most, held)
	}
	l.step(coordinator.Received{Message: m})
	if m.Applied != nil && l.applied != nil {
		l.applied(l, m.Applied.Step)
	}
	return nil
}

func (l *link) Upload(_ context.Context, step int64, state []byte) error {
	l.mu.Lock()
	l.saved[step] = slices.Clone(state)
	l.mu.Unlock()
	l.step(coordinator.Stored{Name: fmt.Sprint(step), Step: step})
	return nil
}

func (l *link) Download(_ context.Context, name string) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for step, blob := range l.saved {
		if fmt.Sprint(step) == name {
			return blob, nil
		}
	}
	return nil, fmt.Errorf("no checkpoint %s", name)
}

func spreadConfig(copies string) config.Job {
	cfg := replica.TestConfig()
	cfg.Batch, cfg.BNGroup = 12, 2
	cfg.QueueShards, cfg.QueueCopies, cfg.MoCHiWarmup = 6, copies, 0
	cfg.Steps, cfg.CheckpointEvery, cfg.KNNEvery = 12, 5, 0
	return cfg
}

// A bit flips in a copy that nobody evaluates: found at the next commit,
// replaced, reported, counted, and nothing of it is left: losses and state are
// those of a run without. A bit flips in the owner's copy, in one that all
// hold, once more in another: found and replaced alike, and the step before
// the comparison is the only one that saw it.
func TestFlippedBitIsRepaired(t *testing.T) {
	calm := runCluster(t, spreadConfig("2"), 3, nil)
	for _, c := range []struct {
		name, copies string
		owner        bool
	}{{"copy", "2", false}, {"owner", "2", true}, {"all", "all", true}, {"one of three", "3", false}} {
		t.Run(c.name, func(t *testing.T) {
			flips := 0
			var flipped []string
			got := runCluster(t, spreadConfig(c.copies), 3, func(r *replica.Replica, l *link, step int64) {
				l.mu.Lock()
				rank, holders := l.rank, l.round.Holders
				l.mu.Unlock()
				if rank < 0 || rank != int(step/3)%3 || step%3 != 1 || step > 7 {
					return
				}
				shard := int(step) % 6
				for v, h := range holders {
					if slices.Contains(h, rank) && (h[0] == rank) == c.owner {
						shard = v
					}
				}
				r.FlipBit(shard, 5) // a slot that the next batch does not overwrite
				l.mu.Lock()
				flips++
				flipped = append(flipped, fmt.Sprintf("shard mismatch shard=%d replica=%s", shard, l.id))
				l.mu.Unlock()
			})
			var found []string
			for _, e := range got.events {
				if strings.HasPrefix(e, "shard mismatch") {
					found = append(found, e)
				}
			}
			if flips == 0 || !slices.Equal(found, flipped) {
				t.Errorf("flipped %q, found %q", flipped, found)
			}
			if q := got.core.Status().Queue; q.Repairs != flips || got.count("digest mismatch") > 0 || got.count("rolled back") > 0 {
				t.Errorf("%d flips: %+v; %q", flips, q, got.events)
			}
			if !c.owner {
				if !slices.Equal(got.losses, calm.losses) {
					t.Errorf("losses %v, want %v", got.losses, calm.losses)
				}
				equalStates(t, got.last(), calm.last())
			}
		})
	}
}

// With one member there is no other copy: the job goes back to its checkpoint
// and ends as if nothing had been.
func TestFlippedBitWithoutACopy(t *testing.T) {
	calm := runCluster(t, spreadConfig("all"), 1, nil)
	flipped := false
	got := runCluster(t, spreadConfig("all"), 1, func(r *replica.Replica, l *link, step int64) {
		if step == 8 && !flipped {
			flipped = true
			r.FlipBit(3, 1)
		}
	})
	if got.count("shards lost") != 1 || got.count("rolled back") != 1 {
		t.Errorf("%q", got.events)
	}
	equalStates(t, got.last(), calm.last())
}

// A queue stored as bf16: spread, on all members or on one, the losses and the
// state are the same bits, and not those of fp32. The keys of its checkpoint
// are bfloat16. A flipped bit is found and replaced.
func TestQueueInBF16(t *testing.T) {
	config := func(copies, storage string) config.Job {
		cfg := spreadConfig(copies)
		cfg.QueueStorage = storage
		return cfg
	}
	one := runCluster(t, config("all", "bf16"), 1, nil)
	for i, x := range one.last().Queue {
		if math.Float32bits(x)&0xffff != 0 {
			t.Fatalf("element %d of the queue is %v, not a bfloat16", i, x)
		}
	}
	for _, copies := range []string{"all", "2"} {
		flipped := false
		got := runCluster(t, config(copies, "bf16"), 3, func(r *replica.Replica, l *link, step int64) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if step != 4 || l.rank != 2 || flipped {
				return
			}
			flipped = true
			for v, h := range l.round.Holders {
				if slices.Contains(h, l.rank) && h[0] != l.rank {
					r.FlipBit(v, 5)
					return
				}
			}
			r.FlipBit(3, 5)
		})
		if q := got.core.Status().Queue; q.Repairs != 1 {
			t.Errorf("copies %s: %+v; %q", copies, q, got.events)
		}
		if copies == "2" { // nobody evaluates the copy that was flipped
			if !slices.Equal(got.losses, one.losses) {
				t.Errorf("copies %s: losses %v, want %v", copies, got.losses, one.losses)
			}
			equalStates(t, got.last(), one.last())
		}
	}
	if calm := runCluster(t, config("all", "bf16"), 3, nil); !slices.Equal(calm.losses, one.losses) {
		t.Errorf("copies all: losses %v, want %v", calm.losses, one.losses)
	}
	exact := runCluster(t, config("all", "auto"), 1, nil) // so short a queue is fp32
	if slices.Equal(exact.losses, one.losses) {
		t.Error("fp32 and bf16 give the same losses: is it stored as asked?")
	}
	for i := range exact.losses {
		if math.Abs(exact.losses[i]-one.losses[i]) > 0.05*exact.losses[i] {
			t.Errorf("step %d: loss %g in bf16, %g in fp32", i+1, one.losses[i], exact.losses[i])
		}
	}
}

// A member holds R/P of the queue, give or take a shard.
func TestSpreadQueueIsSpread(t *testing.T) {
	c := runCluster(t, spreadConfig("2"), 3, func(r *replica.Replica, l *link, step int64) {
		if want := 4 * 7 * 16 * 4; r.QueueBytes() > want { // K = 37: a shard has 6 or 7 rows
			t.Errorf("%s holds %d bytes of keys after step %d, want at most %d", l.id, r.QueueBytes(), step, want)
		}
	})
	for _, l := range c.links {
		if l.most != 4 {
			t.Errorf("%s held %d of 6 shards, want 4", l.id, l.most)
		}
	}
}

func equalStates(t *testing.T, a, b *checkpoint.State) {
	t.Helper()
	if x, y := checkpoint.Digest(a.QueryParams, a.KeyParams, a.Momentum, a.QueryBuffers, a.KeyBuffers, a.Queue),
		checkpoint.Digest(b.QueryParams, b.KeyParams, b.Momentum, b.QueryBuffers, b.KeyBuffers, b.Queue); x != y {
		t.Error("the states differ")
	}
	if !slices.Equal(a.QueueLabels, b.QueueLabels) || a.QueuePtr != b.QueuePtr || a.Step != b.Step {
		t.Error("labels or positions differ")
	}
}
