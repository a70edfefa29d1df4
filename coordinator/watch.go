package coordinator

import (
	"fmt"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
)

// watch looks after members that the round waits for and that make no progress,
// although their heartbeats go on: a kernel, a driver, a library or a file system
// hangs. Whoever waits for other members does not hang itself. A member that
// hangs is given up like one that is dead, as soon as somebody can go on without
// it; when it wakes it is one that comes back.
func (c *Core) watch() {
	r := c.course.Round()
	if r == nil {
		return
	}
	if r.Plan().Save {
		if !c.patience.AwaitsUpload(c.now, c.upload.Since()) {
			c.upload.Lose(c.now)
			r.End("the members do not put the checkpoint together")
			c.patience.StepFailed(c.now)
		}
		return
	}
	var hung, together []*roster.Replica // it alone; in a collective, or for the coordinator
	awaited := 0
	for _, m := range r.Members() {
		if !r.Awaits(m) {
			continue
		}
		awaited++
		still, beat := c.now.Sub(m.Moved()), m.Beat()
		alone := !beat.Peers && beat.Phase != protocol.PhaseReady && beat.Phase != protocol.PhaseWaiting && beat.Phase != protocol.PhaseUploading
		if alone && c.patience.Stalls(still) && m.Stalls() {
			c.report(event.Stalled{Replica: about(m), Step: beat.Step, Phase: beat.Phase, Seconds: still.Round(time.Second).Seconds()})
		}
		if !c.patience.Hangs(still, m.Steps() == 0) {
			continue
		}
		if alone {
			hung = append(hung, m)
		} else if beat.Peers {
			together = append(together, m)
		}
	}
	for _, m := range hung {
		if len(c.roster.Ready()) < 2 {
			break // nobody could go on without it
		}
		why := fmt.Sprintf("no progress for %v while %s step %d: it hangs", c.now.Sub(m.Moved()).Round(time.Second), m.Beat().Phase, m.Beat().Step)
		c.blame.Exclude(c.now, m.ID(), why)
		c.asleep[m.ID()] = true
		c.lost(m.ID(), why)
	}
	if len(together) > 0 && len(together) == awaited {
		still := c.now.Sub(together[0].Moved()).Round(time.Second)
		r.End(fmt.Sprintf("its members have waited for each other for %v", still))
		c.patience.StepFailed(c.now)
	}
}
