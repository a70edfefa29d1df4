package coordinator

import (
	"fmt"
	"strings"

	"mochi/coordinator/protocol"
)

// explain says in words what the job is waiting for.
func (c *Core) explain() string {
	r := c.round
	switch {
	case r == nil:
		return c.reason
	case r.appending != nil:
		return "waiting for the log"
	case r.open != nil && r.ending != "":
		return "finishing the round: " + r.ending
	}
	if r.save {
		return "storing the last checkpoint"
	}
	var missing []string
	for _, m := range r.members {
		if r.votes[m.id()] == nil {
			missing = append(missing, m.hello.Name)
		}
	}
	return fmt.Sprintf("computing: %s", strings.Join(missing, ", "))
}

// Status is how the job stands; the server adds its name and start time.
func (c *Core) Status() protocol.Status {
	s := protocol.Status{
		Phase: c.phase, Reason: c.explain(), Step: c.at, Steps: c.Total(), Round: c.lastRound,
		Loss: c.lastLoss, ImagesPS: c.lastImagesPS, Data: c.data,
	}
	if c.stop != "" && !c.over {
		s.Phase = "stopping"
	}
	if cursor, ok := c.cursorAfter(c.at); ok && c.data.Train > 0 {
		s.Epoch = int(cursor / int64(c.data.Train))
	}
	s.Queue = c.queueState()
	for _, m := range c.sorted() {
		state := protocol.ReplicaState{
			ID: m.id(), Name: m.hello.Name, Engine: m.hello.Engine, State: "joining", Rank: -1, StepMS: m.ms,
			Device: m.hello.Device, Versions: m.hello.Versions,
		}
		if r := c.round; r != nil && r.has(m) {
			s.World++
			state.State, state.Rank, state.Groups = "member", m.rank, len(r.deal[m.rank])
			state.StepMS = m.ms * float64(state.Groups)
		} else if r != nil && len(r.members) >= c.limit() {
			state.State = "standby"
		}
		if m.leaving {
			state.State = "leaving"
		}
		s.Replicas = append(s.Replicas, state)
	}
	return s
}
