package clustertest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/replica"
	"mochi/replica/checkpoint"
)

// truth is what the unbroken run has after a step: replicas agree with it to
// the bit, whatever happened to them.
type truth struct {
	gradients string         // digest in the commit
	state     string         // digest of all but the queue
	shards    map[int]string // of the queue
	file      string         // digest of what a checkpoint holds
}

// checks is what "always" needs to remember.
type checks struct {
	events   []event.Event      // all, in order
	hellos   map[string]int     // by host
	stood    map[*Process]int64 // the last step that each applied
	again    []int64            // steps that one applied more than once
	expected []string           // ends with an error that the history foresees, by host
	evil     map[string]bool
	held     map[*Process]held        // what each said last that it holds
	lost     map[string]time.Duration // since when the coordinator has given up a replica, by id
	here     map[string]*Process      // the coordinator that a replica has said Hello to, by id
	failing  bool                     // the job may end as failed
	short    bool                     // a log has lost something: its coordinator may refuse to go on
}

// held is what a replica holds.
type held struct {
	step   int64
	shards []string // digests, "" where it has none
}

// at is what the unbroken run has after a step, nil when that is not known. The
// lock is held.
func (w *World) at(step int64) *truth {
	if w.learning {
		for int64(len(w.reference)) <= step {
			w.reference = append(w.reference, truth{shards: map[int]string{}})
		}
	}
	if step < 0 || step >= int64(len(w.reference)) {
		return nil
	}
	return &w.reference[step]
}

// same compares a digest with the unbroken run's. The lock is held.
func (w *World) same(who, what string, step int64, want *string, got string) {
	switch {
	case *want == "" && w.learning:
		*want = got
	case *want != "" && got != *want:
		w.violatedLocked("%s: %s after step %d is %s, in the unbroken run %s", who, what, step, got, *want)
	}
}

// checkAppend is told of every commit that becomes durable in a log. The lock is held.
func (w *World) checkAppend(in *disk, c protocol.Commit) {
	if anew := w.check.short && in.latest != nil && in.latest.Step == c.Step-1; c.Step != in.head()+1 && !anew {
		w.violatedLocked("step %d is appended behind %d", c.Step, in.head())
	}
	w.checkLogged(c)
}

// checkLogged is told of every commit that is put into a log, whoever it is from. The
// lock is held.
func (w *World) checkLogged(c protocol.Commit) {
	if c.Cursor != (c.Step-1)*int64(w.job.Batch) {
		w.violatedLocked("step %d begins at sample %d", c.Step, c.Cursor)
	}
	t := w.at(c.Step)
	if t == nil {
		w.violatedLocked("step %d is appended to a job of %d", c.Step, w.cfg.Steps)
		return
	}
	w.same("the log", "gradients", c.Step, &t.gradients, c.Digest)
}

// checkSent is told of what the coordinator sends. The lock is held.
func (w *World) checkSent(p *Process, to string, m protocol.Message) {
	if c := m.Commit; c != nil && c.Step > p.journal.head() {
		w.violatedLocked("commit %d is published to %s before it is in the log (%d)", c.Step, to, p.journal.head())
	}
	if r := m.Round; r != nil {
		members := fmt.Sprint(r.Step, r.Members)
		if was, known := p.journal.rounds[r.Round]; known && was != members {
			w.violatedLocked("round %d has two memberships: %s and %s", r.Round, was, members)
		}
		p.journal.rounds[r.Round] = members
	}
	if s := m.Stop; s != nil && s.Failed && !w.check.failing {
		w.violatedLocked("the job ends as failed: %s", s.Reason)
	}
}

// checkSaid is told of what a replica sends. The lock is held.
func (w *World) checkSaid(p *Process, m protocol.Message) {
	if w.check.evil[p.name] {
		return
	}
	switch {
	case m.Hello != nil:
		w.check.hellos[p.name]++
		delete(w.check.lost, p.id)
		if s := m.Hello.State; s != nil {
			w.checkHeld(p, s.Step, s.Digest, s.Shards)
		}
	case m.Applied != nil:
		step := m.Applied.Step
		w.checkHeld(p, step, m.Applied.StateDigest, m.Applied.Shards)
		if step <= w.check.stood[p] {
			w.check.again = append(w.check.again, step)
		}
		w.check.stood[p] = step
	}
}

func (w *World) checkHeld(p *Process, step int64, state string, shards []string) {
	w.check.held[p] = held{step, shards}
	t := w.at(step)
	if t == nil {
		w.violatedLocked("%s holds step %d of a job of %d", p.name, step, w.cfg.Steps)
		return
	}
	w.same(p.name, "the state", step, &t.state, state)
	for v, digest := range shards {
		if digest != "" {
			want := t.shards[v]
			w.same(p.name, fmt.Sprintf("shard %d", v), step, &want, digest)
			t.shards[v] = want
		}
	}
}

