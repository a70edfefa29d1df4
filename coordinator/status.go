package coordinator

import (
	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
)

// Status is how the job stands; the server adds its name and start time.
func (c *Core) Status() protocol.Status {
	s := protocol.Status{
		Phase: c.course.Phase(), Reason: c.course.Explain(), Step: c.history.At(), Steps: c.Total(), Round: c.course.Last(),
		Loss: c.latest.Loss, ImagesPS: c.latest.ImagesPS, Data: c.data,
	}
	if cursor, ok := c.history.CursorAfter(c.history.At()); ok && c.data.Train > 0 {
		s.Epoch = int(cursor / int64(c.data.Train))
	}
	s.Queue = protocol.QueueState{Copies: c.cfg.Training.QueueCopies, Repairs: c.copies.Repairs(), Moved: c.copies.Moved()}
	if r := c.course.Round(); r != nil {
		s.World, s.Queue.Shards = len(r.Members()), r.Shards()
	}
	for _, m := range c.roster.All() {
		s.Replicas = append(s.Replicas, c.replicaState(m))
	}
	return s
}

func (c *Core) replicaState(m *roster.Replica) protocol.ReplicaState {
	h := m.Hello()
	s := protocol.ReplicaState{
		ID: m.ID(), Name: m.Name(), Engine: h.Engine, State: "joining", Rank: -1, StepMS: m.MSPerGroup(),
		Device: h.Device, Versions: h.Versions,
	}
	switch r := c.course.Round(); {
	case r == nil:
	case r.Has(m):
		s.State, s.Rank, s.Groups = "member", m.Rank(), len(r.Groups(m))
		s.StepMS = m.MSPerGroup() * float64(s.Groups)
	case len(r.Members()) >= c.maxMembers():
		s.State = "standby"
	}
	if m.Leaving() {
		s.State = "leaving"
	}
	return s
}
