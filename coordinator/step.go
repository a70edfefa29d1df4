package coordinator

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
	"mochi/coordinator/round"
)

// ready takes a vote.
func (c *Core) ready(m *roster.Replica, v *protocol.Ready) {
	r := c.course.Round()
	if !r.Vote(m, v) {
		return
	}
	m.Busy()
	if m.Step() < 0 && r.State() == round.Voting && c.history.Digest() != "" {
		m.ComputedFrom(c.history.At(), c.history.Digest())
	}
	if r.Steps() == 0 && m.Step() >= 0 {
		for _, t := range r.TransfersTo(m) { // it computed with them
			m.GotShard(t.Shard, c.copies.Shards(), t.Digest)
		}
	}
	m.Measured(v.BusyMS, len(r.Groups(m)))
}

// decide compares the votes once all are in and asks for the append.
func (c *Core) decide() bool {
	r := c.course.Round()
	if len(r.Plan().Trial) > 0 {
		c.judge(r)
		return true
	}
	if majority, others := r.CompareVotes(); len(others) >= len(majority) {
		c.undecided(r, len(majority))
		return true
	} else if len(others) > 0 {
		c.disagree(r, "gradients", r.Step(), others, len(majority))
		return true
	}
	if !c.added(r) || !c.audited(r) {
		return true
	}
	commit, err := r.Commit(c.cfg.Training, c.data.Train, c.cfg.LR)
	if err != nil {
		c.fail(err.Error())
		return true
	}
	if commit.Step > c.history.Head() {
		last, chain := c.history.Last(), c.history.Chain()
		anew := last != nil && last.Step != commit.Step-1 // a checkpoint has more than the log
		if anew {
			chain = ""
		}
		commit.Term, commit.Chain = c.cfg.Term, commit.Link(chain)
		c.seal(commit)
		r.Append(commit)
		c.do(Append{*commit, anew})
		return true
	}
	// The step is in the log already: it is run again from a checkpoint.
	if logged, ok := c.history.Logged(commit.Step); ok {
		commit.Term, commit.Chain = logged.Term, logged.Chain
		if logged.Digest != commit.Digest {
			c.report(event.ReplayMismatch{Step: commit.Step, Log: logged.Digest, Now: commit.Digest})
		}
	}
	c.seal(commit)
	c.publish(r, commit, true)
	return true
}

// appended publishes the commit that is now in the log.
func (c *Core) appended(step int64) {
	r := c.course.Round()
	if commit := r.Appended(step); commit != nil {
		c.history.Append(commit)
		c.publish(r, commit, false)
	}
}

// appendFailed ends the job: without a log nothing can be promised.
func (c *Core) appendFailed(e AppendFailed) {
	if e.Fenced { // another coordinator tells the replicas how it goes on
		c.course.Finish(true, e.Error)
		c.do(Finish{Failed: true, Fenced: true, Reason: e.Error})
		return
	}
	c.finish(true, fmt.Sprintf("step %d could not be logged: %s", e.Step, e.Error))
}

// publish makes a step final for the members. What ends the round or stores a
// checkpoint is decided here: members may have been lost during the append.
func (c *Core) publish(r *round.Round, commit *protocol.Commit, replayed bool) {
	out := *commit
	out.Final = c.course.Stopping() != "" || c.Total() > 0 && commit.Step >= c.Total()
	if out.Final {
		r.End("the last step")
	} else if why := c.boundary(r); why != "" {
		r.End(why)
	}
	out.EndRound = r.Ending() != ""
	if out.Checkpoint = c.stores(r, out); out.Checkpoint {
		from := "" // rank 0 sends it
		if members := r.Members(); len(members) > 0 && members[0].Rank() == 0 {
			from = members[0].ID()
		}
		c.upload.Ask(commit.Step, from, c.now)
	}
	c.latest = r.Measure(out, replayed, c.now)
	c.patience.Stepped(time.Duration(c.latest.StepMS * float64(time.Millisecond)))
	if r.Steps() == 0 {
		c.patience.JoinsEnd(c.now)
		c.noteKind(r)
	}
	r.Publish(c.latest, c.now)
	for _, m := range r.Members() {
		m.Moves(c.now)
		c.send(m.ID(), protocol.Message{Commit: &out})
	}
	c.history.StandAt(commit.Step, "")
	c.patience.Committed()
	c.trouble = ""
	c.sendAgain()
}

