package coordinator

import (
	"fmt"
	"maps"
	"slices"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
)

// stopRequested ends the job with the next commit, or as soon as its state is
// stored when there is no round.
func (c *Core) stopRequested(reason string) {
	if c.course.Stop(reason) {
		c.report(event.Stopping{Reason: reason, Step: c.history.At()})
	}
}

// arriving takes the news that more of a checkpoint is here: who sends it is
// alive, and what waits for it goes on waiting.
func (c *Core) arriving(e Arriving) {
	if e.From == "" {
		c.upload.Here(e.Step, c.now)
		return
	}
	if r := c.roster.Get(e.From); r != nil {
		r.Seen(c.now)
	}
	c.upload.Moves(e.From, e.Step, c.now)
}

// stored takes the news that a checkpoint is safe.
func (c *Core) stored(e Stored) {
	if !c.history.Store(e.Name, e.Step) {
		return
	}
	c.upload.Stored(e.Step)
	c.noRoom = false
	c.report(event.Checkpoint{Step: e.Step, Name: e.Name})
	c.noteAudits() // how they were passed, now and then
	if r := c.course.Round(); r != nil && r.Plan().Save && !c.upload.Wanted() {
		r.End("saved")
	}
}

// storeFailed: the job goes on without this checkpoint. One that it was to end
// with is asked for again: a few times, or until there is room for it.
func (c *Core) storeFailed(e StoreFailed) {
	last := c.upload.Of(e.Step) && c.course.Finishing()
	switch {
	case !e.Full || !last:
		c.report(event.CheckpointFailed{Step: e.Step, Error: e.Error})
	case !c.noRoom:
		c.report(event.DiskFull{What: fmt.Sprintf("the checkpoint of step %d", e.Step), Error: e.Error})
	}
	c.noRoom = e.Full && last
	switch {
	case !c.upload.Of(e.Step):
	case last:
		if !c.patience.NotStored(c.now, e.Full) {
			c.upload.Lose(c.now)
			if r := c.course.Round(); r != nil && r.Plan().Save {
				r.End("the checkpoint was not stored")
			}
			return
		}
		reason := fmt.Sprintf("the checkpoint of step %d could not be stored: %s", e.Step, e.Error)
		if why := c.course.Failing(); why != "" {
			reason = why + "; besides, " + reason
		}
		c.finish(true, reason)
	default:
		c.upload.Drop()
	}
}

// beginFinish ends the job once the state where it stands is a checkpoint.
func (c *Core) beginFinish() bool {
	c.course.FinishSoon()
	if at := c.history.At(); !c.upload.Of(at) {
		c.upload.Drop()
		if !c.safe(at) {
			c.upload.Ask(at, "", c.now)
		}
	}
	return true
}

// conclude waits for the last checkpoint, asks another member for it when the
// first is lost, and ends the job.
func (c *Core) conclude() bool {
	u := &c.upload
	switch {
	case !u.Wanted():
		if why := c.course.Failing(); why != "" {
			c.finish(true, why)
			return false
		}
		reason := fmt.Sprintf("stopped after step %d: %s", c.history.At(), c.course.Stopping())
		if total := c.Total(); total > 0 && c.history.At() >= total {
			reason = fmt.Sprintf("all %d steps are done", total)
		}
		c.finish(false, reason)
		return false
	case u.Owed():
		return c.findSender()
	case !c.patience.AwaitsUpload(c.now, u.Since()):
		return c.unsaved()
	}
	if u.IsHere() {
		return c.wait("waiting for most of the coordinators to hold the checkpoint of step %d", u.Step())
	}
	return c.wait("waiting for the checkpoint of step %d", u.Step())
}

