package event

// Replica names the replica that an event is about.
type Replica struct {
	Name string `json:"replica"` // its name, as --name says
	ID   string `json:"id"`      // of its process; no other has it
}

// Joined is reported when a replica is admitted. It becomes a member of the
// next round.
type Joined struct {
	Info
	Replica
	Engine  string `json:"engine"`  // what it computes with
	Threads int    `json:"threads"` // that it computes on
}

// EventName implements Event.
func (Joined) EventName() string { return "replica joined" }

// Refused is reported when a replica does not fit the job.
type Refused struct {
	Warning
	Replica
	Field string `json:"field"` // what differs
	Want  string `json:"want"`  // its value in the job
	Got   string `json:"got"`   // its value in the replica
}

// EventName implements Event.
func (Refused) EventName() string { return "replica refused" }

// Draining is reported when somebody asks that a replica be let go (mochi drain).
type Draining struct {
	Info
	Replica
	Step int64 `json:"step"` // where the job stands
}

// EventName implements Event.
func (Draining) EventName() string { return "draining" }

// Left is reported when a replica is let go that asked to leave.
type Left struct {
	Info
	Replica
}

// EventName implements Event.
func (Left) EventName() string { return "replica left" }

// LeftEarly is reported when a replica that asked to leave went before it was
// let go.
type LeftEarly struct {
	Info
	Replica
	Reason string `json:"reason"` // how the coordinator noticed
	Step   int64  `json:"step"`   // where the job stands
}

// EventName implements Event.
func (LeftEarly) EventName() string { return "replica left" }

// Lost is reported when a replica is given up. Its round ends, and the others
// run the step again.
type Lost struct {
	Warning
	Replica
	Reason string `json:"reason"` // a closed connection, or for how long it was silent
	Step   int64  `json:"step"`   // where the job stands
}

// EventName implements Event.
func (Lost) EventName() string { return "replica lost" }

// ReplicaFailed is reported when a replica ends with trouble of its own: memory,
// files, a device. Its round ends, and the others run the step again.
type ReplicaFailed struct {
	Warning
	Replica
	Round int64  `json:"round"` // that it was in, 0 when it was none
	Step  int64  `json:"step"`  // that it could not finish
	Error string `json:"error"` // what went wrong, in its words
}

// EventName implements Event.
func (ReplicaFailed) EventName() string { return "replica failed" }

// Stalled is reported when a member that the others wait for has made no
// progress for 30 s, or three times as long as the slowest of the last steps took.
// If that lasts it is given up (--step-timeout).
type Stalled struct {
	Warning
	Replica
	Step    int64   `json:"step"`    // that it is at
	Phase   string  `json:"phase"`   // what it does, or hangs in
	Seconds float64 `json:"seconds"` // without progress
}

// EventName implements Event.
func (Stalled) EventName() string { return "stalled" }

// LeftOut is reported when a replica is left out of the next rounds because
// rounds with it failed. It is taken in again after a while.
type LeftOut struct {
	Warning
	Replica
	Reason  string  `json:"reason"`  // what it did, and with whom
	Seconds float64 `json:"seconds"` // how long, at least
	Step    int64   `json:"step"`    // where the job stands
}

// EventName implements Event.
func (LeftOut) EventName() string { return "replica left out" }

// AheadOfLog is reported when a replica holds a state of which the log does not know,
// and nobody can tell the commits that led to it. It gets another state.
type AheadOfLog struct {
	Warning
	Replica
	Step int64 `json:"step"` // of its state
	Log  int64 `json:"log"`  // the last step of the log
}

// EventName implements Event.
func (AheadOfLog) EventName() string { return "replica ahead of the log" }

// NotProven is reported when a replica claims a state that the log knows nothing of, and no
// coordinator of this job has sealed the commit that would have led to it: it is under
// other keys, or lies. It gets another state. It is told once of each.
type NotProven struct {
	Warning
	Replica
	Step int64 `json:"step"` // that it claims
	Log  int64 `json:"log"`  // the last step of the log
}

// EventName implements Event.
func (NotProven) EventName() string { return "claim not proven" }

// SentAgain is reported when a replica that voted for the last commit and did
// not see it is sent it again.
type SentAgain struct {
	Info
	Replica
	Step int64 `json:"step"` // of the commit
}

// EventName implements Event.
func (SentAgain) EventName() string { return "commit sent again" }
