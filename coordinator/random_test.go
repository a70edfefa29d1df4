package coordinator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/roster"
	"mochi/coordinator/round"
	"mochi/model/figures"
)

// TestRandomHistories throws random interleavings of deliveries, delays,
// crashes, disconnects, joins, leaves, silences, hangs, members that do not reach
// each other or have trouble of their own, and coordinator restarts at a core with
// model replicas, and checks after every event what must never break:
//
//   - the log gets every step exactly once, in order, with a cursor without
//     gap or overlap;
//   - a step is appended only after every member of its round voted for it,
//     with one digest, and computed every group once; groups are dealt in whole
//     units of --groups-at-once, to no more members than there are units;
//   - a commit is published only once it is in the log;
//   - round numbers increase;
//   - a replica told to rely on its own state holds it (but once in a thousand
//     rounds, when messages crossed on a broken connection);
//   - with --queue-copies R a shard of the queue is lost only when R or more
//     members were since the last commit without them; whoever has to send a
//     shard has it, and a step is run by members that have all of theirs;
//   - the observer hears of every step in order, once, and again only when it
//     is run again;
//
// and, when the faults cease, that the job ends. Besides, everything that the
// table takes must have happened in some history.
func TestRandomHistories(t *testing.T) {
	histories := 150
	if testing.Short() {
		histories = 80
	}
	var total totals
	for seed := range histories {
		w := newWorld(t, uint64(seed), []string{"all", "2", "3"}[seed%3], []int{1, 1, 2, 1, 3}[seed%5])
		w.run()
		total.add(w.totals)
	}
	t.Logf("%+v", total)
	if total.misjudged > total.rounds/1000 {
		t.Errorf("the core was wrong about what replicas hold in %d of %d rounds", total.misjudged, total.rounds)
	}
	if total.restarts == 0 || total.crashes == 0 || total.replays == 0 || total.resent == 0 || total.peers == 0 ||
		total.sent == 0 || total.shardsLost == 0 || total.repaired == 0 || total.saves == 0 || total.silences == 0 ||
		total.hung == 0 || total.stalled == 0 || total.troubles == 0 || total.leftOut == 0 {
		t.Errorf("some faults never happened: %+v", total)
	}
	rare := 0
	for ; len(total.taken.missing()) > 0 && rare < 600; rare++ {
		w := newWorld(t, uint64(1000+rare), []string{"2", "3"}[rare%2], []int{1, 1, 2, 1, 3}[rare%5])
		w.rare = true
		w.run()
		total.add(w.totals)
	}
	t.Logf("%d histories with rare events", rare)
	if missing := total.taken.missing(); len(missing) > 0 {
		t.Errorf("the table takes what never came in %d histories: %q", histories+rare, missing)
	}
}

type totals struct {
	steps, rounds, restarts, crashes, replays, resent, peers, misjudged int
	sent, shardsLost, repaired, saves                                   int // of the queue's shards
	silences, hangs, troubles, leftOut, hung, stalled                   int
	taken                                                               seen
}

func (a *totals) add(b totals) {
	a.steps += b.steps
	a.rounds += b.rounds
	a.restarts += b.restarts
	a.crashes += b.crashes
	a.replays += b.replays
	a.resent += b.resent
	a.peers += b.peers
	a.misjudged += b.misjudged
	a.sent += b.sent
	a.shardsLost += b.shardsLost
	a.repaired += b.repaired
	a.saves += b.saves
	a.silences += b.silences
	a.hangs += b.hangs
	a.troubles += b.troubles
	a.leftOut += b.leftOut
	a.hung += b.hung
	a.stalled += b.stalled
	for k := range a.taken {
		for s := range a.taken[k] {
			a.taken[k][s] += b.taken[k][s]
		}
	}
}

const worldSteps, worldShards = 25, 7

