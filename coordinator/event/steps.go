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

// OtherNumerics is reported when a job goes on with engines or processors that
// round otherwise than those that it began with: from this step on its results
// are others, in the last bits, than those of a run that only had the first.
type OtherNumerics struct {
	Warning
	Step int64  `json:"step"` // the first with them
	Was  string `json:"was"`  // how the engines rounded before
	Now  string `json:"now"`  // and now
}

// EventName implements Event.
func (OtherNumerics) EventName() string { return "other numerics" }

// OtherDecoder is reported when a job goes on with replicas that decode JPEG
// otherwise than those that it began with: from this step on its images have
// other pixels along coloured edges.
type OtherDecoder struct {
	Warning
	Step int64  `json:"step"` // the first with them
	Was  string `json:"was"`  // what decoded the images before
	Now  string `json:"now"`  // and now
}

// EventName implements Event.
func (OtherDecoder) EventName() string { return "other JPEG decoder" }

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

// AuditDiffers is reported when two members computed a group and their results
// differ. The step is not committed; all members compute the group again.
type AuditDiffers struct {
	Warning
	Step   int64  `json:"step"`    // that is audited
	Groups []int  `json:"groups"`  // whose results differ
	By     string `json:"members"` // their names, with blanks between them
}

// EventName implements Event.
func (AuditDiffers) EventName() string { return "audit_differs" }

// AuditFailed is reported of a replica that computed wrong gradients: its
// processor, GPU or memory is faulty. It is left out and not admitted again; the
// step is run again without it. Its part of the steps since the last audit that it
// passed may have been wrong. A replica that is alone stays, and repeats the step.
type AuditFailed struct {
	Warning
	Replica
	Step  int64  `json:"step"`  // that was audited
	Group int    `json:"group"` // whose result was wrong
	Got   string `json:"got"`   // digest of its result
	Want  string `json:"want"`  // digest of that of the others; "" when it contradicts itself and nobody else is there
	Agree int    `json:"agree"` // members that agree on that one
	Sound int64  `json:"sound"` // the last step in which its results were compared and right; 0: none
}

// EventName implements Event.
func (AuditFailed) EventName() string { return "audit_failed" }

// AuditUndecided is reported when members stick to different results, so that
// it cannot be said who is wrong. Two members wait for a third, which decides.
type AuditUndecided struct {
	Warning
	Step   int64  `json:"step"`    // that is audited
	Groups []int  `json:"groups"`  // whose results differ
	By     string `json:"members"` // their names, with blanks between them
}

// EventName implements Event.
func (AuditUndecided) EventName() string { return "audit_undecided" }