// findSender asks a replica for the last checkpoint, or several that hold all
// of the queue only together.
func (c *Core) findSender() bool {
	u := &c.upload
	if c.patience.Pausing(c.now) {
		if c.noRoom {
			return c.wait("waiting for room on the disk, to store the checkpoint of step %d", u.Step())
		}
		return c.wait("pausing before the checkpoint is tried again")
	}
	for _, m := range c.roster.All() {
		if c.holdsAll(m) {
			u.AskAnother(m.ID(), c.now)
			c.send(m.ID(), protocol.Message{Snapshot: &protocol.Snapshot{Step: u.Step()}})
			return false
		}
	}
	if !c.patience.Insisting() {
		return c.unsaved()
	}
	if holders, _ := c.holders(c.roster.All()); len(holders) > 0 && holders[0].Step() == u.Step() {
		c.begin(holders, holders, true)
		u.AskAnother(holders[0].ID(), c.now)
		return false
	}
	if c.patience.AwaitsSender(c.now, u.Since()) {
		return c.wait("waiting for a replica that holds the state after step %d", u.Step())
	}
	return c.unsaved()
}

// unsaved is the end of the wait for a last state that nobody can store any
// more. A stop is still orderly: the log has the steps, and a restart runs
// them again. Otherwise they are run again now.
func (c *Core) unsaved() bool {
	if c.course.Stopping() == "" {
		c.course.GoOn()
		c.upload.Drop()
		return true
	}
	last := "the beginning"
	if saved := c.history.Checkpoint(); saved != nil {
		last = fmt.Sprintf("step %d", saved.Step)
	}
	if why := c.course.Failing(); why != "" {
		c.finish(true, fmt.Sprintf("%s; besides, the state after step %d was lost before it was stored", why, c.upload.Step()))
		return false
	}
	c.finish(false, fmt.Sprintf("stopped (%s), but the state after step %d was lost before it was stored; started again, the job goes on from %s", c.course.Stopping(), c.upload.Step(), last))
	return false
}

// fail ends the job as failed, once the state after the last commit is stored
// if somebody holds it: what was trained until then is not to blame.
func (c *Core) fail(reason string) {
	r := c.course.Round()
	if r != nil && r.Open() {
		c.record(r.CloseStep().Record) // it is committed whatever happens now
	}
	if c.course.Failing() != "" || c.history.Restorable(c.history.At()) || c.cover(c.roster.All()) < c.history.At() {
		c.finish(true, reason)
		return
	}
	c.course.Fail(reason)
	c.report(event.Failing{Reason: reason, Step: c.history.At()})
	if r != nil {
		r.End(reason)
	}
}

// finish ends the job and sends the replicas home.
func (c *Core) finish(failed bool, reason string) {
	c.course.Finish(failed, reason)
	for _, m := range c.roster.All() {
		c.send(m.ID(), protocol.Message{Stop: &protocol.Stop{Reason: reason, Failed: failed}})
	}
	for _, id := range slices.Sorted(maps.Keys(c.asleep)) { // it reads that when it wakes
		c.send(id, protocol.Message{Stop: &protocol.Stop{Reason: reason, Failed: failed}})
	}
	if failed {
		c.report(event.Failed{Reason: reason, Step: c.history.At()})
	} else {
		c.report(event.Done{Reason: reason, Step: c.history.At()})
	}
	absent, unknown := c.untold()
	c.do(Finish{Failed: failed, Reason: reason, Absent: absent, Unknown: unknown})
}

// untold are members of an earlier coordinator's last round who are on their way to this
// one, which committed nothing: it found all steps done, or was stopped at once. unknown:
// none of them has come to say who the others are.
func (c *Core) untold() (absent []string, unknown bool) {
	if !c.history.Inherited() {
		return nil, false
	}
	var last protocol.Hello
	for _, r := range c.roster.All() {
		if h := r.Hello(); len(h.Members) > 0 && h.Round >= last.Round {
			last = h
		}
	}
	for _, id := range last.Members {
		if c.roster.Get(id) == nil {
			absent = append(absent, id)
		}
	}
	return absent, len(last.Members) == 0 && c.course.Stopping() == ""
}
