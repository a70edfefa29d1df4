package coordinator

import (
	"time"

	"mochi/coordinator/protocol"
)

// Input is something that happened. The types below are all there are; table
// says what is done with each.
type Input interface{ kind() kind }

// Received is a message of a replica.
type Received struct{ Message protocol.Message }

// Lost says that a replica's connection closed.
type Lost struct{ ID, Why string }

// Hint is what the membership gossip believes about a replica. It is never a
// reason to act by itself.
type Hint struct {
	ID   string
	Dead bool
}

// Appended says that the commit of a step is in the log.
type Appended struct{ Step int64 }

// AppendFailed says that it is not, or not known to be.
type AppendFailed struct {
	Step   int64
	Fenced bool // another coordinator leads the job
	Error  string
}

// Led says that a term has begun (Lead).
type Led struct{ Term uint64 }

// Adopted says that the log has taken commits (Adopt).
type Adopted struct{}

// Stored says that a checkpoint is safe.
type Stored struct {
	Name string
	Step int64
}

// Arriving says that more of a replica's checkpoint has arrived.
type Arriving struct {
	From string // "": all of it is here, and on its way to the other coordinators
	Step int64
}

// StoreFailed says that a checkpoint could not be stored.
type StoreFailed struct {
	Step  int64
	Full  bool // there was no room for it
	Error string
}

// Tick lets time pass. Stood is how long the coordinator itself stood still
// since the last one (a suspended or starved process): in that time it heard
// nothing, so nobody's silence counts.
type Tick struct{ Stood time.Duration }

// StopRequested asks for an orderly stop: finish the step, store a
// checkpoint, end the job.
type StopRequested struct{ Reason string }

func (Lost) kind() kind          { return lost }
func (Hint) kind() kind          { return hint }
func (Appended) kind() kind      { return appended }
func (AppendFailed) kind() kind  { return appendFailed }
func (Led) kind() kind           { return led }
func (Adopted) kind() kind       { return adopted }
func (Stored) kind() kind        { return stored }
func (Arriving) kind() kind      { return arriving }
func (StoreFailed) kind() kind   { return storeFailed }
func (Tick) kind() kind          { return tick }
func (StopRequested) kind() kind { return stopRequested }

// kind of a message is what it says. One that says nothing that the coordinator
// knows is no more than a sign of life.
func (r Received) kind() kind {
	switch m := r.Message; {
	case m.Hello != nil:
		return hello
	case m.Ready != nil:
		return ready
	case m.Applied != nil:
		return applied
	case m.Failed != nil:
		return failed
	case m.Leaving != nil:
		return leaving
	case m.Heartbeat != nil:
		return heartbeat
	case m.Drain != nil:
		return drain
	case m.Recalled != nil:
		return recalled
	}
	return nothing
}
