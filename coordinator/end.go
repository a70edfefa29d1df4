package coordinator

import (
	"fmt"
	"maps"

	"mochi/coordinator/protocol"
)

// stored takes the news that a checkpoint is safe.
func (c *Core) stored(e Stored) {
	cursor, ok := c.cursorAfter(e.Step)
	if !ok || c.checkpoint != nil && e.Step < c.checkpoint.Step {
		return // older than what is there
	}
	c.checkpoint = &Checkpoint{Name: e.Name, Step: e.Step, Cursor: cursor}
	// Steps that are being run again are still compared with the log.
	maps.DeleteFunc(c.history, func(step int64, _ entry) bool { return step < min(e.Step, c.at) })
	if c.upload != nil && c.upload.step <= e.Step && !c.upload.bad {
		c.upload = nil
	}
	c.report("checkpoint", map[string]any{"step": e.Step, "name": e.Name})
	if c.round != nil && c.round.save && c.upload == nil {
		c.round.end("saved")
	}
}

// storeFailed: the job goes on without this checkpoint unless it was to end
// with it.
func (c *Core) storeFailed(e StoreFailed) {
	c.report("checkpoint failed", map[string]any{"step": e.Step, "error": e.Error})
	if c.upload == nil || c.upload.step != e.Step {
		return
	}
	if c.finishing {
		c.fail(fmt.Sprintf("the checkpoint of step %d could not be stored: %s", e.Step, e.Error))
		return
	}
	c.upload = nil
}

// store ends the job once the state after c.at is a checkpoint.
func (c *Core) store() bool {
	c.finishing = true
	if c.upload == nil || c.upload.step != c.at {
		c.upload = nil
		if !c.covered(c.at) {
			c.upload = &upload{step: c.at, since: c.now}
		}
	}
	return true
}

// conclude waits for the last checkpoint, asks another member for it when the
// first is lost, and ends the job.
func (c *Core) conclude() bool {
	c.phase = "stopping"
	u := c.upload
	if u == nil {
		reason := fmt.Sprintf("stopped after step %d: %s", c.at, c.stop)
		if total := c.Total(); total > 0 && c.at >= total {
			reason = fmt.Sprintf("all %d steps are done", total)
		}
		c.finish(false, reason)
		return false
	}
	if u.from == "" {
		for _, m := range c.sorted() {
			if c.holdsAll(m) {
				u.from, u.since, u.bad = m.id(), c.now, false
				c.send(m.id(), protocol.Message{Snapshot: &protocol.Snapshot{Step: u.step}})
				return false
			}
		}
		if c.now.Before(c.retryAt) {
			return c.wait("pausing before the checkpoint is tried again")
		}
		// Nobody alone holds all: together they may.
		if holders := c.holders(c.sorted()); len(holders) > 0 && holders[0].state.Step == u.step {
			c.begin(holders, holders, true)
			u.from, u.since, u.bad = c.round.members[0].id(), c.now, false
			c.phase = "stopping"
			return false
		}
		if c.now.Before(u.since.Add(max(c.cfg.Limits.Grace, 0))) {
			return c.wait(fmt.Sprintf("waiting for a replica that holds the state after step %d", u.step))
		}
		return c.unsaved(u)
	}
	if !c.now.Before(u.since.Add(c.cfg.Limits.Upload)) {
		return c.unsaved(u)
	}
	return c.wait(fmt.Sprintf("waiting for the checkpoint of step %d", u.step))
}

// unsaved is the end of the wait for a last state that nobody can store any
// more. A stop is still orderly: the log has the steps, and a restart runs
// them again. Otherwise they are run again now.
func (c *Core) unsaved(u *upload) bool {
	if c.stop == "" {
		c.finishing, c.upload = false, nil
		return true
	}
	last := "the beginning"
	if c.checkpoint != nil {
		last = fmt.Sprintf("step %d", c.checkpoint.Step)
	}
	c.finish(false, fmt.Sprintf("stopped (%s), but the state after step %d was lost before it was stored; started again, the job goes on from %s", c.stop, u.step, last))
	return false
}

// fail ends the job as failed.
func (c *Core) fail(reason string) {
	if c.over {
		return
	}
	if r := c.round; r != nil && r.open != nil {
		c.do(Record{r.open.record}) // it is committed whatever happens now
		r.open = nil
	}
	c.finish(true, reason)
}

func (c *Core) finish(failed bool, reason string) {
	name := "done"
	c.phase = "done"
	if failed {
		name, c.phase = "failed", "failed"
	}
	c.over, c.round, c.reason = true, nil, reason
	for _, m := range c.sorted() {
		c.send(m.id(), protocol.Message{Stop: &protocol.Stop{Reason: reason, Failed: failed}})
	}
	c.report(name, map[string]any{"reason": reason, "step": c.at})
	c.do(Finish{Failed: failed, Reason: reason})
}
