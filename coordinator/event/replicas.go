package event

import "log/slog"

// Replica names the replica that an event is about.
type Replica struct {
	Name string `json:"replica"` // its name, as --name says
	ID   string `json:"id"`      // of its process; no other has it
}

// Joined is reported when a replica is admitted. It becomes a member of the
// next round.
type Joined struct {
	Replica
	Engine  string `json:"engine"`  // what it computes with
	Threads int    `json:"threads"` // that it computes on
}

// Refused is reported when a replica does not fit the job.
type Refused struct {
	Replica
	Field string `json:"field"` // what differs
	Want  string `json:"want"`  // its value in the job
	Got   string `json:"got"`   // its value in the replica
}

// Left is reported when a replica is let go that asked to leave.
type Left struct {
	Replica
}

// LeftEarly is reported when a replica that asked to leave went before it was
// let go.
type LeftEarly struct {
	Replica
	Reason string `json:"reason"` // how the coordinator noticed
	Step   int64  `json:"step"`   // where the job stands
}

// Lost is reported when a replica is given up. Its round ends, and the others
// run the step again.
type Lost struct {
	Replica
	Reason string `json:"reason"` // a closed connection, or for how long it was silent
	Step   int64  `json:"step"`   // where the job stands
}

// AheadOfLog is reported when a replica holds a state whose commit is not in
// the log. It gets another state.
type AheadOfLog struct {
	Replica
	Step int64 `json:"step"` // of its state
	Log  int64 `json:"log"`  // the last step of the log
}

// SentAgain is reported when a replica that voted for the last commit and did
// not see it is sent it again.
type SentAgain struct {
	Replica
	Step int64 `json:"step"` // of the commit
}

func (Joined) EventName() string     { return "replica joined" }
func (Refused) EventName() string    { return "replica refused" }
func (Left) EventName() string       { return "replica left" }
func (LeftEarly) EventName() string  { return "replica left" }
func (Lost) EventName() string       { return "replica lost" }
func (AheadOfLog) EventName() string { return "replica ahead of the log" }
func (SentAgain) EventName() string  { return "commit sent again" }

func (Joined) Level() slog.Level     { return slog.LevelInfo }
func (Refused) Level() slog.Level    { return slog.LevelWarn }
func (Left) Level() slog.Level       { return slog.LevelInfo }
func (LeftEarly) Level() slog.Level  { return slog.LevelInfo }
func (Lost) Level() slog.Level       { return slog.LevelWarn }
func (AheadOfLog) Level() slog.Level { return slog.LevelWarn }
func (SentAgain) Level() slog.Level  { return slog.LevelInfo }
