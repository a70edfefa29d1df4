package event

// LogWaits is reported when something that must be durable has not been for some
// seconds: a disk that stands still, or errors. The job waits, as long as it takes.
type LogWaits struct {
	Warning
	What  string `json:"what"`  // that is waited for
	Error string `json:"error"` // of the last attempt, in words
}

// EventName implements Event.
func (LogWaits) EventName() string { return "log waits" }

// DiskFull is reported when nothing is written because there is too little room under
// the state folder. The job waits until there is.
type DiskFull struct {
	Warning
	What  string `json:"what"`  // that is to be written
	Error string `json:"error"` // how much is free, and how much must be
}

// EventName implements Event.
func (DiskFull) EventName() string { return "disk full" }

// LogGoesOn is reported when the log is written again.
type LogGoesOn struct {
	Info
	Seconds float64 `json:"seconds"` // that it was waited for
}

// EventName implements Event.
func (LogGoesOn) EventName() string { return "log goes on" }

// LogShort is reported when the commit log ends before what is known to have been
// committed: it has lost its end, or is an old copy. The job waits for replicas that
// hold the commits since.
type LogShort struct {
	Warning
	Log   int64 `json:"log"`   // the last step of the log
	Known int64 `json:"known"` // the last step that is on record, or that a replica holds the state of
}

// EventName implements Event.
func (LogShort) EventName() string { return "log is short" }

// Recalled is reported when the log has got commits from a replica that it had lost.
type Recalled struct {
	Warning
	Replica
	From int64 `json:"from"` // the first step that came back
	To   int64 `json:"to"`   // the last
}

// EventName implements Event.
func (Recalled) EventName() string { return "commits recalled" }

// NotRecalled is reported when commits that a replica keeps could not be had from it.
type NotRecalled struct {
	Warning
	Replica
	Error string `json:"error"` // why
}

// EventName implements Event.
func (NotRecalled) EventName() string { return "commits not recalled" }

// LogRebuilt is reported when the job goes on although the log has lost its end
// (--log rebuild): the steps are run again.
type LogRebuilt struct {
	Warning
	From int64 `json:"from"` // the first step that is run again
	To   int64 `json:"to"`   // the last
}

// EventName implements Event.
func (LogRebuilt) EventName() string { return "log rebuilt" }

// OtherLeader is reported when a replica has obeyed a coordinator with a higher term
// than this one has: this one has an old copy of the folder, or an empty one, or
// another has been started on such a copy.
type OtherLeader struct {
	Warning
	Replica
	Term uint64 `json:"term"` // that it has obeyed
	Own  uint64 `json:"own"`  // this coordinator's
	Here int    `json:"here"` // members of its last round that are here
	Of   int    `json:"of"`   // members of that round; more than half of them must be here
}

// EventName implements Event.
func (OtherLeader) EventName() string { return "replica obeys another coordinator" }

// TookOver is reported when this coordinator leads replicas that have obeyed another
// one until now.
type TookOver struct {
	Warning
	Term uint64 `json:"term"` // of this coordinator from now on
	Was  uint64 `json:"was"`  // the highest that its replicas have obeyed
}

// EventName implements Event.
func (TookOver) EventName() string { return "took over" }
