package coordinator

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"mochi/coordinator/protocol"
)

// ready takes a vote.
func (c *Core) ready(m *replica, v *protocol.Ready) {
	r := c.round
	if r == nil || r.save || !r.has(m) || v.Round != r.number || v.Step != r.step || r.votes[m.id()] != nil || r.appending != nil {
		return // of an older round, or once more
	}
	r.votes[m.id()] = v
	m.idle = time.Time{}
	if r.open != nil && r.open.applied[m.id()] == nil {
		r.open.excused[m.id()] = true // it has gone on, so it applied; only the report was lost
	}
	if m.state == nil && r.open == nil && c.digest != "" {
		m.state = &protocol.Position{Step: c.at, Digest: c.digest} // it computed from what it was sent
	}
	if r.steps == 0 && m.state != nil {
		c.received(r, m)
	}
	if n := len(r.deal[m.rank]); n > 0 && v.BusyMS > 0 {
		ms := v.BusyMS / float64(n)
		if m.ms > 0 {
			ms = 0.7*m.ms + 0.3*ms
		}
		m.ms = ms
	}
}

// decide is the commit point's eve: every member has voted.
func (c *Core) decide() {
	r := c.round
	digest := func(m *replica) string { return r.votes[m.id()].Digest }
	majority, others := split(r.members, digest)
	if len(others) > 0 {
		c.disagree("gradients", r.step, others, len(majority))
		return
	}
	commit, err := c.commit()
	if err != nil {
		c.fail(err.Error())
		return
	}
	if commit.Step > c.head {
		r.appending = commit
		c.do(Append{*commit})
		return
	}
	// The step is in the log already: it is run again from a checkpoint.
	if logged, ok := c.history[commit.Step]; ok && logged.digest != commit.Digest {
		c.report("replay mismatch", map[string]any{"step": commit.Step, "log": logged.digest, "now": commit.Digest})
	}
	c.publish(commit, true)
}

// disagree drops a round in which some members hold other values than the
// majority; they get its state.
func (c *Core) disagree(what string, step int64, others []*replica, majority int) {
	var names []string
	for _, m := range others {
		m.state, m.shards = nil, nil
		names = append(names, m.String())
		c.report("digest mismatch", map[string]any{
			"replica": m.hello.Name, "id": m.id(), "step": step, "what": what, "majority": majority,
		})
	}
	c.strikes++
	who := strings.Join(names, ", ")
	if c.strikes >= c.cfg.Limits.Mismatches {
		c.fail(fmt.Sprintf("step %d: the %s of %s differ from the others', %d times in a row: look for faulty memory or different processors there", step, what, who, c.strikes))
		return
	}
	c.round.end(fmt.Sprintf("%s of %s differ at step %d", what, who, step))
}

// commit makes the commit of a step from its votes.
func (c *Core) commit() (*protocol.Commit, error) {
	r, t := c.round, c.cfg.Training
	commit := &protocol.Commit{
		Step: r.step, Round: r.number, Cursor: r.cursor, Batch: t.Batch,
		QueueStart: int(r.cursor % int64(t.Queue)), Momentum: t.Momentum,
	}
	epoch := 0.0
	if c.data.Train > 0 {
		commit.Epoch = int(r.cursor / int64(c.data.Train))
		epoch = float64(r.cursor) / float64(c.data.Train)
	}
	commit.LR = c.cfg.LR(epoch)
	for _, m := range r.members {
		v := r.votes[m.id()]
		commit.Digest = v.Digest
		commit.Groups = append(commit.Groups, v.Groups...)
		var got []int
		for _, g := range v.Groups {
			got = append(got, g.Group)
			if math.IsNaN(g.Loss) || math.IsInf(g.Loss, 0) {
				return nil, fmt.Errorf("loss is %v at step %d (group %d, replica %s): training diverged; lower --lr or raise --temperature", g.Loss, r.step, g.Group, m)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, r.deal[m.rank]) {
			return nil, fmt.Errorf("replica %s computed groups %v of step %d, it was dealt %v", m, got, r.step, r.deal[m.rank])
		}
	}
	slices.SortFunc(commit.Groups, func(a, b protocol.GroupReport) int { return a.Group - b.Group })
	return commit, nil
}

// appended publishes the commit that is now in the log.
func (c *Core) appended(step int64) {
	r := c.round
	if r == nil || r.appending == nil || r.appending.Step != step {
		return
	}
	commit := r.appending
	r.appending = nil
	c.head, c.headCommit = step, commit
	c.remember(*commit)
	c.publish(commit, false)
}

// publish makes a step final for the members. What ends the round or stores a
// checkpoint is decided here: members may have been lost during the append.
func (c *Core) publish(commit *protocol.Commit, replayed bool) {
	r := c.round
	out := *commit
	out.Final = c.stop != "" || c.Total() > 0 && commit.Step >= c.Total()
	if out.Final {
		r.end("the last step")
	} else if why := c.boundary(); why != "" {
		r.end(why)
	}
	out.EndRound = r.ending != ""
	every := c.cfg.Training.CheckpointEvery
	owed := c.upload != nil && c.upload.from == ""
	out.Checkpoint = out.Final || owed || every > 0 && commit.Step%every == 0 || c.evaluated(commit) || !c.stayersCover()
	if out.Checkpoint {
		c.upload = &upload{step: commit.Step, since: c.now}
		if len(r.members) > 0 && r.members[0].rank == 0 {
			c.upload.from = r.members[0].id()
		}
	}
	r.open = &open{
		final: out.Final, record: c.measure(out, replayed),
		applied: map[string]*protocol.Applied{}, excused: map[string]bool{},
	}
	for _, m := range r.members {
		c.send(m.id(), protocol.Message{Commit: &out})
	}
	c.at, c.digest = commit.Step, ""
	c.failures = 0
	r.step, r.cursor, r.since = r.step+1, r.cursor+int64(commit.Batch), c.now
	r.steps++
	r.votes = map[string]*protocol.Ready{}
	c.resolve()
}

// evaluated says whether a commit ends an epoch whose state is evaluated
// (Config.KNNEvery), for which it is needed as a checkpoint.
func (c *Core) evaluated(commit *protocol.Commit) bool {
	every, n := int64(c.cfg.Training.KNNEvery), int64(c.data.Train)
	if every == 0 || n == 0 {
		return false
	}
	before, after := commit.Cursor/n, (commit.Cursor+int64(commit.Batch))/n
	return before/every != after/every
}

// measure is what the observer will hear of a step, but for its digests.
func (c *Core) measure(commit protocol.Commit, replayed bool) CommitRecord {
	r := c.round
	rec := newRecord(commit)
	rec.World, rec.Time, rec.Replayed = r.world, c.now, replayed
	rec.Phases = map[string]float64{}
	for _, m := range r.members {
		rec.Members = append(rec.Members, m.hello.Name)
		if v := r.votes[m.id()]; v != nil {
			for name, ms := range v.Phases {
				rec.Phases[name] = max(rec.Phases[name], ms)
			}
		}
	}
	if d := c.now.Sub(r.since); d > 0 {
		rec.StepMS = d.Seconds() * 1e3
		rec.ImagesPS = float64(commit.Batch) / d.Seconds()
	}
	c.lastLoss, c.lastImagesPS = rec.Loss, rec.ImagesPS
	return rec
}