// checkStored is told of every checkpoint that becomes durable. The lock is held.
func (w *World) checkStored(s *checkpoint.State) {
	t := w.at(s.Step)
	if t == nil {
		w.violatedLocked("a checkpoint of step %d is stored", s.Step)
		return
	}
	all := append(checkpoint.Digests(s.QueryParams, s.KeyParams, s.Momentum, s.QueryBuffers, s.KeyBuffers, s.Queue),
		fmt.Sprint(s.QueuePtr, s.QueueFilled, s.Cursor, s.QueueLabels))
	w.same("the store", "the checkpoint", s.Step, &t.file, checkpoint.DigestString(strings.Join(all, " ")))
}

// observer is the run's own records (a coordinator.Observer).
type observer struct{ p *Process }

func (o observer) Committed(r coordinator.CommitRecord) {
	w := o.p.w
	if o.p.pass("record", "") != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.leads(o.p) {
		return // its lines reach nobody
	}
	step := r.Commit.Step
	if t := w.at(step); t != nil {
		w.same("the record", "gradients", step, &t.gradients, r.Commit.Digest)
	}
	if r.Replayed {
		w.note(o.p, "recorded again", step)
		return
	}
	in := o.p.journal
	if step != in.recorded+1 && in.recorded+1 >= in.first() {
		w.violatedLocked("step %d is recorded after %d", step, in.recorded)
	}
	in.recorded = max(in.recorded, step)
	w.note(o.p, "recorded", step)
}

func (o observer) Event(e event.Event) {
	w := o.p.w
	if o.p.pass("event "+e.EventName(), "") != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check.events = append(w.check.events, e)
	switch e := e.(type) {
	case event.Lost:
		w.check.lost[e.ID] = w.now()
	case event.RolledBack:
		w.checkRolledBack(e)
	}
	w.note(o.p, fmt.Sprintf("  %s %+v", e.EventName(), e), 0)
}

// How long replicas must have been away before steps that they hold may be run
// again: the grace time, by which a coordinator that was started anew waits; where some of them
// are here and hold a part of the queue, longer, since it is useless without the
// others'; where nobody is here at all, for ever.
const (
	patienceForAll   = 2900 * time.Millisecond
	patienceForParts = 25 * time.Second
)

// checkRolledBack looks whether replicas that live, and were not away for long,
// hold between them what the job has just given up. The lock is held.
func (w *World) checkRolledBack(e event.RolledBack) {
	var holders []*Process
	limit := patienceForAll
	if !slices.ContainsFunc(w.processes, w.isHere) {
		limit = 1 << 62
	}
	for p, h := range w.check.held {
		if !p.dead && h.step == e.From && !p.sick() {
			holders = append(holders, p)
			if slices.Contains(h.shards, "") && w.away(p) == 0 {
				limit = max(limit, patienceForParts)
			}
		}
	}
	var parts []bool
	var who []string
	for _, p := range holders {
		if w.away(p) > limit {
			continue
		}
		who = append(who, p.name)
		shards := w.check.held[p].shards
		parts = slices.Grow(parts, len(shards))[:max(len(parts), len(shards))]
		for v, digest := range shards {
			parts[v] = parts[v] || digest != ""
		}
	}
	if len(who) > 0 && !slices.Contains(parts, false) {
		slices.Sort(who)
		w.violatedLocked("the job went back from step %d to %s, although %v hold what was given up", e.From, e.Source, who)
	}
}

// isHere says whether the coordinator that runs knows a replica. The lock is held.
func (w *World) isHere(p *Process) bool {
	_, lost := w.check.lost[p.id]
	return !p.dead && !lost && w.check.here[p.id] != nil && !w.check.here[p.id].dead
}

// sick says whether the engine does not work. The lock is held.
func (p *Process) sick() bool {
	return p.engine != nil && (p.engine.Fail != nil || p.engine.Hang != "")
}

// away is for how long a replica has not heard the coordinator, or not answered
// it: since it was suspended or the way was cut, until a moment after, or since it
// was given up, until it says Hello. The lock is held.
func (w *World) away(p *Process) time.Duration {
	const moment = 3 * time.Second
	for _, since := range []struct{ from, to time.Duration }{w.links.away[p.name], {p.pausedFrom, p.pausedTo}} {
		if since.from > 0 && w.now() < since.to+moment {
			return w.now() - since.from
		}
	}
	if since, lost := w.check.lost[p.id]; lost {
		return w.now() - since
	}
	return 0
}

// Events are those of a name so far.
func (w *World) Events(name string) (list []event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.check.events {
		if e.EventName() == name {
			list = append(list, e)
		}
	}
	return list
}