// noteKind remembers how the engines of a job round and what decodes its images.
// Members agree on that, but when all have gone others may come that do it
// otherwise: from there on the bits are others than those of a run that nobody
// left, and that is said.
func (c *Core) noteKind(r *round.Round) {
	if len(r.Members()) == 0 {
		return
	}
	h, was := r.Members()[0].Hello(), c.data
	if h.Numerics != "" {
		c.data.Numerics = h.Numerics
	}
	if h.Data.JPEG != "" {
		c.data.JPEG = h.Data.JPEG
	}
	if c.data == was {
		return
	}
	if was.Numerics != "" && was.Numerics != c.data.Numerics {
		c.report(event.OtherNumerics{Step: r.Step(), Was: was.Numerics, Now: c.data.Numerics})
	}
	if was.JPEG != "" && was.JPEG != c.data.JPEG {
		c.report(event.OtherDecoder{Step: r.Step(), Was: was.JPEG, Now: c.data.JPEG})
	}
	c.do(Remember{c.data})
}

// stores says whether the state after a commit is made a checkpoint. One that is
// only due is left out while another is on its way: a line that takes them more
// slowly than they are due would never bring one to its end otherwise.
func (c *Core) stores(r *round.Round, commit protocol.Commit) bool {
	if commit.Final || c.upload.Owed() || !r.StayersCover() {
		return true
	}
	every := c.cfg.Training.CheckpointEvery
	due := c.upload.Missed() || every > 0 && commit.Step%every == 0 ||
		evaluated(&commit, c.cfg.Training.EvaluateEvery(), c.data.Train)
	far := c.uncovered(commit.Step)
	if (due || far) && c.upload.Sent() && c.patience.AwaitsUpload(c.now, c.upload.Since()) {
		if due {
			c.upload.Leave()
		}
		return false
	}
	return due || far
}

// mostUncovered is how many commits there may be that no checkpoint covers, however
// rarely checkpoints are asked for: the log, what the coordinator remembers of each,
// and what its successor reads grow with them.
const mostUncovered = 10_000

// uncovered says whether a commit is so far from the newest checkpoint that its state
// is stored. One that cannot be stored is tried again after a tenth of that.
func (c *Core) uncovered(step int64) bool {
	covered := int64(0)
	if last := c.history.Checkpoint(); last != nil {
		covered = last.Step
	}
	n := step - covered
	return n >= mostUncovered && n%(mostUncovered/10) == 0
}

// evaluated says whether a commit ends an epoch of train samples whose state is
// evaluated (config.Job.EvaluateEvery), for which it is needed as a checkpoint.
func evaluated(commit *protocol.Commit, epochs, train int) bool {
	every, n := int64(epochs), int64(train)
	if every == 0 || n == 0 {
		return false
	}
	before, after := commit.Cursor/n, (commit.Cursor+int64(commit.Batch))/n
	return before/every != after/every
}

// applied takes a member's report of the state after a commit, or that of a
// replica outside the round that was sent the last commit again.
func (c *Core) applied(m *roster.Replica, a *protocol.Applied) {
	if r := c.course.Round(); r != nil && r.Applied(m, a) {
		m.Busy()
		return
	}
	m.AppliedAgain(a)
}