// world is a core, its log and checkpoints, and model replicas.
type world struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	now   time.Time
	trace []string

	core        *Core
	incarnation int
	log         []protocol.Commit
	checkpoint  *Checkpoint
	appends     []protocol.Commit // asked for, not yet answered
	uploads     []int64           // on their way
	replicas    []*model
	born        int
	recorded    int64 // last step the observer heard of
	replaying   int64
	lastRound   int64
	finished    bool
	faults      bool
	failing     bool // the job is about to fail, as it should
	rare        bool // hints, stops, and a log that fails happen as well
	totals      totals

	copies  string          // --queue-copies
	atOnce  int             // --groups-at-once
	world   int             // members at the last commit
	missing map[string]bool // members lost since the last commit without them
	mended  map[string]bool // of those copies that were replaced and not committed with
}

// model is a replica reduced to what the protocol sees.
type model struct {
	id        string
	alive     bool
	connected bool
	leaving   bool
	in, out   []protocol.Message
	lostEvent bool // its disconnect is not yet known to the coordinator

	known   bool
	holds   bool
	step    int64 // state after this many commits; the state of a step is a constant
	round   *protocol.Round
	rank    int
	next    int64 // step being computed, 0 when idle
	pending *protocol.Pending
	shards  [worldShards]bool // sound copies at step
	bad     [worldShards]bool // copies with a flipped bit
	hung    bool              // it computes for ever
	beats   int64
	fresh   bool // the round has committed nothing yet: it keeps what it held before
}

func newWorld(t *testing.T, seed uint64, copies string, atOnce int) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), faults: true,
		copies: copies, atOnce: atOnce, missing: map[string]bool{}, mended: map[string]bool{}}
	w.boot()
	for range 1 + w.rng.IntN(3) {
		w.join()
	}
	return w
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	for _, line := range w.trace[max(0, len(w.trace)-60):] {
		w.t.Log(line)
	}
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// boot starts a coordinator from the log and the checkpoint.
func (w *world) boot() {
	w.incarnation++
	cfg := CoreConfig{
		Instance: fmt.Sprint(w.incarnation), Binary: "b", ConfigDigest: "c",
		Training: config.Job{
			Batch: 6, BNGroup: 1, Queue: 16, Steps: worldSteps, Epochs: 9, CheckpointEvery: 5, MinReplicas: 1,
			MaxReplicas: 4, GroupsAtOnce: w.atOnce, QueueShards: worldShards, QueueCopies: w.copies, Pairs: "shard",
		},
		LR:         func(float64) float64 { return 0.1 },
		Checkpoint: w.checkpoint,
		Round:      w.lastRound,
		Limits:     Limits{RebalanceMin: 6, Step: time.Duration(w.seed%2) * 20 * time.Second, Joins: time.Duration(w.seed%3) - 1},
	}
	for _, c := range w.log {
		if w.checkpoint == nil || c.Step > w.checkpoint.Step {
			cfg.Tail = append(cfg.Tail, c)
		}
	}
	if n := len(w.log); n > 0 {
		cfg.Head = &w.log[n-1]
	}
	w.core = NewCore(cfg)
	w.appends = nil
	w.recorded = int64(len(w.log)) // the server recovers what was not recorded
	w.note("coordinator %d boots at step %d", w.incarnation, len(w.log))
}

func (w *world) run() {
	for i := 0; !w.finished; i++ {
		if i == 1500 {
			w.faults = false
			w.note("the faults cease")
			for _, m := range w.replicas {
				m.hung = false
			}
		}
		if i > 20000 {
			w.fatalf("the job does not end: %s, %+v", w.core.course.Explain(), w.core.Status())
		}
		if w.rare && w.faults && w.rng.IntN(w.every()) == 0 {
			w.rarity()
		} else {
			w.event()
		}
		if w.finished && w.rare && (w.checkpoint == nil || w.checkpoint.Step < worldSteps) {
			w.startAgain()
		}
	}
	w.totals.steps += len(w.log)
	if len(w.log) != worldSteps {
		w.fatalf("%d steps in the log", len(w.log))
	}
	if w.checkpoint == nil || w.checkpoint.Step != worldSteps {
		w.fatalf("the last checkpoint is %+v", w.checkpoint)
	}
}

