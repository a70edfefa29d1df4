// Package coordinator decides: who is a member, who computes which groups,
// when a step is committed, and where a state comes from.
//
// Core is the decision itself: Step(now, event) returns a plan. It has no
// goroutine, no clock and no I/O, so whole histories are replayed in tests
// (testdata/*.txt). Server is the one goroutine that owns a Core and carries
// out its plans over a Bus, a Log, a Lease and Checkpoints; the adapters to
// NATS, JetStream and memberlist live in the folders named after them.
//
// A job is a sequence of rounds, a round a sequence of steps:
//
//	gather   wait for replicas; choose members, the donor of the state, the deal
//	vote     every member is Ready for step t with the same digest
//	append   Commit(t) goes to the log; nobody has seen it yet
//	apply    Commit(t) is published; members apply it, report Applied, and are
//	         already computing step t+1
//
// Before the append a step can be dropped without a trace: a lost member
// means a new round with the survivors and the same step. After it the step
// has happened: whoever missed it gets the commit again or a peer's state.
//
// Cost of a step: one append and 3 messages a member; the core itself takes
// microseconds.
//
// Sources: the vocabulary of pytorch/torchft (quorum, heal, should commit);
// the form of etcd-io/raft; Gray 1978 (two-phase commit; here the log is the
// commit point and any member can be replaced).
package coordinator

import (
	"fmt"
	"math"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
)