// Hellos is how often the replica of a host has introduced itself.
func (w *World) Hellos(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.check.hellos[name]
}

// Again are the steps that a replica was made to run again although it had
// applied them: its state was thrown away.
func (w *World) Again() []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.check.again)
}

// Never says that no event of these names may have happened, a violation for
// each that has.
func (w *World) Never(names ...string) {
	for _, name := range names {
		for _, e := range w.Events(name) {
			w.violated("%s: %+v", name, e)
		}
	}
}

// ExpectEnd says that what runs on a host may end with an error from now on.
func (w *World) ExpectEnd(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check.expected = append(w.check.expected, name)
}

// ExpectFailure says that the job may end as failed: a fault of its own is next.
func (w *World) ExpectFailure() {
	w.mu.Lock()
	w.check.failing = true
	w.mu.Unlock()
}

// checkEnd looks at why a process ended that nobody killed. A replica that the
// end of the job did not reach is right to give up when the coordinator is gone.
func (w *World) checkEnd(p *Process, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(err, replica.ErrOrphaned) && (len(w.servers) == 0 || w.away(p) > 0) {
		return // nobody was there
	}
	if errors.Is(err, coordinator.ErrLogShort) && w.check.short {
		return
	}
	if err != nil && !w.check.failing && !slices.Contains(w.check.expected, p.name) && !errors.Is(err, errDead) {
		w.violatedLocked("%s ends: %v", p.name, err)
	}
}

// Ends waits until the job is over: all steps are done and recorded, the last
// state is stored, and every process has ended, within a minute of the
// coordinator. A violation when not.
func (w *World) Ends(limit time.Duration) {
	over := func() bool { return w.Of(Coordinator) == nil }
	if !w.Must(limit, "the end of the job", over) {
		return
	}
	w.Done()
	w.AllGone(time.Minute)
}

// AllGone waits until no process runs.
func (w *World) AllGone(limit time.Duration) {
	w.Must(limit, "the end of every replica", func() bool { return len(w.Replicas()) == 0 })
}

// reason is why the job stands where it stands, as the coordinator says.
func (w *World) reason() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.speaking(); s != nil {
		return s.status().Reason
	}
	return "nothing: it does not run"
}

// Status is what the coordinator says; the zero value when it does not run.
func (w *World) Status() protocol.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.speaking(); s != nil {
		return s.status()
	}
	return protocol.Status{}
}

// Points are the places that were passed so far, sorted, each as often as it
// was passed.
func (w *World) Points() (all []Point) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, n := range maps.All(w.points) {
		for i := range n {
			all = append(all, Point{p.Host, p.What, i})
		}
	}
	slices.SortFunc(all, func(a, b Point) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// NothingAgain says that no replica may have been made to run a step again that
// it had applied, a violation otherwise.
func (w *World) NothingAgain() {
	if again := w.Again(); len(again) > 0 {
		w.violated("steps %v were run again by replicas that had applied them", again)
	}
	w.Never("rolled back", "replica ahead of the log")
}

// Joins waits until the replica of a host is a member.
func (w *World) Joins(name string, limit time.Duration) {
	w.Must(limit, name+" is a member", func() bool {
		return slices.ContainsFunc(w.Status().Replicas, func(r protocol.ReplicaState) bool { return r.Name == name && r.State == "member" })
	})
}

// Stopped waits until a job has ended that was asked to, with the state after
// the last step of the log stored.
func (w *World) Stopped(limit time.Duration) {
	if !w.Must(limit, "the end of the job", func() bool { return w.Of(Coordinator) == nil }) {
		return
	}
	if head, latest := w.Committed(), w.LatestCheckpoint(); latest != head {
		w.violated("the job stopped after step %d with the checkpoint of step %d", head, latest)
	}
	w.AllGone(time.Minute)
}

// Unfinished says whether the job is to go on: its last step is not committed or
// not stored yet.
func (w *World) Unfinished() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reached() < w.cfg.Steps || w.disk.recorded < w.cfg.Steps || w.latest() < w.cfg.Steps
}

// reached is the last step of the log, or of the newest checkpoint when the log has lost
// something. The lock is held.
func (w *World) reached() int64 {
	if w.check.short {
		return max(w.disk.head(), w.latest())
	}
	return w.disk.head()
}

// Done says that a job must have come to its end.
func (w *World) Done() {
	w.mu.Lock()
	defer w.mu.Unlock()
	latest := w.latest()
	if d := w.disk; w.reached() != w.cfg.Steps || d.recorded != w.cfg.Steps || latest != w.cfg.Steps {
		w.violatedLocked("the job of %d steps ended with %d in the log, %d recorded, and a checkpoint of %d", w.cfg.Steps, d.head(), d.recorded, latest)
	}
}
