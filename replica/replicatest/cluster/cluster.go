// Package cluster runs a whole job in memory for the tests of a replica: the
// coordinator's own decisions (coordinator.Core), replicas with their engines,
// and rings of allreducetest. Every message is delivered at once, checkpoints lie
// in a map, and a test may look at a replica after each commit, change what it
// holds, or kill it.
package cluster

import (
	"context"
	"errors"
	"fmt"
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
	"mochi/replica/replicatest"
)

// Cluster is a job in memory: the coordinator's core, replicas, rings. Its
// fields are for reading when Run has returned.
type Cluster struct {
	Core    *coordinator.Core
	Links   map[string]*Link     // by replica: r0, r1, …
	Events  []string             // of the coordinator, in order: the name, and of a faulty shard "shard=… replica=…"
	Losses  []float64            // of the steps
	Failed  []event.AuditFailed  // in order
	Phases  []map[string]float64 // of the steps, ms
	CPU     []map[string]float64 // likewise, of the processor
	Failure string               // why the job failed, "" if it did not
	Refused map[string]error     // by replica: those that the coordinator refused

	t     *testing.T
	cfg   config.Job
	mu    sync.Mutex
	rings map[int64][]allreduce.Transport
	saved map[int64][]byte
	over  chan struct{}
}

// Link is one replica's way to the core.
type Link struct {
	*Cluster
	ID   string
	Most int // shards it held, by the digests it reported

	replica *replica.Replica
	in      chan protocol.Message
	round   protocol.Round // the last it was sent
	rank    int
	kill    func(cause error)
}

// Applied is told of each commit that a replica has applied, on the replica's
// own goroutine.
type Applied func(r *replica.Replica, l *Link, step int64)

// errKilled is why a replica ends that a test has killed.
var errKilled = errors.New("killed")

// Run trains with n replicas, each on an engine of its own, until the job is
// over. applied may be nil.
func Run(t *testing.T, open replica.OpenEngine, cfg config.Job, n int, applied Applied) *Cluster {
	t.Helper()
	c := RunEngines(t, slices.Repeat([]replica.OpenEngine{open}, n), cfg, applied)
	for id, err := range c.Refused {
		t.Errorf("%s: %v", id, err)
	}
	if c.Failure != "" {
		t.Fatal(c.Failure)
	}
	return c
}