// Limits are the times and counts by which the core loses patience.
type Limits struct {
	Grace        time.Duration // for replicas that hold the state to come back before going back to a checkpoint; default 3 s, negative: none
	Settle       time.Duration // after the last Hello before a restarted coordinator begins its first round; default 500 ms
	Silent       time.Duration // without any message: lost; default 5 s
	SilentHinted time.Duration // the same for a replica that others call dead; default 1 s
	Stuck        time.Duration // a member waiting for a message that was lost; default 10 s
	Upload       time.Duration // for a checkpoint that something waits for; default 60 s
	Backoff      time.Duration // after a failed step, doubled each time, at most 2 s; default 100 ms
	Failures     int           // consecutive failures of one step that fail the job; default 8
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

// Checkpoint is a state that the coordinator can give to replicas.
type Checkpoint struct {
	Name   string // what Round.Checkpoint says
	Step   int64  // commits applied
	Cursor int64  // samples committed
}

// CoreConfig is what a Core knows from the start.
type CoreConfig struct {
	Instance     string                      // this run of the coordinator
	Binary       string                      // build identity; replicas must have the same
	Training     config.Job                  // sent to every replica
	ConfigDigest string                      // of Training; compared with Hello.Config
	Data         protocol.Data               // what the job trains on; Kind "": the first replica's
	LR           func(epoch float64) float64 // see Config
	Round        int64                       // the highest number ever reserved
	Gossip       []string                    // members to join, for Welcome

	Checkpoint *Checkpoint       // the newest valid one, nil when none
	Head       *protocol.Commit  // the last commit of the log, nil when none
	Tail       []protocol.Commit // commits of the log after Checkpoint, ascending

	Limits Limits // zero fields take their default
}

// entry is what the core remembers of a commit in the log that no checkpoint
// covers yet.
type entry struct {
	digest string // of the reduced gradients
	cursor int64  // after it
}

// Core is the state of the decisions. Only Step changes it.
type Core struct {
	cfg CoreConfig

	now  time.Time
	plan []Action

	data     protocol.Data
	replicas map[string]*replica
	joins    int // replicas ever admitted
	started  time.Time
	helloAt  time.Time // of the last Hello

	head       int64            // the last step in the log, or of the checkpoint when that is later
	headCommit *protocol.Commit // nil when the log is empty
	history    map[int64]entry  // commits after the checkpoint
	checkpoint *Checkpoint
	upload     *upload // a checkpoint asked for and not yet stored

	at        int64  // the step whose state the job stands at; below head while steps are run again
	digest    string // of that state, "" when not known
	round     *round
	lastRound int64 // highest number ever used
	begun     bool  // this coordinator has begun a round
	reason    string
	why       string    // why the next round is needed
	missing   time.Time // since when nobody holds the state at `at`
	retryAt   time.Time // no new round before
	failures  int
	strikes   int
	repairs   int    // copies of shards that were replaced
	moved     int    // copies of shards that were sent because members came or went
	gone      []int  // shards of which no copy is left at the most advanced state
	stop      string // why an orderly stop was asked for, "" if not
	finishing bool   // the last commit is applied; its checkpoint is awaited
	phase     string
	over      bool

	lastLoss, lastImagesPS float64
}

// replica is one admitted replica.
type replica struct {
	hello     protocol.Hello
	seq       int // order of admission
	seen      time.Time
	hinted    bool // others call it dead
	leaving   bool
	state     *protocol.Position // what it is known to hold, nil: nothing to rely on
	shards    []string           // digests of the queue shards it holds with that state, "" for the others
	pending   *protocol.Pending
	resolving time.Time // since when it applies a commit outside a round
	resolves  int64     // the step of that commit
	ms        float64   // per group, smoothed; 0 = unknown
	rank      int       // in the current or its last round, −1 before any
	idle      time.Time // since when it waits although the round waits for it
}

func (r *replica) id() string { return r.hello.ID }

// upload is a checkpoint that should be on its way.
type upload struct {
	step  int64
	from  string // "" when that replica was lost
	bad   bool   // the replica that sent it differs from the majority
	since time.Time
}

// NewCore makes the core of a job that begins, or goes on from what the log
// and the checkpoints hold.
func NewCore(cfg CoreConfig) *Core {
	cfg.Limits = cfg.Limits.withDefaults()
	c := &Core{
		cfg: cfg, data: cfg.Data, phase: "waiting", reason: "waiting for replicas", why: "start",
		replicas: map[string]*replica{}, history: map[int64]entry{}, checkpoint: cfg.Checkpoint,
		headCommit: cfg.Head, lastRound: cfg.Round,
	}
	if c.headCommit != nil {
		c.head, c.lastRound = c.headCommit.Step, max(c.lastRound, c.headCommit.Round)
		c.remember(*c.headCommit)
	}
	for _, commit := range cfg.Tail {
		c.remember(commit)
	}
	if c.checkpoint != nil && c.checkpoint.Step > c.head {
		c.head = c.checkpoint.Step
	}
	c.at = c.head
	if c.head > 0 {
		c.why = fmt.Sprintf("the coordinator started again after step %d", c.head)
	}
	return c
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct{ have, def *time.Duration }{
		{&l.Grace, &d.Grace}, {&l.Settle, &d.Settle}, {&l.Silent, &d.Silent}, {&l.SilentHinted, &d.SilentHinted},
		{&l.Stuck, &d.Stuck}, {&l.Upload, &d.Upload}, {&l.Backoff, &d.Backoff},
	} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	if l.Failures == 0 {
		l.Failures = d.Failures
	}
	if l.Mismatches == 0 {
		l.Mismatches = d.Mismatches
	}
	if l.Rebalance == 0 {
		l.Rebalance = d.Rebalance
	}
	if l.RebalanceMin == 0 {
		l.RebalanceMin = d.RebalanceMin
	}
	return l
}

func (c *Core) remember(commit protocol.Commit) {
	c.history[commit.Step] = entry{commit.Digest, commit.Cursor + int64(commit.Batch)}
}

// Step takes one event and says what to do. now must not go backwards.
func (c *Core) Step(now time.Time, e Event) Plan {
	c.now, c.plan = now, nil
	if c.started.IsZero() {
		c.started = now
	}
	if !c.over {
		c.take(e)
		for !c.over && c.advance() {
		}
	}
	return Plan{Actions: c.plan, Reason: c.explain()}
}

// take records what an event says; advance draws the conclusions.
func (c *Core) take(e Event) {
	switch e := e.(type) {
	case Received:
		c.receive(e.Message)
	case Lost:
		c.lost(e.ID, e.Why)
	case Hint:
		if r := c.replicas[e.ID]; r != nil {
			r.hinted = e.Dead
		}
	case Appended:
		c.appended(e.Step)
	case AppendFailed:
		if e.Fenced {
			c.over, c.phase, c.reason = true, "failed", e.Error
			c.do(Finish{Failed: true, Fenced: true, Reason: e.Error})
			return
		}
		c.fail(fmt.Sprintf("step %d could not be logged: %s", e.Step, e.Error))
	case Stored:
		c.stored(e)
	case StoreFailed:
		c.storeFailed(e)
	case Tick:
		c.tick(e.Stood)
	case StopRequested:
		if c.stop == "" {
			c.stop = e.Reason
			c.report("stopping", map[string]any{"reason": e.Reason, "step": c.at})
		}
	default:
		panic(fmt.Sprintf("coordinator: unknown event %T", e))
	}
}

// advance does the next thing that is possible, and says whether it did any.
func (c *Core) advance() bool {
	r := c.round
	switch {
	case r == nil && c.finishing:
		return c.conclude()
	case r == nil:
		return c.gather()
	case r.open != nil && r.open.complete(r.members):
		c.settle()
		return true
	case r.appending != nil, r.open != nil && r.ending != "":
		return false // waiting for the log, or for the members to apply
	case r.ending != "" || len(r.members) == 0:
		c.endRound()
		return true
	case r.open == nil && !r.save && len(r.votes) == len(r.members):
		c.decide()
		return true
	}
	return false
}

func (c *Core) receive(m protocol.Message) {
	if m.Hello != nil {
		c.hello(m.Version, *m.Hello)
		return
	}
	if m.Version != protocol.Version || m.From == "" {
		return
	}
	r := c.replicas[m.From]
	if r == nil {
		c.send(m.From, protocol.Message{Again: &protocol.Again{Instance: c.cfg.Instance}})
		return
	}
	r.seen, r.hinted = c.now, false
	switch {
	case m.Ready != nil:
		c.ready(r, m.Ready)
	case m.Applied != nil:
		c.applied(r, m.Applied)
	case m.Failed != nil:
		c.failed(r, *m.Failed)
	case m.Leaving != nil:
		c.leaving(r)
	case m.Heartbeat != nil:
		c.heartbeat(r, *m.Heartbeat)
	}
}

func (c *Core) do(a Action) { c.plan = append(c.plan, a) }

func (c *Core) send(to string, m protocol.Message) {
	m.Version = protocol.Version
	c.do(Send{To: to, Message: m})
}

func (c *Core) report(name string, fields map[string]any) { c.do(Report{Name: name, Fields: fields}) }

// Total is the number of steps of the job: Config.Steps, or those up to now
// and as many more as the epochs have batches left (the last one reaches over
// the end): the batch may have been another before. 0: not known yet.
func (c *Core) Total() int64 {
	t := c.cfg.Training
	switch {
	case t.Steps > 0:
		return t.Steps
	case c.data.Train == 0 || t.Batch == 0:
		return 0
	}
	cursor, ok := c.cursorAfter(c.at)
	if !ok {
		cursor = c.at * int64(t.Batch)
	}
	left := int64(t.Epochs)*int64(c.data.Train) - cursor
	return c.at + int64(math.Ceil(float64(left)/float64(t.Batch)))
}

// cursorAfter is how many samples are committed after a step, false when that
// step is not part of the known history.
func (c *Core) cursorAfter(step int64) (int64, bool) {
	if step == 0 {
		return 0, true
	}
	if c.checkpoint != nil && c.checkpoint.Step == step {
		return c.checkpoint.Cursor, true
	}
	e, ok := c.history[step]
	return e.cursor, ok
}
