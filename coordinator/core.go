// Package coordinator decides: who is a member, who computes which groups,
// when a step is committed, and where a state comes from.
//
// Core is the decision itself: Step(now, input) returns a plan. It has no
// goroutine, no clock and no I/O, so whole histories are replayed in tests
// (testdata/*.txt). Server is the one goroutine that owns a Core and carries
// out its plans over a Bus, a Log, a Lease and Checkpoints; the adapters to
// NATS, JetStream and memberlist live in folders of their own.
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
// An input goes one way: Step asks the table (table.go) whether the state that
// the job is in (round.State) takes it; if so, its handler notes what it says
// with the parts it concerns; then advance does what has become possible. What
// a Core knows is in those parts, a package each: who is here (roster), what is
// committed (history), the copies of the queue (copies), the round in hand and
// the course of the job (round), how long to wait (patience), whose fault it is
// that rounds fail (blame), and who computed wrongly (jury). Each keeps
// its fields to itself; only Core knows them all, and no part another's state.
// Package place and package deal compute who holds and who does what, package
// event lists what is told to people.
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
	"time"

	"mochi/coordinator/blame"
	"mochi/coordinator/copies"
	"mochi/coordinator/event"
	"mochi/coordinator/history"
	"mochi/coordinator/jury"
	"mochi/coordinator/patience"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/audit"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/roster"
	"mochi/coordinator/round"
)

// Limits are the times and counts by which the core loses patience.
type Limits = patience.Limits

// Checkpoint is a state that the coordinator can give to replicas.
type Checkpoint = history.Checkpoint

// CoreConfig is what a Core knows from the start.
type CoreConfig struct {
	Instance     string                      // this run of the coordinator
	Binary       string                      // build identity; replicas must have the same
	Training     config.Job                  // sent to every replica
	ConfigDigest string                      // of Training; compared with Hello.Config
	Data         protocol.Data               // what the job trains on; Kind "": the first replica's
	LR           func(epoch float64) float64 // see Config
	Round        int64                       // the highest number ever reserved
	Term         uint64                      // of this run as the leader
	Gossip       []string                    // members to join, for Welcome
	Coordinators []string                    // addresses of all that may lead, for Welcome

	Checkpoint *Checkpoint       // the newest valid one, nil when none
	Head       *protocol.Commit  // the last commit of the log, nil when none
	Tail       []protocol.Commit // commits of the log after Checkpoint, and its own, ascending
	Recorded   int64             // the last step that the observer has on record
	Since      uint64            // commits of lower terms are of another run of the job, whoever holds them
	Key        []byte            // by which commits are sealed, the same for all that may lead; nil: everybody is believed
	Rebuild    bool              // go on although the log lacks steps that are on record

	Audits string // the note of what an earlier coordinator knew of wrong arithmetic, "" for none

	Limits Limits // zero fields take their default
}

// Core is the state of the decisions. Only Step changes it.
type Core struct {
	cfg  CoreConfig
	data protocol.Data // what the job trains on; Kind "" until it is known

	now  time.Time // of the input in hand
	plan []Action  // so far

	roster   *roster.Roster
	history  *history.History
	upload   history.Upload
	copies   *copies.Copies
	course   *round.Course
	patience *patience.Patience
	blame    *blame.Blame
	audits   audit.Rule
	jury     *jury.Jury
	noted    string   // the note of the jury that is stored, or on its way
	infinite infinite // the step in hand came to a NaN or an infinity

	foreign  map[string]foreigner // replicas that have obeyed a later leader, by id
	leading  bool                 // a term above theirs is on its way to the log
	recall   recall
	unfit    map[string]bool // ids of replicas whose commits could not be had
	doubted  map[string]bool // ids of replicas that claimed what they did not prove
	short    int64           // people know that the log lacks the steps up to here
	recorded int64           // the last step that the observer has been told of

	asked   map[string]time.Time // when a stranger was asked to say Hello
	asleep  map[string]bool      // ids that were given up and may be there: they fell silent, wait in vain, or hang
	sleeps  int64                // where the job stood when a member was given up because it was silent: it may come back with that state
	tried   []string             // members of a round that failed, the oldest first: one of them may be left out of the next
	split   split                // members that could not agree
	noRoom  bool                 // there was none for the last checkpoint
	trouble string               // what the last replica died of, if it said so, since the last step

	latest CommitRecord // for Status
	since  time.Time    // since when what is awaited is
	awaits string       // what is
}

// NewCore makes the core of a job that begins, or goes on from what the log
// and the checkpoints hold.
func NewCore(cfg CoreConfig) *Core {
	lastRound, why, told := cfg.Round, "start", cfg.Recorded
	if cfg.Head != nil {
		lastRound = max(lastRound, cfg.Head.Round)
		told = max(told, cfg.Head.Step) // by whoever read the log
	}
	past := history.New(cfg.Checkpoint, cfg.Head, cfg.Tail)
	if past.Head() > 0 {
		why = fmt.Sprintf("the coordinator started again after step %d", past.Head())
	}
	known, err := jury.Remember(cfg.Audits)
	if err != nil {
		known = jury.New() // Server has said so
	}
	c := &Core{
		cfg: cfg, data: cfg.Data, roster: roster.New(), history: past, copies: copies.New(cfg.Training),
		course: round.NewCourse(lastRound, why), patience: patience.New(cfg.Limits), blame: blame.New(), asked: map[string]time.Time{}, asleep: map[string]bool{},
		audits: audit.RuleOf(cfg.Training), jury: known, noted: cfg.Audits,
		foreign: map[string]foreigner{}, unfit: map[string]bool{}, doubted: map[string]bool{}, recorded: told,
	}
	c.checkCase()
	return c
}

