package coordinator

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mochi/coordinator/copies"
	"mochi/coordinator/deal"
	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
	"mochi/coordinator/round"
)

// gather begins the next round as soon as that is right, and says why not
// otherwise.
func (c *Core) gather() bool {
	if c.tried != nil && !c.patience.Pausing(c.now) { // all reports of it are in
		c.leaveOut()
	}
	if why := c.recalls(); why != "" {
		return c.wait("%s", why)
	}
	candidates := c.candidates()
	holders, gone := c.holders(candidates)
	if len(holders) > 0 && holders[0].Step() > c.history.At() {
		c.history.StandAt(holders[0].Step(), "") // they were only away
	}
	at := c.history.At()
	total := c.Total()
	if c.course.Stopping() != "" || total > 0 && at >= total && (len(holders) > 0 || c.safe(at)) {
		return c.beginFinish()
	}
	if why := c.lacks(); why != "" {
		return c.wait("%s", why)
	}
	if c.course.State() == round.Finished { // for lack of it
		return false
	}
	if why := c.elsewhere(); len(candidates) == 0 && why != "" {
		return c.wait("%s", why)
	}
	if since, giveUp := c.patience.Nobody(c.now, len(c.roster.All()) == 0); giveUp {
		c.fail(fmt.Sprintf("there has been no replica since %s (--give-up)%s", since.UTC().Format(time.RFC3339), c.lastTrouble()))
		return false
	}
	if c.patience.Pausing(c.now) {
		return c.wait("pausing after a failed step")
	}
	for _, r := range candidates {
		if since, applying := r.Applying(); applying && c.patience.AwaitsApplied(c.now, since) {
			return c.wait("waiting for %s to apply the last commit", r)
		}
	}
	if c.history.Inherited() && len(holders) > 0 && c.patience.Returning(c.now) {
		return c.wait("waiting for further replicas of the last round")
	}
	need := 1
	if len(holders) == 0 {
		if why := c.awaited(gone, len(candidates) > 0); why != "" {
			return c.wait("%s", why)
		}
		if !c.history.Restorable(at) {
			c.rollBack(gone)
			return true // look again, from where the job now stands
		}
		if !c.course.Begun() {
			need = max(1, c.cfg.Training.MinReplicas) // to start with; later whoever is left goes on
		}
	}
	if why := c.elsewhere(); len(candidates) < need && why != "" {
		return c.wait("waiting for replicas: %d of %d are here; %s", len(candidates), need, why)
	}
	if len(candidates) < need {
		return c.wait("waiting for replicas: %d of %d are here%s", len(candidates), need, c.absent())
	}
	if why := c.awaitsThird(candidates); why != "" {
		return c.wait("%s", why)
	}
	c.begin(candidates, holders, false)
	return true
}

// wait says what the job waits for without a round; always false: nothing
// more is possible now.
func (c *Core) wait(format string, args ...any) bool {
	c.course.Wait(fmt.Sprintf(format, args...))
	return false
}

// holders are the candidates that hold the most advanced known state, at the
// step where the job stands or later, and agree on it: the majority, or the
// lowest ranks in a tie. None when they do not hold all of the queue between
// them: gone is what is missing.
func (c *Core) holders(candidates []*roster.Replica) (holders []*roster.Replica, gone []int) {
	best := max(c.history.At(), c.cover(candidates))
	there := slices.DeleteFunc(slices.Clone(candidates), func(r *roster.Replica) bool { return r.Step() != best })
	majority, others := roster.Majority(there, (*roster.Replica).StateDigest)
	for _, r := range others {
		c.report(event.DigestMismatch{Replica: about(r), Step: best, What: "state"})
		r.Forget()
	}
	c.dropOddCopies(best, majority, func(*roster.Replica, int) bool { return false })
	majority = c.copies.ChooseCovering(majority, c.maxMembers())
	if len(majority) == 0 {
		return nil, nil
	}
	if gone = c.copies.Lacking(majority); len(gone) > 0 {
		return nil, gone
	}
	return majority, nil
}

// dropOddCopies compares the copies that some holders of a state have of each
// shard of the queue, and says how many it gave up.
func (c *Core) dropOddCopies(step int64, there []*roster.Replica, damaged func(r *roster.Replica, v int) bool) int {
	dropped := c.copies.DropOddCopies(step, func(v int) []*roster.Replica {
		if r := c.course.Round(); r != nil {
			return r.HoldersOf(v, there)
		}
		return there
	}, damaged)
	for _, e := range dropped {
		if r := c.course.Round(); r != nil {
			c.blame.Own(c.now, r.Number(), e.ID)
		}
		c.report(e)
	}
	return len(dropped)
}

