package coordinator

import (
	"time"

	"mochi/coordinator/protocol"
)

// Event is something that happened. The types below are all there are.
type Event interface{ event() }

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

// Stored says that a checkpoint is safe.
type Stored struct {
	Name string
	Step int64
}

// StoreFailed says that a checkpoint could not be stored.
type StoreFailed struct {
	Step  int64
	Error string
}

// Tick lets time pass. Stood is how long the coordinator itself stood still
// since the last one (a suspended or starved process): in that time it heard
// nothing, so nobody's silence counts.
type Tick struct{ Stood time.Duration }

// StopRequested asks for an orderly stop: finish the step, store a
// checkpoint, end the job.
type StopRequested struct{ Reason string }

func (Received) event()      {}
func (Lost) event()          {}
func (Hint) event()          {}
func (Appended) event()      {}
func (AppendFailed) event()  {}
func (Stored) event()        {}
func (StoreFailed) event()   {}
func (Tick) event()          {}
func (StopRequested) event() {}

// Action is something to do. Actions are carried out in order.
type Action interface{ action() }

// Send delivers a message to a replica.
type Send struct {
	To      string
	Message protocol.Message
}

// Append writes a commit to the log and answers with Appended or
// AppendFailed. There is at most one at a time.
type Append struct{ Commit protocol.Commit }

// Record tells the observer of a commit: each step once and in order, and
// once more (Replayed) when it had to be run again from a checkpoint.
type Record struct{ CommitRecord }

// Report tells the observer of anything else that people should know.
type Report struct {
	Name   string
	Fields map[string]any
}

// Remember stores what the job trains on.
type Remember struct{ Data protocol.Data }

// Reserve stores the number of a round before anybody hears of it, so that no
// later coordinator gives it to another membership.
type Reserve struct{ Round int64 }

// Finish ends the job; it is the last action.
type Finish struct {
	Failed bool
	Fenced bool // another coordinator goes on with it
	Reason string
}

func (Send) action()     {}
func (Append) action()   {}
func (Record) action()   {}
func (Report) action()   {}
func (Remember) action() {}
func (Reserve) action()  {}
func (Finish) action()   {}

// Plan is what Step decided, and why the job stands where it stands.
type Plan struct {
	Actions []Action
	Reason  string
}
