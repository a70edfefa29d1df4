package coordinator

import (
	"fmt"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
	"mochi/coordinator/round"
)

// What the log has lost, the replicas have: each keeps the last commits that it
// applied. When one of them says Hello with a history that goes on where that of the
// log ends, it is asked for the rest before anything is decided, and the log takes
// it back (Adopt). So a log whose end was damaged, an old copy of it, and an empty
// folder on a new host are made whole.
//
// The running digest of the commits (protocol.Commit.Chain) proves that what comes is
// the same history. If it is another one, that with the later term counts: it was
// written by a leader that came after. What is believed at all, seal.go says.

// recall is the commits that are being fetched.
type recall struct {
	from    string            // id of the replica, "": none are
	until   protocol.Head     // where its history ends
	commits []protocol.Commit // that have come
	instead bool              // they are another history than the log's, and take its place
	moved   time.Time         // when the last of them came
	writing bool              // all have come; the log takes them
}

// next is the step that is asked for.
func (k *recall) next(head int64) int64 {
	switch n := len(k.commits); {
	case n > 0:
		return k.commits[n-1].Step + 1
	case k.instead:
		return k.until.First
	}
	return max(head+1, k.until.First)
}

// ours says whether commits of a term can be of this run of the job.
func (c *Core) ours(h *protocol.Head) bool { return h != nil && h.Term >= c.cfg.Since }

// counts says whether the end of a history is believed (seal.go).
func (c *Core) counts(h *protocol.Head) bool { return c.blank() || c.sealed(h) }

// ahead says whether a replica keeps commits that the log should have, and whether
// they are another history than the log's.
func (c *Core) ahead(r *roster.Replica) (ahead, instead bool) {
	h, last := r.Hello().Head, c.history.Last()
	if !c.ours(h) || c.unfit[r.ID()] {
		return false, false
	}
	logged, known := c.history.Logged(h.Step)
	switch {
	case known && logged.Chain == h.Chain:
		return false, false
	case known:
		return last != nil && h.Term > last.Term && c.counts(h), true
	}
	return h.Step > c.history.Head() && c.counts(h), false
}

// compare looks at what a replica says that it holds beside what the log has.
func (c *Core) compare(r *roster.Replica) {
	h := r.Hello().Head
	ahead, instead := c.ahead(r)
	stands := c.beyond(r) && h != nil && h.Step >= r.Step() // with commits that led there
	switch {
	case c.beyond(r) && !c.blank() && !c.proves(r):
		c.disbelieve(r)
	case ahead:
		if open := c.course.Round(); open != nil {
			open.End(fmt.Sprintf("%s holds commits up to %d that the log lacks", r, h.Step))
		}
	case instead, stands && !c.ours(h): // another history, and an older one
		c.report(event.AheadOfLog{Replica: about(r), Step: r.Step(), Log: c.history.Head()})
		r.Forget()
	}
}

// beyond says whether a replica holds a state that the log knows nothing of.
func (c *Core) beyond(r *roster.Replica) bool { return r.Step() > c.history.Head() }

// recalls fetches what replicas keep and the log lacks, and says what is waited for;
// "" when there is nothing.
func (c *Core) recalls() string {
	k := &c.recall
	if k.writing {
		return fmt.Sprintf("waiting for the log to take back the commits up to %d", k.until.Step)
	}
	if k.from != "" {
		r := c.roster.Get(k.from)
		if r != nil && c.patience.AwaitsRecalled(c.now, k.moved) {
			return fmt.Sprintf("waiting for the commits from %d to %d, which the log lacks, from %s", k.next(c.history.Head()), k.until.Step, r)
		}
		if r != nil {
			c.notRecalled(r, "it does not answer")
		}
		c.recall = recall{}
	}
	var best *roster.Replica
	var instead bool
	for _, r := range c.roster.All() {
		ahead, other := c.ahead(r)
		if ahead && (best == nil || c.better(r.Hello().Head, best.Hello().Head)) {
			best, instead = r, other
		}
	}
	if best == nil {
		return ""
	}
	c.recall = recall{from: best.ID(), until: *best.Hello().Head, instead: instead}
	c.askRecall(best)
	return c.recalls()
}

// better says whether a history is rather to be had than another: who proves it goes first.
func (c *Core) better(a, b *protocol.Head) bool {
	if one, other := c.sealed(a), c.sealed(b); one != other {
		return one
	}
	return later(a, b)
}

// later says whether a history ends later than another.
func later(a, b *protocol.Head) bool {
	if a.Term != b.Term {
		return a.Term > b.Term
	}
	return a.Step > b.Step
}

func (c *Core) askRecall(r *roster.Replica) {
	c.recall.moved = c.now
	c.send(r.ID(), protocol.Message{Recall: &protocol.Recall{From: c.recall.next(c.history.Head())}})
}

// recalled takes commits that the log lacks.
func (c *Core) recalled(r *roster.Replica, a *protocol.Recalled) {
	k := &c.recall
	if k.from != r.ID() || k.writing || a.From != k.next(c.history.Head()) {
		return // of a question that was given up
	}
	for _, commit := range a.Commits {
		if err := c.fitsRecall(commit); err != nil {
			if last := c.history.Last(); len(k.commits) == 0 && !k.instead && last != nil && k.until.Term > last.Term {
				k.instead = true // a later leader's, which began before the end of this log
				c.askRecall(r)
				return
			}
			c.otherHistory(r, err)
			return
		}
		k.commits = append(k.commits, commit)
	}
	switch end := k.next(c.history.Head()) - 1; {
	case len(a.Commits) == 0:
		c.notRecalled(r, fmt.Sprintf("it does not keep commit %d, although it said so", a.From))
	case end < k.until.Step:
		c.askRecall(r)
	case k.commits[len(k.commits)-1].Chain != k.until.Chain:
		c.notRecalled(r, fmt.Sprintf("its history up to %d is not the one that it spoke of", end))
	default:
		k.writing = true
		c.do(Adopt{k.commits})
	}
}

