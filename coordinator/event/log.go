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