// event lets one random thing happen.
func (w *world) event() {
	w.now = w.now.Add(time.Duration(w.rng.IntN(30)) * time.Millisecond)
	alive := w.living()
	if len(alive) == 0 || !w.faults && len(alive) < 2 {
		w.join()
		return
	}
	m := alive[w.rng.IntN(len(alive))]
	switch n := w.rng.IntN(1000); {
	case n < 330:
		w.deliverUp(m)
	case n < 620:
		w.deliverDown(m)
	case n < 800:
		w.compute(m)
	case n < 850:
		w.appendDone()
	case n < 880:
		w.storeDone()
	case n < 920:
		w.lostKnown()
	case n < 970:
		w.beats()
	case !w.faults:
		w.appendDone()
		w.storeDone()
	case n < 975:
		w.crash(m)
	case n < 979:
		w.disconnect(m)
	case n < 984 && len(alive) < 6:
		w.join()
	case n < 988:
		w.leave(m)
	case n < 990:
		w.restart()
	case n < 992:
		if v := w.rng.IntN(worldShards); m.holds && m.shards[v] && len(alive) > 1 {
			w.note("a bit of shard %d flips on %s", v, m.id)
			m.bad[v] = true
			w.missing["flip "+m.id] = true // one copy less
			delete(w.mended, "flip "+m.id)
		}
	case n < 994:
		w.fullDisk()
	case n < 995:
		w.ownTrouble(m)
	case n < 996:
		w.silence()
	case n < 997:
		for _, m := range alive {
			if m.next > 0 && m.connected {
				w.hang(m)
				break
			}
		}
	case n < 998:
		if m.round != nil && m.next > 0 && len(m.round.Members) > 1 {
			suspect := m.round.Members[w.rng.IntN(len(m.round.Members))].ID
			m.send(protocol.Message{Failed: &protocol.Failed{Round: m.round.Round, Step: m.next, Suspect: suspect, Error: "no route"}})
			m.next = 0
		}
	default:
		if m.round != nil && m.next > 0 {
			m.send(protocol.Message{Failed: &protocol.Failed{Round: m.round.Round, Step: m.next, Error: "ring"}})
			m.next = 0
		}
	}
}

// every is how often something rare happens: one event in so many.
func (w *world) every() int {
	if w.core.course.State() == round.Saving {
		return 3 // that is rare by itself
	}
	return 12
}

// rarity lets one thing happen that does not in every job.
func (w *world) rarity() {
	alive := w.living()
	if len(alive) == 0 {
		return
	}
	m := alive[w.rng.IntN(len(alive))]
	switch n := w.rng.IntN(100); {
	case n < 60:
		w.step(Hint{m.id, w.rng.IntN(2) == 0})
	case n < 63:
		w.note("a stop is asked for")
		w.step(StopRequested{"interrupt"})
	case n < 65 && len(w.appends) > 0:
		w.failAppend(w.rng.IntN(2) == 0)
	case n < 72: // kept by its client while the connection was broken
		m.send(protocol.Message{Failed: &protocol.Failed{Round: w.lastRound - 1, Step: m.step + 1, Error: "late"}})
	case n < 79:
		m.send(protocol.Message{Applied: &protocol.Applied{Round: w.lastRound - 1, Step: m.step, StateDigest: "late"}})
	case n < 85:
		w.fullDisk()
	case n < 90:
		w.leave(m)
	case n < 97 && len(alive) > 1:
		w.note("%s is drained", m.id)
		w.missing[m.id] = true
		w.step(Received{protocol.Message{Version: protocol.Version, From: "op", Drain: &protocol.Drain{Replica: m.id, GraceMS: w.rng.Int64N(1000)}}})
	}
}

// ownTrouble is a replica that ends with an error of its own: it says so first.
func (w *world) ownTrouble(m *model) {
	if !m.connected || len(w.living()) < 2 {
		return
	}
	w.note("%s has trouble of its own", m.id)
	w.totals.troubles++
	for len(m.out) > 0 {
		w.deliverUp(m)
	}
	f := &protocol.Failed{Leaves: true, Error: strings.Repeat("x", w.rng.IntN(50))}
	if m.round != nil {
		f.Round, f.Step = m.round.Round, m.step+1
	}
	m.send(protocol.Message{Failed: f})
	w.deliverUp(m)
	w.missing[m.id] = true
	m.alive, m.lostEvent = false, true
}

