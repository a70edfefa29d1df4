package replicatest

import (
	"context"
	"slices"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
)

// Script is a coordinator of one replica that grants everything at once: it
// welcomes whoever says Hello, deals it all groups in round 1, commits each step
// as soon as it is voted for, and stops the job after the last one is applied.
// It answers on the goroutine that sends, so a replica finds its answer when it
// looks. It is a replica's Link.
type Script struct {
	Job   config.Job
	Steps int64 // of the job: the commit of this one is its last
	First int64 // commits that the replica starts from

	Source protocol.Source // where the state comes from; default protocol.FromSeed
	Blob   []byte          // the checkpoint for protocol.FromCheckpoint
	Save   bool            // the last commit asks for a checkpoint

	// Heard, if set, is told every message before the script acts on it. When it
	// answers true the script does not act.
	Heard func(m protocol.Message) (answered bool)

	Commits []protocol.Commit // in order; read it when the replica has ended
	Uploads map[int64][]byte  // checkpoints by step; likewise

	messages chan protocol.Message
}

// NewScript makes the coordinator of a job of so many steps, with a checkpoint
// at its end.
func NewScript(job config.Job, steps int64) *Script {
	return &Script{
		Job: job, Steps: steps, Source: protocol.FromSeed, Save: true,
		Uploads: map[int64][]byte{}, messages: make(chan protocol.Message, 16),
	}
}

// Say sends a message to the replica.
func (s *Script) Say(m protocol.Message) { s.messages <- m }

// Messages are those to the replica.
func (s *Script) Messages() <-chan protocol.Message { return s.messages }

// Upload keeps a checkpoint.
func (s *Script) Upload(_ context.Context, step int64, state []byte) error {
	s.Uploads[step] = slices.Clone(state)
	return nil
}

// Download gives Blob, whatever is asked for.
func (s *Script) Download(context.Context, string) ([]byte, error) { return s.Blob, nil }

// Send plays the coordinator's part.
func (s *Script) Send(_ context.Context, m protocol.Message) error {
	if s.Heard != nil && s.Heard(m) {
		return nil
	}
	switch {
	case m.Hello != nil && m.Hello.Config == "":
		s.Say(protocol.Message{Welcome: &protocol.Welcome{Instance: "script", Config: s.Job}})
	case m.Hello != nil: // it is ready
		s.Say(protocol.Message{Round: s.Round(m.Hello.ID)})
	case m.Ready != nil:
		c := s.Commit(*m.Ready)
		s.Commits = append(s.Commits, c)
		s.Say(protocol.Message{Commit: &c})
	case m.Applied != nil && m.Applied.Step == s.Steps:
		s.Say(protocol.Message{Stop: &protocol.Stop{Reason: "all steps done"}})
	case m.Failed != nil:
		s.Say(protocol.Message{Stop: &protocol.Stop{Reason: m.Failed.Error, Failed: true}})
	}
	return nil
}

// Round is the one round of the job, with all groups dealt to one replica.
func (s *Script) Round(id string) *protocol.Round {
	groups := make([]int, s.Job.Groups())
	for i := range groups {
		groups[i] = i
	}
	return &protocol.Round{
		Round: 1, Step: s.First + 1, Cursor: s.First * int64(s.Job.Batch), Donor: -1,
		Members: []protocol.Member{{ID: id, Name: id, Groups: groups, State: s.Source}},
	}
}

// Commit makes a step final that was voted for.
func (s *Script) Commit(r protocol.Ready) protocol.Commit {
	last := r.Step == s.Steps
	return protocol.Commit{
		Step: r.Step, Round: r.Round, Cursor: (r.Step - 1) * int64(s.Job.Batch), Batch: s.Job.Batch,
		LR: s.Job.LR, Momentum: s.Job.Momentum, Digest: r.Digest, Groups: r.Groups,
		Final: last, EndRound: last, Checkpoint: last && s.Save,
	}
}