// RunEngines is Run with a replica for each engine, some of which may be refused,
// of a job that may fail.
func RunEngines(t *testing.T, open []replica.OpenEngine, cfg config.Job, applied Applied) *Cluster {
	t.Helper()
	n := len(open)
	set := replicatest.Pictures{N: 30, Size: 12}.Set()
	cfg.MinReplicas = n
	c := &Cluster{
		t: t, cfg: cfg, Links: map[string]*Link{}, Refused: map[string]error{}, rings: map[int64][]allreduce.Transport{},
		saved: map[int64][]byte{}, over: make(chan struct{}),
		Core: coordinator.NewCore(coordinator.CoreConfig{
			Instance: "1", Training: cfg, ConfigDigest: cfg.Digest(), LR: func(float64) float64 { return cfg.LR },
			Limits: coordinator.Limits{Parts: time.Second}, // whoever is gone here does not come back
		}),
	}
	// All are known before the first one speaks.
	for i := range n {
		l := &Link{Cluster: c, ID: fmt.Sprintf("r%d", i), in: make(chan protocol.Message, 256), rank: -1}
		c.Links[l.ID] = l
	}
	var running sync.WaitGroup
	for i := range n {
		l := c.Links[fmt.Sprintf("r%d", i)]
		l.replica = replica.New(replica.Config{
			ID: l.ID, Name: l.ID, Engine: open[i], Data: set, Link: listener{l, applied}, Ring: c.ring,
		})
		var ctx context.Context
		ctx, l.kill = context.WithCancelCause(t.Context())
		running.Go(func() {
			err := l.replica.Run(ctx)
			if errors.Is(context.Cause(ctx), errKilled) {
				c.step(coordinator.Lost{ID: l.ID, Why: "killed"})
			} else if errors.Is(err, replica.ErrRefused) {
				c.mu.Lock()
				c.Refused[l.ID] = err
				c.mu.Unlock()
			} else if err != nil && !errors.Is(err, replica.ErrJobFailed) {
				t.Errorf("%s: %v", l.ID, err)
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
	return c
}

func (c *Cluster) step(in coordinator.Input) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for inputs := []coordinator.Input{in}; len(inputs) > 0; inputs = inputs[1:] {
		for _, a := range c.Core.Step(time.Now(), inputs[0]).Actions {
			switch a := a.(type) {
			case coordinator.Send:
				l := c.Links[a.To]
				if r := a.Message.Round; r != nil {
					l.round, l.rank = *r, slices.IndexFunc(r.Members, func(m protocol.Member) bool { return m.ID == l.ID })
				}
				l.in <- a.Message
			case coordinator.Append:
				inputs = append(inputs, coordinator.Appended{Step: a.Commit.Step})
			case coordinator.Record:
				c.Losses, c.Phases, c.CPU = append(c.Losses, a.Loss), append(c.Phases, a.Phases), append(c.CPU, a.CPU)
			case coordinator.Report:
				text := a.Event.EventName() + " "
				switch e := a.Event.(type) {
				case event.ShardMismatch:
					text += fmt.Sprintf("shard=%d replica=%s", e.Shard, e.Name)
				case event.ShardDamaged:
					text += fmt.Sprintf("shard=%d replica=%s", e.Shard, e.Name)
				case event.AuditFailed:
					text += "replica=" + e.Name
					c.Failed = append(c.Failed, e)
				}
				c.Events = append(c.Events, text)
			case coordinator.Finish:
				if a.Failed {
					c.Failure = a.Reason
				}
				close(c.over)
			}
		}
	}
}

func (c *Cluster) ring(ctx context.Context, round protocol.Round, rank int, _ config.Job) (replica.Ring, error) {
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
	return &onceRing{Ring: g, t: c.t, used: map[allreduce.Tag]bool{}}, g.Connect(ctx)
}

// onceRing checks that no two collectives of a round have the same tag: a frame of
// one that comes late would be taken for the other's.
type onceRing struct {
	replica.Ring
	t    *testing.T
	mu   sync.Mutex
	used map[allreduce.Tag]bool
}

func (r *onceRing) once(tag allreduce.Tag) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used[tag] {
		r.t.Errorf("two collectives have the tag %+v", tag)
	}
	r.used[tag] = true
}

// AllReduceSumChecked implements replica.Ring.
func (r *onceRing) AllReduceSumChecked(ctx context.Context, tag allreduce.Tag, data []float32, check *allreduce.Check) error {
	r.once(tag)
	return r.Ring.AllReduceSumChecked(ctx, tag, data, check)
}

// AllReduceMax implements replica.Ring.
func (r *onceRing) AllReduceMax(ctx context.Context, tag allreduce.Tag, data []float32) error {
	r.once(tag)
	return r.Ring.AllReduceMax(ctx, tag, data)
}

// AllGather implements replica.Ring.
func (r *onceRing) AllGather(ctx context.Context, tag allreduce.Tag, data []float32, counts []int) error {
	r.once(tag)
	return r.Ring.AllGather(ctx, tag, data, counts)
}

// Broadcast implements replica.Ring.
func (r *onceRing) Broadcast(ctx context.Context, tag allreduce.Tag, root int, data []byte) error {
	r.once(tag)
	return r.Ring.Broadcast(ctx, tag, root, data)
}

// Count is how many events of a name there were.
func (c *Cluster) Count(event string) (n int) {
	for _, e := range c.Events {
		if strings.HasPrefix(e, event+" ") {
			n++
		}
	}
	return n
}

// Last is the last checkpoint.
func (c *Cluster) Last() *checkpoint.State {
	c.t.Helper()
	s, err := checkpoint.Read(strings.NewReader(string(c.saved[c.cfg.Steps])))
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// Seat is the last round that the replica was sent and its rank there, −1 when
// it is none of the members.
func (l *Link) Seat() (round protocol.Round, rank int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.round, l.rank
}

// Kill ends the replica at once.
func (l *Link) Kill() { l.kill(errKilled) }

// listener is the replica's side of a link.
type listener struct {
	*Link
	applied Applied
}

// Messages are those of the coordinator.
func (l listener) Messages() <-chan protocol.Message { return l.in }

// Send hands a message to the core.
func (l listener) Send(_ context.Context, m protocol.Message) error {
	if m.Applied != nil {
		held := 0
		for _, d := range m.Applied.Shards {
			if d != "" {
				held++
			}
		}
		l.Most = max(l.Most, held)
	}
	l.step(coordinator.Received{Message: m})
	if m.Applied != nil && l.applied != nil {
		l.applied(l.replica, l.Link, m.Applied.Step)
	}
	return nil
}

// Upload keeps a checkpoint.
func (l listener) Upload(_ context.Context, step int64, state []byte) error {
	l.mu.Lock()
	l.saved[step] = slices.Clone(state)
	l.mu.Unlock()
	l.step(coordinator.Stored{Name: fmt.Sprint(step), Step: step})
	return nil
}

// Download gives a checkpoint.
func (l listener) Download(_ context.Context, name string) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for step, blob := range l.saved {
		if fmt.Sprint(step) == name {
			return blob, nil
		}
	}
	return nil, fmt.Errorf("no checkpoint %s", name)
}