// fitsRecall says why a commit cannot be the next of those that come.
func (c *Core) fitsRecall(commit protocol.Commit) error {
	k := &c.recall
	if want := k.next(c.history.Head()); commit.Step != want || commit.Step > k.until.Step {
		return fmt.Errorf("commit %d came where %d was asked for", commit.Step, want)
	}
	if commit.Digest == "" || commit.Batch < 1 || commit.Cursor < 0 {
		return fmt.Errorf("commit %d is no commit: digest %q, samples %d to %d", commit.Step, commit.Digest, commit.Cursor, commit.Cursor+int64(commit.Batch))
	}
	if head := commit.Head(0); c.sealed(&k.until) && !c.sealed(&head) {
		return fmt.Errorf("commit %d is not as a coordinator of this job has sealed it", commit.Step)
	}
	before := c.history.Last()
	if n := len(k.commits); n > 0 {
		before = &k.commits[n-1]
	} else if k.instead || before == nil || before.Step != commit.Step-1 {
		return nil // what is before it is not here
	}
	return commit.Follows(*before)
}

// otherHistory gives up a replica's history, which is not the log's. If a leader before
// the log's wrote it, its state counts no more.
func (c *Core) otherHistory(r *roster.Replica, err error) {
	before := c.recall.until.Term
	c.notRecalled(r, err.Error())
	if last := c.history.Last(); last != nil && before < last.Term {
		c.report(event.AheadOfLog{Replica: about(r), Step: r.Step(), Log: c.history.Head()})
		r.Forget()
	}
}

// notRecalled gives up fetching commits from a replica.
func (c *Core) notRecalled(r *roster.Replica, why string) {
	c.report(event.NotRecalled{Replica: about(r), Error: why})
	c.unfit[r.ID()] = true
	c.recall = recall{}
}

// adopted takes the news that the log has the commits that came back.
func (c *Core) adopted() {
	k := c.recall
	c.recall = recall{}
	if !k.writing {
		return
	}
	c.history.Adopt(k.commits)
	first, last := k.commits[0], k.commits[len(k.commits)-1]
	e := event.Recalled{From: first.Step, To: last.Step, Replica: event.Replica{ID: k.from}}
	if r := c.roster.Get(k.from); r != nil {
		e.Replica = about(r)
	}
	c.report(e)
	for _, commit := range k.commits {
		c.course.AtLeast(commit.Round)
		if commit.Step > c.recorded {
			record := round.RecordOf(commit)
			record.Recovered = true
			c.record(record)
		}
	}
	for _, r := range c.roster.All() {
		c.findUpload(r)
	}
	c.sendAgain()
	c.course.Because(fmt.Sprintf("the log has got back its commits from %d to %d", first.Step, last.Step))
}

// lacks says that the log ends before what is on record, or what a replica has a state
// of, and what is waited for; "" when it does not. When nobody brings what is missing
// the job is not begun: whoever starts the coordinator has to say so.
func (c *Core) lacks() string {
	head, known := c.history.Head(), c.cfg.Recorded
	var holders []*roster.Replica
	for _, r := range c.roster.All() {
		if c.beyond(r) {
			holders, known = append(holders, r), max(known, r.Step())
		}
	}
	switch {
	case known <= head:
		return ""
	case c.cfg.Rebuild:
		for _, r := range holders {
			c.report(event.AheadOfLog{Replica: about(r), Step: r.Step(), Log: head})
			r.Forget()
		}
		if c.short < known {
			c.short = known
			c.report(event.LogRebuilt{From: head + 1, To: known})
		}
		return ""
	}
	if c.short < known {
		c.short = known
		c.report(event.LogShort{Log: head, Known: known})
	}
	if c.patience.AwaitsLost(c.now, len(c.roster.Ready()) > 0) || c.patience.AwaitsCallers(c.now) {
		return fmt.Sprintf("the commit log ends with step %d, but step %d was committed: waiting for replicas that hold the commits since%s", head, known, c.absent())
	}
	if c.doubt() {
		return ""
	}
	c.refuse(fmt.Sprintf("the commit log ends with step %d, but step %d was committed, and no replica that is here holds the commits since: bring back the folder as it was, or start those that hold them; --log rebuild goes on with what there is, and runs steps %d to %d again", head, known, head+1, known))
	return ""
}

// doubt drops the claims of steps that nothing else knows of, and says whether those were
// all: a job does not end by what somebody says.
func (c *Core) doubt() bool {
	for _, r := range c.roster.All() {
		if c.beyond(r) && !c.proves(r) {
			c.disbelieve(r)
		}
	}
	for _, r := range c.roster.All() {
		if c.beyond(r) {
			return false
		}
	}
	return c.cfg.Recorded <= c.history.Head()
}

// refuse ends this coordinator, and not the job: what the replicas hold may be all that
// is left of it.
func (c *Core) refuse(reason string) {
	c.course.Finish(true, reason)
	c.do(Finish{Failed: true, Short: true, Reason: reason})
}
