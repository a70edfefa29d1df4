// Package round is the course of a job from round to round: which state it is
// in (State), what the members of the round in hand have voted and reported,
// what the commit of a step is, and why the job will end. It holds what others
// decide; of itself it decides nothing and sends nothing.
//
// A round is one membership. Its steps go
//
//	voting     every member votes for step t, with a digest of its gradients
//	appending  Commit(t) goes to the log; nobody has seen it yet
//	applying   Commit(t) is published; members apply it, report, and compute t+1
//
// and it ends for good at the first reason given (End).
package round

import (
	"slices"
	"time"

	"mochi/coordinator/copies"
	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
)

// Plan is what a round begins with.
type Plan struct {
	Number  int64
	Members []*roster.Replica // by rank
	Deal    [][]int           // groups by rank
	Step    int64             // to be committed first
	Cursor  int64             // samples committed before it
	Copies  copies.Arrangement
	Save    bool  // without a step: the members store their state
	Trial   []int // without a step: groups that all compute again, to see who is wrong
}

// Round is one membership at work.
type Round struct {
	plan    Plan
	members []*roster.Replica // those still alive, by rank

	step   int64 // to be committed next
	cursor int64 // samples committed before it
	steps  int   // committed in this round
	since  time.Time
	votes  map[string]*protocol.Ready // by id

	appending *protocol.Commit // on its way to the log
	open      *open            // published, not yet applied by all
	ending    string           // why no further step is committed, "" while it goes on
}

// open is a published commit whose members have not all applied it yet.
type open struct {
	final   bool
	record  Record
	applied map[string]*protocol.Applied // by id, those lost since among them
	excused map[string]bool              // members whose report will not come
}

// New begins a round.
func New(p Plan, now time.Time) *Round {
	return &Round{
		plan: p, members: slices.Clone(p.Members), step: p.Step, cursor: p.Cursor, since: now,
		votes: map[string]*protocol.Ready{},
	}
}

// Number is the round's.
func (r *Round) Number() int64 { return r.plan.Number }

// Members are those still alive, by rank. The caller must not change the slice.
func (r *Round) Members() []*roster.Replica { return r.members }

// World is how many members it began with.
func (r *Round) World() int { return len(r.plan.Members) }

// Plan is what it began with.
func (r *Round) Plan() Plan { return r.plan }

// Groups are those of a member.
func (r *Round) Groups(m *roster.Replica) []int { return r.plan.Deal[m.Rank()] }

// Step is the step to be committed next.
func (r *Round) Step() int64 { return r.step }

// Since is when its last step was published, or when it began.
func (r *Round) Since() time.Time { return r.since }

// Steps is how many it has committed.
func (r *Round) Steps() int { return r.steps }

// Has says whether a replica is a member, and alive.
func (r *Round) Has(m *roster.Replica) bool { return slices.Contains(r.members, m) }

// Remove takes away a member that is gone, and its vote.
func (r *Round) Remove(m *roster.Replica) {
	r.members = slices.DeleteFunc(slices.Clone(r.members), func(o *roster.Replica) bool { return o == m })
	delete(r.votes, m.ID())
}

// End stops the round from committing further steps; the first reason stays.
func (r *Round) End(why string) {
	if r.ending == "" {
		r.ending = why
	}
}

// Ending is why no further step is committed, "" while it goes on.
func (r *Round) Ending() string { return r.ending }

// State is where the round stands.
func (r *Round) State() State {
	switch {
	case r.appending != nil:
		return Appending
	case r.open != nil && r.ending != "":
		return Closing
	case r.open != nil:
		return Applying
	case r.ending != "", len(r.members) == 0:
		return Over
	case r.plan.Save:
		return Saving
	}
	return Voting
}

// Awaits says whether the round cannot go on without a word of a replica.
func (r *Round) Awaits(m *roster.Replica) bool {
	if !r.Has(m) {
		return false
	}
	switch r.State() {
	case Applying, Closing:
		return r.open.applied[m.ID()] == nil && !r.open.excused[m.ID()]
	case Voting:
		return r.votes[m.ID()] == nil
	}
	return false
}

// Absent names the members whose votes are awaited.
func (r *Round) Absent() []string {
	var names []string
	for _, m := range r.members {
		if r.votes[m.ID()] == nil {
			names = append(names, m.Name())
		}
	}
	return names
}

// Spread says whether the queue's shards are placed; otherwise every member
// holds all.
func (r *Round) Spread() bool { return r.plan.Copies.Spread() }

// HoldersOf lists which of some members hold a shard in this round, the owner
// first.
func (r *Round) HoldersOf(v int, of []*roster.Replica) []*roster.Replica {
	if !r.Spread() {
		return of
	}
	var list []*roster.Replica
	for _, rank := range r.plan.Copies.Holders[v] {
		if m := r.plan.Members[rank]; slices.Contains(of, m) {
			list = append(list, m)
		}
	}
	return list
}

// TransfersTo lists what is sent to a member before the first step, as far as
// it is known what that is.
func (r *Round) TransfersTo(m *roster.Replica) []protocol.Transfer {
	return slices.DeleteFunc(slices.Clone(r.plan.Copies.Transfers), func(t protocol.Transfer) bool {
		return t.Digest == "" || !slices.Contains(t.To, m.Rank())
	})
}

// StayersCover says whether members that do not leave hold the state and all of
// the queue.
func (r *Round) StayersCover() bool {
	staying := slices.DeleteFunc(slices.Clone(r.members), (*roster.Replica).Leaving)
	if len(staying) == 0 {
		return false
	}
	for v := range r.plan.Copies.Holders {
		if len(r.HoldersOf(v, staying)) == 0 {
			return false
		}
	}
	return true
}

// Shards is who holds what of a queue that is spread, for a Status.
func (r *Round) Shards() []protocol.ShardState {
	var list []protocol.ShardState
	for v := range r.plan.Copies.Holders {
		state := protocol.ShardState{Copies: []string{}}
		for i, m := range r.HoldersOf(v, r.members) {
			if i == 0 {
				state.Owner = m.ID()
			} else {
				state.Copies = append(state.Copies, m.ID())
			}
		}
		list = append(list, state)
	}
	return list
}
