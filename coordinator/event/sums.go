package event

// SumsFailed is reported of a replica that added up gradients wrongly: its
// processor or memory is faulty. All got the wrong sum from it; the step is not
// committed. It is left out and not admitted again; the step is run again without
// it. A replica that is alone stays, and repeats the step.
type SumsFailed struct {
	Warning
	Replica
	Step     int64 `json:"step"`     // that was not committed
	Elements int   `json:"elements"` // that were wrong, of those that were looked at
}

// EventName implements Event.
func (SumsFailed) EventName() string { return "sums_failed" }

// SumsDiffer is reported when what a replica passed on of a sum is not what the
// next one around the ring got: it changed in the memory of one of the two. The
// step is run again; when it happens again, one of them is left out for a while.
type SumsDiffer struct {
	Warning
	Replica        // that passed it on
	To      string `json:"to"`   // name of the one that got something else
	Step    int64  `json:"step"` // that was not committed
}

// EventName implements Event.
func (SumsDiffer) EventName() string { return "sums_differ" }