// hang makes a member compute for ever, and lets up to 90 s pass in which all go
// on to show life.
func (w *world) hang(m *model) {
	w.note("%s hangs", m.id)
	w.totals.hangs++
	m.hung = true
	for range w.rng.IntN(90) {
		w.now = w.now.Add(time.Second)
		for _, o := range w.living() {
			if o.connected {
				b := &protocol.Heartbeat{Phase: "computing", Step: o.next, Done: o.beats, Peers: !o.hung}
				switch {
				case o.pending != nil:
					b.Phase, b.Step, b.Peers = protocol.PhaseReady, o.pending.Step, false
				case o.next == 0:
					b.Phase, b.Peers = protocol.PhaseWaiting, false
				}
				w.step(Received{protocol.Message{Version: protocol.Version, From: o.id, Heartbeat: b}})
			}
		}
		w.step(Tick{})
		if w.finished {
			return
		}
	}
}

// silence is a network that is away for up to 40 s: nobody is heard, nobody dies.
// What the coordinator says meanwhile may be lost.
func (w *world) silence() {
	w.note("nobody is heard")
	w.totals.silences++
	lose := w.rng.IntN(2) == 0
	for range 1 + w.rng.IntN(40) {
		w.now = w.now.Add(time.Second)
		w.step(Tick{})
	}
	for _, m := range w.living() {
		w.missing[m.id] = true
		if lose {
			m.in = nil
		}
	}
}

// fullDisk makes a checkpoint fail that is on its way. The job fails if it
// cannot end without it, so in most histories that is not done to it.
func (w *world) fullDisk() {
	if len(w.uploads) == 0 || w.uploads[0] == worldSteps && !w.rare {
		return
	}
	step := w.uploads[0]
	if w.rng.IntN(2) == 0 { // of a replica that may be gone by now
		from := "nobody"
		if len(w.replicas) > 0 {
			from = w.replicas[w.rng.IntN(len(w.replicas))].id
		}
		w.note("arriving %d from %s", step, from)
		w.step(Arriving{From: from, Step: step})
		if w.rng.IntN(2) == 0 {
			return
		}
	}
	w.uploads = w.uploads[1:]
	w.failing = w.rare && w.core.course.Finishing()
	w.step(StoreFailed{Step: step, Error: "full"})
	w.failing = false
}

// failAppend is a log that does not answer, or that another coordinator has
// written to. Either way nobody knows whether the commit is in it.
func (w *world) failAppend(fenced bool) {
	w.note("the log fails (fenced: %v)", fenced)
	w.failing = true
	w.step(AppendFailed{Step: w.appends[0].Step, Fenced: fenced, Error: "no luck"})
	w.failing = false
	if w.finished = false; fenced {
		w.restart()
	} else {
		w.startAgain()
	}
}

// startAgain starts a job again that was stopped or has failed: everybody was
// sent home.
func (w *world) startAgain() {
	w.note("the job is started again")
	w.finished = false
	for _, m := range w.replicas {
		m.alive = false
	}
	w.restart()
	w.join()
	w.join()
}

func (w *world) living() []*model {
	return slices.DeleteFunc(slices.Clone(w.replicas), func(m *model) bool { return !m.alive })
}

func (w *world) step(in Input) {
	w.totals.taken.note(w.core, in)
	for _, a := range w.core.Step(w.now, in).Actions {
		w.note("  %s", show(a))
		w.act(a)
	}
}