// awaited says what is worth waiting for when no replica holds the state where
// the job stands: its checkpoint, or a replica that comes back with it. "":
// nothing, or there is no need to. could: a round could begin without it.
func (c *Core) awaited(gone []int, could bool) string {
	at := c.history.At()
	switch {
	case c.history.Restorable(at):
		return ""
	case c.upload.OnItsWay(at) && c.patience.AwaitsUpload(c.now, c.upload.Since()):
		return fmt.Sprintf("waiting for the checkpoint of step %d", at)
	case c.patience.AwaitsCallers(c.now):
		return "waiting for replicas that are in a step to say what they hold"
	case !c.patience.AwaitsState(c.now, could, len(gone) > 0 || c.sleeps == at, at-c.restorable()):
		return ""
	case !could:
		return fmt.Sprintf("waiting for replicas, of which those that hold the state after step %d are best%s", at, c.absent())
	case len(gone) > 0:
		return fmt.Sprintf("waiting for replicas that hold %s of the queue after step %d", copies.Words(gone), at)
	}
	return fmt.Sprintf("waiting for replicas that hold the state after step %d", at)
}

// restorable is the last step whose state can be had without a replica.
func (c *Core) restorable() int64 {
	if saved := c.history.Checkpoint(); saved != nil {
		return saved.Step
	}
	return 0
}

// rollBack takes the job back to the latest state that can still be had: a
// checkpoint's, that of a replica which stopped on the way, or the seed's. The
// steps after it are run again.
func (c *Core) rollBack(gone []int) {
	from := c.history.At()
	to, where := int64(0), "the seed"
	if saved := c.history.Checkpoint(); saved != nil {
		to, where = saved.Step, "checkpoint "+saved.Name
	}
	for _, r := range c.roster.Staying() { // better than the checkpoint
		if r.Step() > to && c.history.Has(r.Step()) && c.copies.Covered(r) {
			to, where = r.Step(), "the state of "+r.String()
		}
	}
	c.history.StandAt(to, "")
	c.upload.Drop()
	lost := fmt.Sprintf("nobody holds the state after step %d", from)
	if len(gone) > 0 {
		lost = fmt.Sprintf("all copies of %s of the queue after step %d are lost", copies.Words(gone), from)
		c.report(event.ShardsLost{Shards: copies.Words(gone), Step: from, Copies: c.cfg.Training.QueueCopies})
		for _, r := range c.roster.All() {
			if r.Step() > to {
				r.Forget() // a part of what cannot be completed
			}
		}
	}
	c.report(event.RolledBack{From: from, To: to, Source: where})
	c.course.Because(fmt.Sprintf("%s: going on from %s", lost, where))
}

// begin starts a round of candidates, or one that only saves the state. holders
// are those of them that have it; they come first, so that rank 0 is the donor.
func (c *Core) begin(candidates, holders []*roster.Replica, save bool) {
	ordered := slices.Concat(holders, slices.DeleteFunc(slices.Clone(candidates), func(r *roster.Replica) bool {
		return slices.Contains(holders, r)
	}))
	members := ordered[:min(len(ordered), c.maxMembers())]
	at := c.history.At()
	cursor, ok := c.history.CursorAfter(at)
	if !ok {
		panic(fmt.Sprintf("coordinator: step %d is not in the history", at))
	}
	var trial []int
	if !save {
		trial = c.jury.Trial(at + 1)
	}
	r := round.New(round.Plan{
		Number: c.course.NextNumber(), Members: members, Deal: c.deal(speeds(members)),
		Step: at + 1, Cursor: cursor, Copies: c.copies.Arrange(members, holders), Save: save, Trial: trial,
	}, c.now)
	c.do(Reserve{r.Number()})
	c.roster.NewRanks(members)
	for _, m := range members {
		if _, ever := m.Lived(c.now); !ever && len(holders) > 0 {
			c.patience.JoinsBegin(c.now)
		}
		m.Enters(c.now)
	}
	msg := c.announcement(r, holders, save)
	for _, m := range ordered { // those on standby too: their old round is over
		c.send(m.ID(), protocol.Message{Round: msg})
	}
	var names []string
	for _, m := range members {
		names = append(names, m.Name())
	}
	c.report(event.Round{Round: r.Number(), Step: r.Step(), World: r.World(), Members: strings.Join(names, " "), Reason: c.course.Why()})
	digest := ""
	if len(holders) > 0 {
		digest = holders[0].StateDigest()
	}
	c.history.StandAt(at, digest)
	c.patience.BeginRound()
	c.course.Begin(r)
}

