package event

// Round is reported when a round begins.
type Round struct {
	Info
	Round   int64  `json:"round"`   // its number
	Step    int64  `json:"step"`    // the first one that it computes
	World   int    `json:"world"`   // members
	Members string `json:"members"` // their names by rank, with blanks between them
	Reason  string `json:"reason"`  // why a new round was needed
}

// EventName implements Event.
func (Round) EventName() string { return "round" }

// StepFailed is reported when a member could not finish a step. Nothing of the
// step was applied, and a new round runs it again.
type StepFailed struct {
	Warning
	Replica
	Round   int64  `json:"round"`   // the one that ends with it
	Step    int64  `json:"step"`    // that failed
	Suspect string `json:"suspect"` // id of the member that did not answer it, "" when unknown
	Error   string `json:"error"`   // what went wrong, in its words
}

// EventName implements Event.
func (StepFailed) EventName() string { return "step failed" }

// DigestMismatch is reported of each replica whose gradients or state differ
// from those of most others. It gets a state from one of them.
type DigestMismatch struct {
	Warning
	Replica
	Step     int64  `json:"step"`               // whose gradients or state they are
	What     string `json:"what"`               // gradients, states; state: of a replica that joins
	Majority int    `json:"majority,omitempty"` // members that agree with each other; not of a replica that joins
}

// EventName implements Event.
func (DigestMismatch) EventName() string { return "digest mismatch" }

// ReplayMismatch is reported when a step that was run again from a checkpoint
// gave other gradients than the log has.
type ReplayMismatch struct {
	Warning
	Step int64  `json:"step"` // that was run again
	Log  string `json:"log"`  // digest of the gradients in the log
	Now  string `json:"now"`  // digest of the gradients now
}

// EventName implements Event.
func (ReplayMismatch) EventName() string { return "replay mismatch" }

// RolledBack is reported when nobody holds the state of the last commit any
// more: steps are run again.
type RolledBack struct {
	Warning
	From   int64  `json:"from"`   // the step where the job stood
	To     int64  `json:"to"`     // the step where it goes on
	Source string `json:"source"` // where that state comes from
}

// EventName implements Event.
func (RolledBack) EventName() string { return "rolled back" }