// Step takes one input and says what to do. now must not go backwards.
func (c *Core) Step(now time.Time, in Input) Plan {
	c.now, c.plan = now, nil
	c.patience.Starts(now)
	if from, known := c.sender(in); known {
		switch state := c.course.State(); {
		case state == round.Finished:
		case inputs[in.kind()][state] == take:
			c.take(from, in)
		case inputs[in.kind()][state] != drop:
			panic(fmt.Sprintf("coordinator: %s while %s", in.kind(), state))
		}
	}
	for c.advance() {
	}
	if c.jury.Changed() {
		c.noteAudits()
	}
	if awaits := c.course.Explain(); awaits != c.awaits {
		c.awaits, c.since = awaits, now
	}
	return Plan{Actions: c.plan, Reason: c.awaits}
}

// sender is the replica that a message is from, which shows that it is alive;
// nil for a Hello, for a Drain, which anybody may say, and for what is no message.
// False: the message is not for us, or from a replica that is not admitted and is
// asked to say Hello.
func (c *Core) sender(in Input) (from *roster.Replica, known bool) {
	m, isMessage := in.(Received)
	switch {
	case isMessage && c.tooFar(m.Message):
		return nil, false
	case !isMessage, in.kind() == hello, in.kind() == drain, c.course.State() == round.Finished:
		return nil, true
	case m.Message.Version != protocol.Version, m.Message.From == "":
		return nil, false
	}
	if c.isForeign(m.Message) {
		return nil, false
	}
	from = c.roster.Get(m.Message.From)
	if from == nil {
		c.patience.Calls(c.now, m.Message.From)
		c.askAgain(m.Message.From)
		return nil, false
	}
	from.Seen(c.now)
	return from, true
}

// take notes what an input says; advance draws the conclusions.
func (c *Core) take(from *roster.Replica, in Input) {
	switch in := in.(type) {
	case Received:
		c.receive(from, in.Message)
	case Lost:
		c.lost(in.ID, in.Why)
	case Hint:
		if r := c.roster.Get(in.ID); r != nil {
			r.Hint(in.Dead)
		}
	case Appended:
		c.appended(in.Step)
	case AppendFailed:
		c.appendFailed(in)
	case Led:
		c.led(in.Term)
	case Adopted:
		c.adopted()
	case Arriving:
		c.arriving(in)
	case Stored:
		c.stored(in)
	case StoreFailed:
		c.storeFailed(in)
	case Tick:
		c.tick(in.Stood)
	case StopRequested:
		c.stopRequested(in.Reason)
	default:
		panic(fmt.Sprintf("coordinator: no handler for %T", in))
	}
}

// receive is take for a message.
func (c *Core) receive(from *roster.Replica, m protocol.Message) {
	switch {
	case m.Hello != nil:
		c.hello(m.Version, m.Term, *m.Hello)
	case m.Ready != nil:
		c.ready(from, m.Ready)
	case m.Applied != nil:
		c.applied(from, m.Applied)
	case m.Failed != nil:
		c.failed(from, *m.Failed)
	case m.Leaving != nil:
		c.leaving(from, time.Duration(m.Leaving.GraceMS)*time.Millisecond)
	case m.Heartbeat != nil:
		c.heartbeat(from, *m.Heartbeat)
	case m.Recalled != nil:
		c.recalled(from, m.Recalled)
	case m.Drain != nil:
		c.drain(m.Version, m.From, *m.Drain)
	}
}

// advance does the next thing that is possible, and says whether it did any.
func (c *Core) advance() bool {
	r := c.course.Round()
	switch c.course.State() {
	case round.Gathering:
		return c.gather()
	case round.Voting:
		return r.AllVoted() && c.decide()
	case round.Applying, round.Closing:
		return r.AllApplied() && c.closeStep()
	case round.Over:
		return c.endRound()
	case round.Concluding:
		return c.conclude()
	}
	return false // the log, a checkpoint, or nothing at all is awaited
}

func (c *Core) do(a Action) { c.plan = append(c.plan, a) }

func (c *Core) send(to string, m protocol.Message) {
	m.Version = protocol.Version
	c.do(Send{To: to, Message: m})
}

func (c *Core) report(e event.Event) { c.do(Report{e}) }

// record tells the observer of a commit.
func (c *Core) record(r CommitRecord) {
	r.Replayed = r.Replayed || r.Commit.Step <= c.recorded // of a log that was shorter than the record
	c.recorded = max(c.recorded, r.Commit.Step)
	c.do(Record{r})
}

// about names a replica in an event.
func about(r *roster.Replica) event.Replica { return event.Replica{Name: r.Name(), ID: r.ID()} }

// Total is the number of steps of the job; 0: not known yet.
func (c *Core) Total() int64 { return c.history.Total(c.cfg.Training, c.data.Train) }

// maxMembers is how many members a round can have.
func (c *Core) maxMembers() int {
	units := c.cfg.Training.Units()
	if m := c.cfg.Training.MaxReplicas; m > 0 {
		return min(m, units)
	}
	return units
}