func (w *world) act(a Action) {
	switch a := a.(type) {
	case Send:
		for _, m := range w.replicas {
			if m.id == a.To && m.alive && m.connected {
				m.in = append(m.in, a.Message)
			}
		}
		w.checkSent(a)
	case Reserve:
		if a.Round <= w.lastRound {
			w.fatalf("round %d after %d", a.Round, w.lastRound)
		}
		w.lastRound = a.Round
		w.totals.rounds++
	case Append:
		w.checkAppend(a.Commit)
		w.appends = append(w.appends, a.Commit)
	case Record:
		w.checkRecord(a.CommitRecord)
	case Report:
		switch e := a.Event.(type) {
		case event.RolledBack:
			w.totals.replays++
			w.replaying = e.To
		case event.SentAgain:
			w.totals.resent++
		case event.LeftOut:
			w.totals.leftOut++
		case event.Stalled:
			w.totals.stalled++
		case event.Lost:
			if strings.Contains(e.Reason, "hangs") {
				w.totals.hung++
				w.missing[e.ID] = true
			}
		case event.ShardsLost:
			w.totals.shardsLost++
			if r := w.core.cfg.Training.Copies(); r > 0 && len(w.missing) < min(r, w.world) {
				w.fatalf("%+v: lost %v of %d members, R = %d", e, w.missing, w.world, r)
			}
		case event.ShardMismatch, event.ShardDamaged:
			w.totals.repaired++
		case event.DigestMismatch, event.ReplayMismatch, event.AheadOfLog:
			w.fatalf("%s: %+v", e.EventName(), e)
		}
	case Finish:
		if a.Failed && !w.failing {
			w.fatalf("the job failed: %s", a.Reason)
		}
		w.finished = true
	}
}

func (w *world) checkAppend(c protocol.Commit) {
	if len(w.appends) > 0 {
		w.fatalf("two appends at a time")
	}
	if c.Step != int64(len(w.log))+1 || c.Cursor != 6*(c.Step-1) || c.QueueStart != int(c.Cursor%16) {
		w.fatalf("step %d, cursor %d appended behind %d steps", c.Step, c.Cursor, len(w.log))
	}
	for i, g := range c.Groups {
		if g.Group != i || len(c.Groups) != 6 {
			w.fatalf("groups %+v", c.Groups)
		}
	}
	r := w.core.course.Round()
	for _, m := range r.Members() {
		if v := r.VoteOf(m); v == nil || v.Digest != c.Digest || v.Step != c.Step || v.Round != c.Round {
			w.fatalf("commit %+v without the vote of %s: %+v", c, m, v)
		}
	}
	w.world = len(r.Members())
	inRound := func(id string) bool {
		return slices.ContainsFunc(r.Members(), func(m *roster.Replica) bool { return m.ID() == id })
	}
	for id := range w.mended {
		if inRound(strings.TrimPrefix(id, "flip ")) {
			delete(w.missing, id)
			delete(w.mended, id)
		}
	}
	for id := range w.missing {
		if !strings.HasPrefix(id, "flip ") && !inRound(id) {
			delete(w.missing, id)
		}
	}
}

func (w *world) checkSent(a Send) {
	if r := a.Message.Round; r != nil {
		if r.Round != w.lastRound {
			w.fatalf("round %d was not reserved (%d)", r.Round, w.lastRound)
		}
		seen := map[int]bool{}
		for _, m := range r.Members {
			for i, g := range m.Groups {
				if seen[g] || g < 0 || g >= 6 {
					w.fatalf("group %d dealt twice in %+v", g, r)
				}
				seen[g] = true
				if first := m.Groups[i-i%w.atOnce]; len(m.Groups)%w.atOnce != 0 || first%w.atOnce != 0 || g != first+i%w.atOnce {
					w.fatalf("a unit of %d groups is split in %+v", w.atOnce, r)
				}
			}
			if len(m.Groups) == 0 {
				w.fatalf("a member without work in %+v", r)
			}
		}
		if len(seen) != 6 || r.Cursor != 6*(r.Step-1) {
			w.fatalf("round %+v", r)
		}
	}
	if c := a.Message.Commit; c != nil && int64(len(w.log)) < c.Step {
		w.fatalf("commit %d published before it is in the log", c.Step)
	}
}

func (w *world) checkRecord(r CommitRecord) {
	step := r.Commit.Step
	if r.Replayed {
		if step <= w.replaying { // a returned replica may bring a later state
			w.fatalf("replayed record %d after %d", step, w.replaying)
		}
		w.replaying = step
		return
	}
	if step != w.recorded+1 {
		w.fatalf("record %d after %d", step, w.recorded)
	}
	w.recorded = step
}

func (w *world) join() {
	w.born++
	m := &model{id: fmt.Sprintf("r%d", w.born), alive: true, connected: true}
	w.replicas = append(w.replicas, m)
	w.note("%s starts", m.id)
	m.hello()
}

