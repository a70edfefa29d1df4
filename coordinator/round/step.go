package round

import (
	"fmt"
	"math"
	"slices"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/roster"
)

// Vote takes a member's vote; false when it is of an older round, or said once
// more. A member that votes for the next step has applied the one before, even
// if its report was lost.
func (r *Round) Vote(m *roster.Replica, v *protocol.Ready) bool {
	if !r.Has(m) || v.Round != r.plan.Number || v.Step != r.step || r.votes[m.ID()] != nil {
		return false
	}
	r.votes[m.ID()] = v
	r.Excuse(m)
	return true
}

// VoteOf is a member's vote for the step, nil until it has voted.
func (r *Round) VoteOf(m *roster.Replica) *protocol.Ready { return r.votes[m.ID()] }

// AllVoted says whether every member has.
func (r *Round) AllVoted() bool { return len(r.votes) == len(r.members) }

// CompareVotes separates the members whose digests most others share.
func (r *Round) CompareVotes() (majority, others []*roster.Replica) {
	return roster.Majority(r.members, func(m *roster.Replica) string { return r.VoteOf(m).Digest })
}

// Commit makes the commit of the step from the votes of all members. lr is the
// learning rate at a point of the run, in epochs of train samples (0: not
// known). It is an error when a loss is not finite or a member did not compute
// what it was dealt.
func (r *Round) Commit(job config.Job, train int, lr func(epoch float64) float64) (*protocol.Commit, error) {
	commit := &protocol.Commit{
		Step: r.step, Round: r.plan.Number, Cursor: r.cursor, Batch: job.Batch,
		QueueStart: int(r.cursor % int64(job.Queue)), Momentum: job.Momentum,
	}
	epoch := 0.0
	if train > 0 {
		commit.Epoch = int(r.cursor / int64(train))
		epoch = float64(r.cursor) / float64(train)
	}
	commit.LR = lr(epoch)
	for _, m := range r.members {
		v := r.votes[m.ID()]
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
		if !slices.Equal(got, r.Groups(m)) {
			return nil, fmt.Errorf("replica %s computed groups %v of step %d, it was dealt %v", m, got, r.step, r.Groups(m))
		}
	}
	slices.SortFunc(commit.Groups, func(a, b protocol.GroupReport) int { return a.Group - b.Group })
	return commit, nil
}

// Append notes that the commit is on its way to the log.
func (r *Round) Append(commit *protocol.Commit) { r.appending = commit }

// Appended takes the news that the log has the commit of a step, and returns
// it; nil when another step is on its way.
func (r *Round) Appended(step int64) *protocol.Commit {
	if r.appending == nil || r.appending.Step != step {
		return nil
	}
	commit := r.appending
	r.appending = nil
	return commit
}

// Publish opens a step: its commit goes out to the members. Their votes for the
// next one are awaited from now on.
func (r *Round) Publish(record Record, now time.Time) {
	commit := record.Commit
	r.open = &open{
		final: commit.Final, record: record,
		applied: map[string]*protocol.Applied{}, excused: map[string]bool{},
	}
	r.step, r.cursor, r.since = r.step+1, r.cursor+int64(commit.Batch), now
	r.steps++
	r.votes = map[string]*protocol.Ready{}
}

// Applied takes a member's report of the open step; false when it is about
// something else.
func (r *Round) Applied(m *roster.Replica, a *protocol.Applied) bool {
	if r.open == nil || !r.Has(m) || a.Step != r.open.record.Commit.Step || a.Round != r.plan.Number {
		return false
	}
	r.open.applied[m.ID()] = a
	return true
}

// Excuse says that a member's report of the open step will not come, if it has
// not yet.
func (r *Round) Excuse(m *roster.Replica) {
	if r.open != nil && r.open.applied[m.ID()] == nil {
		r.open.excused[m.ID()] = true
	}
}

// AllApplied says whether no report of the open step is awaited any more.
func (r *Round) AllApplied() bool { return !slices.ContainsFunc(r.members, r.Awaits) }

// Reports is what the members hold after a step.
type Reports struct {
	Record Record
	Final  bool
	there  []*roster.Replica
	by     map[string]*protocol.Applied
}

// Open says whether a step is published and not yet applied by all.
func (r *Round) Open() bool { return r.open != nil }

// CloseStep ends the open step and hands out what was reported. It must be there.
func (r *Round) CloseStep() Reports {
	o := r.open
	r.open = nil
	for _, a := range o.applied {
		o.record.measured(a.Phases, a.CPU)
	}
	reports := Reports{Record: o.record, Final: o.final, by: o.applied}
	for _, m := range r.members {
		if o.applied[m.ID()] != nil {
			reports.there = append(reports.there, m)
		}
	}
	return reports
}

// Of is the report of a member that was not excused.
func (s Reports) Of(m *roster.Replica) *protocol.Applied { return s.by[m.ID()] }

// Compare separates the members that hold what most others hold, of those that
// reported.
func (s Reports) Compare() (majority, others []*roster.Replica) {
	return roster.Majority(s.there, func(m *roster.Replica) string {
		a := s.Of(m)
		return a.StateDigest + " " + a.Digest
	})
}

// Shards are the digests of the queue's shards after the step, as those say that
// hold them soundly; "" for a shard of which they say different things, or nothing.
func (s Reports) Shards(majority []*roster.Replica) []string {
	var shards []string
	differs := map[int]bool{}
	for _, m := range majority {
		a := s.Of(m)
		for v, digest := range a.Shards {
			if v >= len(shards) {
				shards = append(shards, "")
			}
			if digest == "" || slices.Contains(a.Damaged, v) {
				continue
			}
			differs[v] = differs[v] || shards[v] != "" && shards[v] != digest
			shards[v] = digest
		}
	}
	for v := range shards {
		if differs[v] {
			shards[v] = ""
		}
	}
	return shards
}

// Digests are those of the parameters and of the state after the step, as most
// members have them; of one that was lost since when nobody else reported them,
// "" when nobody did.
func (s Reports) Digests(majority []*roster.Replica) (parameters, state string) {
	for _, m := range majority {
		return s.Of(m).Digest, s.Of(m).StateDigest
	}
	for _, a := range s.by {
		return a.Digest, a.StateDigest
	}
	return "", ""
}
