package coordinator

import (
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
)

// Status is how the job stands; the server adds its name and start time.
func (c *Core) Status() protocol.Status {
	s := protocol.Status{
		Phase: c.course.Phase(), Reason: c.course.Explain(), Step: c.history.At(), Steps: c.Total(), Round: c.course.Last(),
		Loss: c.latest.Loss, ImagesPS: c.latest.ImagesPS, Data: c.data,
	}
	if !c.since.IsZero() {
		s.Since = stamp(c.since)
	}
	if cursor, ok := c.history.CursorAfter(c.history.At()); ok && c.data.Train > 0 {
		s.Epoch = int(cursor / int64(c.data.Train))
	}
	s.Queue = protocol.QueueState{Copies: c.cfg.Training.QueueCopies, Pairs: c.cfg.Training.Drawn(), Repairs: c.copies.Repairs(), Moved: c.copies.Moved()}
	s.Audits = protocol.AuditState{Every: c.audits.Every, LeftOut: c.jury.BannedNames()}
	s.Audits.Done, s.Audits.Failed = c.jury.Counts()
	if r := c.course.Round(); r != nil {
		s.World, s.Queue.Shards = len(r.Members()), r.Shards()
	}
	for _, m := range c.roster.All() {
		s.Replicas = append(s.Replicas, c.replicaState(m))
	}
	return s
}

// stamp is a time as a Status has it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (c *Core) replicaState(m *roster.Replica) protocol.ReplicaState {
	h := m.Hello()
	s := protocol.ReplicaState{
		ID: m.ID(), Name: m.Name(), Engine: h.Engine, State: "joining", Rank: -1, StepMS: m.MSPerGroup(),
		Device: h.Device, Versions: h.Versions,
	}
	until, why, held := c.heldBack(m)
	switch r := c.course.Round(); {
	case !m.Ready():
		s.State = "building"
	case r != nil && r.Has(m):
		s.State, s.Rank, s.Groups = "member", m.Rank(), len(r.Groups(m))
		s.StepMS = m.MSPerGroup() * float64(s.Groups)
	case held:
		s.State, s.Why, s.Until = "waiting", why, stamp(until)
		if _, _, out := c.blame.Excluded(c.now, m.ID()); out {
			s.State = "excluded"
		}
	case r != nil && len(r.Members()) >= c.maxMembers():
		s.State = "standby"
	}
	s.Phase, s.Since = m.Beat().Phase, stamp(m.Moved())
	s.Faults = c.blame.Faults(m.ID())
	if m.Leaving() {
		s.State = "leaving"
	}
	return s
}
