package event

// Data is reported when the first replica has said what the job trains on.
type Data struct {
	Info
	Kind    string `json:"kind"`    // idx, folder, cifar, tar
	Train   int    `json:"train"`   // training samples
	Classes int    `json:"classes"` // 0 when unlabelled
	Digest  string `json:"digest"`  // identifies the data
}

// EventName implements Event.
func (Data) EventName() string { return "data" }

// Checkpoint is reported when a checkpoint is stored.
type Checkpoint struct {
	Info
	Step int64  `json:"step"` // whose state it is
	Name string `json:"name"` // of the file
}

// EventName implements Event.
func (Checkpoint) EventName() string { return "checkpoint" }

// CheckpointFailed is reported when a checkpoint could not be stored. The job
// goes on without it, unless it was to end with it.
type CheckpointFailed struct {
	Warning
	Step  int64  `json:"step"`  // whose state it was to be
	Error string `json:"error"` // what went wrong
}

// EventName implements Event.
func (CheckpointFailed) EventName() string { return "checkpoint failed" }

// Stopping is reported when an orderly stop was asked for.
type Stopping struct {
	Info
	Reason string `json:"reason"` // who or what asked for it
	Step   int64  `json:"step"`   // where the job stands
}

// EventName implements Event.
func (Stopping) EventName() string { return "stopping" }

// Done is reported when the job has ended well: all steps are done, or it was
// stopped.
type Done struct {
	Info
	Reason string `json:"reason"` // in words
	Step   int64  `json:"step"`   // the last one
}

// EventName implements Event.
func (Done) EventName() string { return "done" }

// Failing is reported when the job is about to fail. Its last state is stored
// first.
type Failing struct {
	Warning
	Reason string `json:"reason"` // in words
	Step   int64  `json:"step"`   // the last one committed, whose state is stored
}

// EventName implements Event.
func (Failing) EventName() string { return "failing" }

// Failed is reported when the job has failed.
type Failed struct {
	Error
	Reason string `json:"reason"` // in words
	Step   int64  `json:"step"`   // the last one committed
}

// EventName implements Event.
func (Failed) EventName() string { return "failed" }