func (m *model) send(msg protocol.Message) {
	msg.Version, msg.From = protocol.Version, m.id
	m.out = append(m.out, msg)
}

func (m *model) hello() {
	h := &protocol.Hello{ID: m.id, Name: m.id, Binary: "b", Data: protocol.Data{Kind: "idx", Train: 100}, Pending: m.pending}
	if m.known { // it has built what the job needs
		h.Config = "c"
	}
	if m.holds {
		h.State = &protocol.Position{Step: m.step, Digest: state(m.step), Shards: m.digests()}
		for v, bad := range m.bad {
			if bad { // it looks before it says what it holds
				h.State.Shards[v] = ""
			}
		}
	}
	m.send(protocol.Message{Hello: h})
}

func state(step int64) string     { return fmt.Sprintf("s%d", step) }
func gradients(step int64) string { return fmt.Sprintf("g%d", step) }

func (w *world) deliverUp(m *model) {
	if len(m.out) == 0 || !m.connected {
		return
	}
	msg := m.out[0]
	m.out = m.out[1:]
	if msg.Heartbeat == nil {
		w.note("from %s: %s", m.id, brief(msg))
	}
	w.step(Received{msg})
}

func brief(m protocol.Message) string {
	switch {
	case m.Hello != nil:
		return fmt.Sprintf("hello state=%+v pending=%+v", m.Hello.State, m.Hello.Pending)
	case m.Ready != nil:
		return fmt.Sprintf("ready %d round %d", m.Ready.Step, m.Ready.Round)
	case m.Applied != nil:
		return fmt.Sprintf("applied %d round %d", m.Applied.Step, m.Applied.Round)
	case m.Failed != nil:
		return fmt.Sprintf("failed %+v", *m.Failed)
	}
	return "leaving"
}

// deliverDown lets a replica handle one message, as package replica does.
func (w *world) deliverDown(m *model) {
	if len(m.in) == 0 {
		return
	}
	msg := m.in[0]
	m.in = m.in[1:]
	switch {
	case msg.Welcome != nil:
		if !m.known {
			m.known = true
			m.hello()
		}
	case msg.Again != nil:
		m.hello()
	case msg.Round != nil:
		w.enter(m, msg.Round)
	case msg.Commit != nil:
		w.commit(m, msg.Commit)
	case msg.Snapshot != nil:
		if m.holds && m.step == msg.Snapshot.Step && m.shards == everything {
			w.uploads = append(w.uploads, m.step)
		}
	case msg.Stop != nil:
		w.note("%s stops", m.id)
		m.alive, m.lostEvent = false, true
	}
}

func (w *world) enter(m *model, r *protocol.Round) {
	if !m.known {
		return // its Welcome was lost with a connection; the coordinator will hear of that
	}
	m.round, m.rank, m.next, m.pending = nil, -1, 0, nil
	for rank, member := range r.Members {
		if member.ID != m.id {
			continue
		}
		m.round, m.rank = r, rank
		switch member.State {
		case protocol.FromSeed:
			m.holds, m.step = true, 0
		case protocol.FromCheckpoint:
			if r.Checkpoint == "" {
				w.fatalf("no checkpoint named in %+v", r)
			}
			m.holds, m.step = true, r.Step-1
		case protocol.FromPeer:
			w.totals.peers++
			if r.Members[r.Donor].State != protocol.FromSelf {
				w.fatalf("the donor of %+v has no state", r)
			}
			m.holds, m.step = true, r.Step-1
		}
		if member.State != protocol.FromSelf {
			m.shards, m.bad = [worldShards]bool{}, [worldShards]bool{}
			if member.State != protocol.FromPeer {
				m.shards = everything
			} else if !r.Spread() {
				m.shards = everything
			}
		}
		m.fresh = true
		if !m.holds || m.step != r.Step-1 {
			// Only messages that crossed on a broken connection can mislead
			// the core so; the replica says so and is given a state.
			w.note("%s is to start step %d and holds %v %d", m.id, r.Step, m.holds, m.step)
			w.totals.misjudged++
			m.holds = false
			m.send(protocol.Message{Failed: &protocol.Failed{Round: r.Round, Step: r.Step, NoState: true}})
			return
		}
		if !w.transfer(m, r) { // a sender is gone: the ring breaks
			m.holds = m.holds && member.State == protocol.FromSelf
			m.send(protocol.Message{Failed: &protocol.Failed{Round: r.Round, Step: r.Step, NoState: !m.holds}})
			return
		}
		if r.Save {
			if w.totals.saves++; rank == 0 {
				w.save(m, r)
			}
			return
		}
		m.next = r.Step
	}
}