// announcement is the message that starts a round. Members that are no holders
// get a state with it, so that nothing is known of what they hold until then.
func (c *Core) announcement(r *round.Round, holders []*roster.Replica, save bool) *protocol.Round {
	p := r.Plan()
	last := c.history.Commit(p.Step - 1)
	c.seal(last)
	msg := &protocol.Round{
		Round: p.Number, Step: p.Step, Cursor: p.Cursor, Donor: -1, Reason: c.course.Why(), Save: save, Trial: p.Trial,
		Holders: p.Copies.Holders, Transfers: p.Copies.Transfers, Last: last,
	}
	for rank, m := range p.Members {
		state := protocol.FromSelf
		if !slices.Contains(holders, m) {
			m.Forget()
			switch {
			case len(holders) > 0:
				state, msg.Donor = protocol.FromPeer, 0 // rank 0 is a holder
			case p.Step > 1 || c.history.Checkpoint() != nil: // one of step 0 has weights that the seed does not give
				state, msg.Checkpoint = protocol.FromCheckpoint, c.history.Checkpoint().Name
			default:
				state = protocol.FromSeed
			}
		}
		msg.Members = append(msg.Members, protocol.Member{
			ID: m.ID(), Name: m.Name(), BulkURL: m.Hello().BulkURL, Groups: p.Deal[rank], State: state,
		})
	}
	return msg
}

// deal gives the job's groups to members of these speeds.
func (c *Core) deal(msPerGroup []float64) [][]int {
	units := c.cfg.Training.Units()
	return deal.Deal(units, c.cfg.Training.Groups()/units, msPerGroup)
}

func speeds(members []*roster.Replica) []float64 {
	ms := make([]float64, len(members))
	for i, m := range members {
		ms[i] = m.MSPerGroup()
	}
	return ms
}

// boundary says why a new round should begin after the next commit, "" when
// it should not.
func (c *Core) boundary(r *round.Round) string {
	members := r.Members()
	if i := slices.IndexFunc(members, (*roster.Replica).Leaving); i >= 0 {
		return members[i].String() + " leaves"
	}
	if len(members) < c.maxMembers() {
		if why := c.newcomers(r); why != "" {
			return why
		}
	}
	if !c.patience.MayRebalance(r.Steps()) || len(members) != r.World() {
		return ""
	}
	ms := speeds(members)
	if slices.Contains(ms, 0) {
		return ""
	}
	now, then := deal.Predict(r.Plan().Deal, ms), deal.Predict(c.deal(ms), ms)
	if c.patience.WorthRebalance(now, then) {
		return fmt.Sprintf("rebalance: %.0f ms a step instead of %.0f", then, now)
	}
	return ""
}

// newcomers says who joins after the next commit: all that wait for that, once
// no more come; "" when nobody does.
func (c *Core) newcomers(r *round.Round) string {
	waiting := slices.DeleteFunc(c.roster.Ready(), func(m *roster.Replica) bool {
		_, _, held := c.heldBack(m)
		return held || r.Has(m) || c.bringsParts(m) || c.beyond(m)
	})
	if len(waiting) == 0 {
		return ""
	}
	byArrival := func(a, b *roster.Replica) int { return a.Said().Compare(b.Said()) }
	first, last := slices.MinFunc(waiting, byArrival).Said(), slices.MaxFunc(waiting, byArrival).Said()
	if !c.patience.MayJoin(c.now, first, last) {
		return ""
	}
	return waiting[0].String() + " joins"
}

// endRound drops the round in hand and lets its leavers go.
func (c *Core) endRound() bool {
	members := c.course.EndRound().Members()
	leavers := slices.DeleteFunc(slices.Clone(members), func(m *roster.Replica) bool { return !m.Leaving() })
	if c.handOver(leavers) {
		return true
	}
	for _, m := range leavers {
		c.dismiss(m)
	}
	c.sendAgain()
	return true
}
