// Package history is what a coordinator knows of the steps that are committed:
// the log, the newest checkpoint, and where the job stands between them; and
// which checkpoint is to come next (Upload). It asks for nothing and stores
// nothing.
//
// The log is the truth. The job stands at its last step, or behind it while
// steps are run again: when every holder of the state is lost, the job goes
// back to a checkpoint, and the log says what must come out.
package history

import (
	"maps"
	"math"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
)

// Checkpoint is a state that the coordinator can give to replicas.
type Checkpoint struct {
	Name   string // what Round.Checkpoint says
	Step   int64  // commits applied
	Cursor int64  // samples committed
}

// History is the committed steps of a job.
type History struct {
	head       int64            // the last step in the log, or of the checkpoint when that is later
	last       *protocol.Commit // the last of the log, nil when it is empty
	inherited  bool             // it was there when this coordinator began
	checkpoint *Checkpoint      // the newest, nil when there is none

	// The commits after the checkpoint, without groups and seals. Whoever is told of one
	// may have to give it back, to a log that was lost, from which it is sent to replicas
	// that missed it: so all that they apply it by is kept. One without a digest stands for
	// the cursor alone (Store).
	steps map[int64]protocol.Commit

	at     int64  // the step whose state the job stands at; below head while steps are run again
	digest string // of that state, "" when not known
}

// Logged is what the log has of a step.
type Logged struct {
	Digest string // of the reduced gradients
	Term   uint64
	Chain  string // running digest, see protocol.Commit
}

// New is the history that a coordinator finds: the newest checkpoint and the
// last commit of the log, nil where there is none, and the commits after that
// checkpoint.
func New(checkpoint *Checkpoint, last *protocol.Commit, tail []protocol.Commit) *History {
	h := &History{last: last, inherited: last != nil, steps: map[int64]protocol.Commit{}, checkpoint: checkpoint}
	if last != nil {
		h.head = last.Step
		h.remember(*last)
	}
	for _, commit := range tail {
		h.remember(commit)
	}
	if checkpoint != nil {
		h.head = max(h.head, checkpoint.Step)
	}
	h.at = h.head
	return h
}

func (h *History) remember(commit protocol.Commit) {
	commit = commit.Bare()
	commit.Groups, commit.Seal = nil, ""
	h.steps[commit.Step] = commit
}

// At is the step whose state the job stands at.
func (h *History) At() int64 { return h.at }

// Digest is that of the state at At, "" when not known.
func (h *History) Digest() string { return h.digest }

// Head is the last step of the log.
func (h *History) Head() int64 { return h.head }

// Last is the last commit of the log, nil when it is empty.
func (h *History) Last() *protocol.Commit { return h.last }

// Inherited says that an earlier coordinator wrote the last commit of the log.
func (h *History) Inherited() bool { return h.inherited }

// Checkpoint is the newest, nil when there is none.
func (h *History) Checkpoint() *Checkpoint { return h.checkpoint }

// Restorable says whether the state after a step can be had without a replica:
// from the seed or the newest checkpoint.
func (h *History) Restorable(step int64) bool {
	return step == 0 || h.checkpoint != nil && h.checkpoint.Step == step
}

// CursorAfter is how many samples are committed after a step, false when that
// step is not part of the known history.
func (h *History) CursorAfter(step int64) (int64, bool) {
	switch {
	case step == 0:
		return 0, true
	case h.checkpoint != nil && h.checkpoint.Step == step:
		return h.checkpoint.Cursor, true
	}
	c, ok := h.steps[step]
	return c.Cursor + int64(c.Batch), ok
}

// Has says whether the state after a step is one of this job: the log or the
// checkpoint has that step.
func (h *History) Has(step int64) bool {
	_, ok := h.CursorAfter(step)
	return ok && step <= h.head
}

// Logged is what the log has of a step, false when it is not remembered.
func (h *History) Logged(step int64) (Logged, bool) {
	c := h.steps[step]
	return Logged{c.Digest, c.Term, c.Chain}, c.Digest != ""
}

// Commit is the commit of a step without its groups, of the caller; nil when it is not
// remembered.
func (h *History) Commit(step int64) *protocol.Commit {
	c := h.steps[step]
	if c.Digest == "" {
		return nil
	}
	return &c
}

// Adopt takes commits that the log has got back: they take the place of what it had of
// their steps and of later ones. The job stands at the last of them.
func (h *History) Adopt(commits []protocol.Commit) {
	if len(commits) == 0 {
		return
	}
	first, last := commits[0].Step, commits[len(commits)-1]
	maps.DeleteFunc(h.steps, func(s int64, _ protocol.Commit) bool { return s >= first })
	for _, c := range commits {
		h.remember(c)
	}
	h.head, h.last, h.inherited = last.Step, &last, true
	h.StandAt(last.Step, "")
}

// Chain is the running digest of the log, "" when it is empty.
func (h *History) Chain() string {
	if h.last == nil {
		return ""
	}
	return h.last.Chain
}

// Append takes a commit that is now in the log.
func (h *History) Append(commit *protocol.Commit) {
	h.head, h.last, h.inherited = commit.Step, commit, false
	h.remember(*commit)
}

// StandAt moves the job to the state after a step: a commit is published, a
// replica has brought a later state, or the job goes back. digest is that of
// the state, "" when not known.
func (h *History) StandAt(step int64, digest string) { h.at, h.digest = step, digest }

// Store takes a checkpoint that is now safe; false when it is of no use: older
// than the newest, or of an unknown step.
func (h *History) Store(name string, step int64) bool {
	cursor, ok := h.CursorAfter(step)
	if !ok || h.checkpoint != nil && step < h.checkpoint.Step {
		return false
	}
	if old := h.checkpoint; old != nil { // the job may stand there: it went back before this one was safe
		if _, logged := h.steps[old.Step]; !logged {
			h.steps[old.Step] = protocol.Commit{Cursor: old.Cursor}
		}
	}
	h.checkpoint = &Checkpoint{Name: name, Step: step, Cursor: cursor}
	// Steps that are being run again are still compared with the log.
	maps.DeleteFunc(h.steps, func(s int64, _ protocol.Commit) bool { return s < min(step, h.at) })
	return true
}

// Total is the number of steps of the job: what its configuration says, or the
// steps up to now and as many more as the epochs have batches left (the last
// one reaches over the end): the batch may have been another before. 0: not
// known yet.
func (h *History) Total(job config.Job, train int) int64 {
	switch {
	case job.Steps > 0:
		return job.Steps
	case train == 0 || job.Batch == 0:
		return 0
	}
	cursor, ok := h.CursorAfter(h.at)
	if !ok {
		cursor = h.at * int64(job.Batch)
	}
	left := int64(job.Epochs)*int64(train) - cursor
	return h.at + int64(math.Ceil(float64(left)/float64(job.Batch)))
}