// closeStep compares what the members hold after a commit, and tells the observer.
// Members that differ from the majority get its state in a new round; the step
// itself stands.
func (c *Core) closeStep() bool {
	r := c.course.Round()
	reports := r.CloseStep()
	record := reports.Record
	step := record.Commit.Step
	majority, others := reports.Compare()
	worked := make([]string, 0, len(majority))
	for _, m := range majority {
		m.Holds(step, reports.Of(m).StateDigest, reports.Of(m).Shards)
		m.Worked()
		worked = append(worked, m.ID())
	}
	c.blame.Worked(worked)
	record.Digest, record.StateDigest = reports.Digests(majority)
	record.Shards = reports.Shards(majority)
	c.record(record)
	if len(majority) > 0 {
		c.history.StandAt(step, record.StateDigest)
	}
	if reports.Final {
		c.beginFinish() // its checkpoint may have failed already
	}
	wrong := c.dropOddCopies(step, majority, func(m *roster.Replica, v int) bool {
		return slices.Contains(reports.Of(m).Damaged, v)
	})
	if wrong > 0 {
		c.upload.Spoil(step) // it may have been put together from them
	}
	switch {
	case len(others) > 0:
		c.disagree(r, "states", step, others, len(majority))
		for _, m := range others {
			c.upload.SpoilFrom(m.ID(), step)
		}
	case wrong == 0:
		c.patience.Agreed()
	default:
		c.tried = oldestFirst(r.Members())
		r.End(fmt.Sprintf("%d copies of queue shards differ at step %d", wrong, step))
	}
	return true
}

// split is a vote without a majority: what each member said of a step.
type split struct {
	step    int64
	digests map[string]string // by id
}

// undecided ends a round in which no majority of the members computed the same.
// The step is run again: who then says something else than it did before is the
// one with the fault. Nothing is applied meanwhile, so nobody needs a state.
func (c *Core) undecided(r *round.Round, agree int) {
	before := c.split
	c.split = split{r.Step(), map[string]string{}}
	var changed []*roster.Replica
	var names []string
	for _, m := range r.Members() {
		digest := r.VoteOf(m).Digest
		c.split.digests[m.ID()] = digest
		names = append(names, m.String())
		if was := before.digests[m.ID()]; before.step == r.Step() && was != "" && was != digest {
			changed = append(changed, m)
		}
	}
	if 0 < len(changed) && len(changed) < len(r.Members()) {
		c.disagree(r, "gradients", r.Step(), changed, len(r.Members())-len(changed))
		return
	}
	for _, m := range r.Members() {
		c.report(event.DigestMismatch{Replica: about(m), Step: r.Step(), What: "gradients", Majority: agree})
	}
	who := strings.Join(names, ", ")
	if n, enough := c.patience.Mismatch(); enough {
		c.fail(fmt.Sprintf("step %d: the gradients of %s differ, %d times in a row, and none of them changes: look for faulty memory or different processors there, and let a third replica decide", r.Step(), who, n))
		return
	}
	r.End(fmt.Sprintf("gradients of %s differ at step %d: it is run again", who, r.Step()))
}

// disagree ends a round in which some members hold other values than the
// majority; they get its state, and are left out when that happens again. Where
// two differ nobody is right for sure, so that cannot go on for long.
func (c *Core) disagree(r *round.Round, what string, step int64, others []*roster.Replica, majority int) {
	var names []string
	for _, m := range others {
		m.Forget()
		names = append(names, m.String())
		c.report(event.DigestMismatch{Replica: about(m), Step: step, What: what, Majority: majority})
	}
	who := strings.Join(names, ", ")
	if len(others) < majority {
		for _, m := range others {
			c.blame.Own(c.now, r.Number(), m.ID())
		}
		c.tried = oldestFirst(r.Members())
	} else if n, enough := c.patience.Mismatch(); enough {
		c.fail(fmt.Sprintf("step %d: the %s of %s differ from the others', %d times in a row: look for faulty memory or different processors there", step, what, who, n))
		return
	}
	r.End(fmt.Sprintf("%s of %s differ at step %d", what, who, step))
}
