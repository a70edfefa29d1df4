package coordinator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/round"
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
