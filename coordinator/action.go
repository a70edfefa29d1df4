package coordinator

import (
	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/round"
)

// Action is something to do. Actions are carried out in order.
type Action interface{ action() }

// Send delivers a message to a replica.
type Send struct {
	To      string
	Message protocol.Message
}

// Append writes a commit to the log and answers with Appended or
// AppendFailed. There is at most one at a time.
type Append struct {
	Commit protocol.Commit
	Anew   bool // it does not follow the log, which ends before the checkpoint that the job goes on from
}

// CommitRecord is one committed step, as the observer hears of it.
type CommitRecord = round.Record

// Record tells the observer of a commit: each step once and in order, and
// once more (Replayed) when it had to be run again from a checkpoint.
type Record struct{ CommitRecord }

// Report tells the observer of anything else that people should know.
type Report struct{ Event event.Event }

// Remember stores what the job trains on.
type Remember struct{ Data protocol.Data }

// Note stores a text under a name (Log.SaveNote).
type Note struct{ Name, Text string }

// Reserve stores the number of a round before anybody hears of it, so that no
// later coordinator gives it to another membership.
type Reserve struct{ Round int64 }

// Lead begins a term above another, and answers with Led.
type Lead struct{ Above uint64 }

// Adopt puts commits in place of those that the log has of their steps and of later
// ones, and answers with Adopted.
type Adopt struct{ Commits []protocol.Commit }

// Finish ends the job; it is the last action.
type Finish struct {
	Failed bool
	Fenced bool // another coordinator goes on with it
	Short  bool // this one cannot: its log lacks steps. The replicas keep their states and wait
	Reason string

	// Absent are ids of members of the last round who have not greeted this
	// coordinator yet: nobody has told them. Unknown: so are all of that round, and who
	// they are is not known.
	Absent  []string
	Unknown bool
}

func (Send) action()     {}
func (Append) action()   {}
func (Record) action()   {}
func (Report) action()   {}
func (Remember) action() {}
func (Note) action()     {}
func (Reserve) action()  {}
func (Lead) action()     {}
func (Adopt) action()    {}
func (Finish) action()   {}

// Plan is what Step decided, and why the job stands where it stands.
type Plan struct {
	Actions []Action
	Reason  string
}