var everything = [worldShards]bool{true, true, true, true, true, true, true}

// transfer makes the copies for m, and says whether it has all it should.
func (w *world) transfer(m *model, r *protocol.Round) bool {
	for _, t := range r.Transfers {
		from := r.Members[t.From]
		if !slices.Contains(t.To, m.rank) {
			continue
		}
		for _, other := range w.replicas {
			if other.id == from.ID {
				if !other.alive || !other.holds || other.step != r.Step-1 {
					return false
				}
				if from.State != protocol.FromSelf || !other.shards[t.Shard] {
					w.fatalf("%s is to send shard %d and holds %v", other.id, t.Shard, other.shards)
				}
				if other.bad[t.Shard] { // it looks before it sends
					other.next = 0
					other.send(protocol.Message{Failed: &protocol.Failed{Round: r.Round, Step: r.Step, Damaged: []int{t.Shard}}})
					return false
				}
				m.shards[t.Shard], m.bad[t.Shard] = true, false
				w.totals.sent++
				w.mended["flip "+m.id] = true // the core knows once the step is voted for
			}
		}
	}
	for v := range worldShards {
		if m.mustHold(v) && !m.shards[v] { // misled as above; the replica looks before it computes
			w.note("%s lacks shard %d and nobody is to send it", m.id, v)
			w.totals.misjudged++
			m.send(protocol.Message{Failed: &protocol.Failed{Round: r.Round, Step: r.Step, Damaged: []int{v}}})
			return false
		}
	}
	return true
}

func (m *model) mustHold(v int) bool {
	return !m.round.Spread() || slices.Contains(m.round.Holders[v], m.rank)
}

// save puts the checkpoint together from what the members hold, if none has
// gone on.
func (w *world) save(m *model, r *protocol.Round) {
	var have [worldShards]bool
	for _, other := range w.replicas {
		for _, member := range r.Members {
			if member.ID == other.id && other.alive && other.holds && other.step == r.Step-1 {
				for v := range have {
					have[v] = have[v] || other.shards[v]
				}
			}
		}
	}
	if have == everything {
		w.uploads = append(w.uploads, r.Step-1)
	} else {
		m.send(protocol.Message{Failed: &protocol.Failed{Round: r.Round, Step: r.Step, Unsaved: r.Step - 1}})
	}
}

// digests are those of the shards that m holds.
func (m *model) digests() []string {
	list := make([]string, worldShards)
	for v, has := range m.shards {
		switch {
		case has && m.bad[v]:
			list[v] = fmt.Sprintf("%s has another %d", m.id, v)
		case has:
			list[v] = fmt.Sprintf("v%d.%d", v, m.step)
		}
	}
	return list
}

func (w *world) compute(m *model) {
	if m.next == 0 || m.round == nil || m.hung {
		return
	}
	v := &protocol.Ready{Round: m.round.Round, Step: m.next, Digest: gradients(m.next), BusyMS: float64(1 + w.rng.IntN(50))}
	for _, g := range m.round.Members[m.rank].Groups {
		v.Groups = append(v.Groups, protocol.GroupReport{Group: g, Figures: figures.Figures{Loss: 1}})
	}
	m.pending = &protocol.Pending{Round: m.round.Round, Step: m.next, Digest: v.Digest}
	m.next = 0
	m.send(protocol.Message{Ready: v})
}

