package coordinator

import (
	"slices"
	"strings"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
)

// step gives the core one input and does what it asks for, under the properties that
// must always hold.
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
