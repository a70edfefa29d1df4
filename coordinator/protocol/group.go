package protocol

import "fmt"

// GroupSubject is where the coordinator that leads hears of those that stand by.
func GroupSubject(job string) string { return fmt.Sprintf("mochi.%s.group", job) }

// StandingBy is what a coordinator that stands by says of itself to the one that
// leads, every second.
type StandingBy struct {
	Name       string `json:"name"`
	Config     string `json:"config"`               // YAML: what it was started with
	Checkpoint int64  `json:"checkpoint"`           // step of the newest it has, 0: none
	Run        int64  `json:"run,omitempty"`        // its folder holds a run from before the group: the last step of it
	Leaving    bool   `json:"leaving,omitempty"`    // it ends
	Troubled   string `json:"troubled,omitempty"`   // it cannot take what it should, in words
	Generation string `json:"generation,omitempty"` // of its process
}

// GroupAnswer answers a StandingBy.
type GroupAnswer struct {
	Leader string `json:"leader"`           // name
	Config string `json:"config,omitempty"` // YAML: of the job
	Binary string `json:"binary,omitempty"` // build identity, which replicas must have too; "" from an earlier build
}

// GroupState is a group of coordinators in a Status.
type GroupState struct {
	Leader  string        `json:"leader"`            // name, "" when there is none
	Since   string        `json:"since"`             // RFC 3339: since when it leads, or none does
	Trouble string        `json:"trouble,omitempty"` // what holds the group up, in words
	Members []MemberState `json:"members"`
}

// MemberState is one coordinator in a GroupState.
type MemberState struct {
	Name       string `json:"name"`
	Address    string `json:"address"`           // where replicas join it when it leads
	State      string `json:"state"`             // leader, standby, away
	Heard      string `json:"heard,omitempty"`   // RFC 3339: when it was heard last
	Step       int64  `json:"step"`              // of the last commit that it has
	Behind     int64  `json:"behind"`            // entries of the log that it lacks
	Checkpoint int64  `json:"checkpoint"`        // step of the newest checkpoint it has, 0: none; -1: not known
	Trouble    string `json:"trouble,omitempty"` // what holds it up, in words
}