func (w *world) commit(m *model, c *protocol.Commit) {
	if m.pending == nil || m.pending.Step != c.Step {
		return
	}
	if m.step != c.Step-1 || m.pending.Digest != c.Digest {
		w.fatalf("%s at %d cannot apply %d", m.id, m.step, c.Step)
	}
	m.step, m.pending = c.Step, nil
	if m.fresh && m.round != nil && m.rank >= 0 {
		for v := range worldShards {
			m.shards[v] = m.shards[v] && m.mustHold(v)
		}
		m.fresh = false
	}
	a := &protocol.Applied{Round: c.Round, Step: c.Step, StateDigest: state(c.Step), Shards: m.digests()}
	for v := range worldShards {
		if m.shards[v] && m.bad[v] {
			a.Damaged = append(a.Damaged, v)
		}
	}
	m.send(protocol.Message{Applied: a})
	inRound := m.round != nil && c.Round == m.round.Round
	if c.Checkpoint && m.rank == 0 && inRound {
		oneIn := 8
		if w.rare && c.Final {
			oneIn = 2 // so that rounds without a step are no exception
		}
		if m.shards == everything || w.rng.IntN(oneIn) > 0 {
			w.uploads = append(w.uploads, c.Step)
		} else { // the ring broke while the shards were gathered
			m.send(protocol.Message{Failed: &protocol.Failed{Round: c.Round, Step: c.Step + 1, Unsaved: c.Step}})
			return
		}
	}
	if inRound && !c.EndRound {
		m.next = c.Step + 1
	}
}

func (w *world) appendDone() {
	if len(w.appends) == 0 {
		return
	}
	c := w.appends[0]
	w.appends = nil
	w.log = append(w.log, c)
	w.note("appended %d", c.Step)
	w.step(Appended{c.Step})
}

func (w *world) storeDone() {
	if len(w.uploads) == 0 {
		return
	}
	step := w.uploads[0]
	w.uploads = w.uploads[1:]
	if w.checkpoint == nil || step > w.checkpoint.Step {
		w.checkpoint = &Checkpoint{Name: fmt.Sprint(step), Step: step, Cursor: 6 * step}
	}
	w.note("stored %d", step)
	w.step(Stored{Name: fmt.Sprint(step), Step: step})
}

func (w *world) lostKnown() {
	for _, m := range w.replicas {
		if m.lostEvent {
			m.lostEvent = false
			w.note("lost %s", m.id)
			w.step(Lost{m.id, "closed"})
			return
		}
	}
}

// beats is everybody's heartbeat, then a tick.
func (w *world) beats() {
	for _, m := range w.living() {
		if m.connected && len(m.out) > 0 {
			continue // busy links would fill up with heartbeats
		}
		if m.connected {
			if !m.hung {
				m.beats++
			}
			b := &protocol.Heartbeat{Phase: "computing", Done: m.beats}
			if m.round != nil {
				b.Round = m.round.Round
			}
			switch {
			case m.pending != nil:
				b.Phase, b.Step = protocol.PhaseReady, m.pending.Step
			case m.next == 0:
				b.Phase = protocol.PhaseWaiting
			}
			m.send(protocol.Message{Heartbeat: b})
		} else if w.rng.IntN(3) == 0 {
			w.note("%s reconnects", m.id)
			m.connected = true
		}
	}
	w.step(Tick{})
}

func (w *world) crash(m *model) {
	w.note("%s crashes", m.id)
	w.totals.crashes++
	w.missing[m.id] = true
	m.alive, m.lostEvent = false, true
}

// disconnect loses what was in flight; messages sent meanwhile are kept by
// the client, as NATS does.
func (w *world) disconnect(m *model) {
	w.note("%s is disconnected", m.id)
	w.missing[m.id] = true
	m.connected, m.lostEvent, m.in, m.out = false, true, nil, nil
}

func (w *world) leave(m *model) {
	if !m.leaving && len(w.living()) > 1 {
		w.note("%s leaves", m.id)
		w.missing[m.id] = true
		m.leaving = true
		m.send(protocol.Message{Leaving: &protocol.Leaving{}})
	}
}

// restart kills the coordinator; an append that was under way may or may not
// have happened.
func (w *world) restart() {
	if len(w.appends) > 0 && w.rng.IntN(2) == 0 {
		w.log = append(w.log, w.appends[0])
	}
	w.totals.restarts++
	w.uploads = nil
	for _, m := range w.replicas {
		w.missing[m.id] = true // until it is heard of again
		m.lostEvent = false
		m.in, m.out = nil, nil
	}
	w.boot()
}
