package coordinator

import (
	"time"

	"mochi/coordinator/protocol"
	"mochi/model/figures"
)

// Observer is told what happens, from the server's goroutine: it must not
// block for long.
type Observer interface {
	// Committed is called for every committed step in order, once its members
	// have applied it (or the round broke before all had). See CommitRecord.
	Committed(r CommitRecord)
	// Event is called for everything else: a name ("replica lost") and fields.
	Event(name string, fields map[string]any)
}

// CommitRecord is one committed step.
type CommitRecord struct {
	Commit          protocol.Commit
	World           int                // members that voted for it
	Members         []string           // their names, by rank; nil for one recovered from the log
	Digest          string             // of the query parameters after it; "" when nobody lived to report it
	StateDigest     string             // of the whole state after it
	figures.Figures                    // means over the batch
	ImagesPS        float64            // global batch / step time; 0 when recovered
	StepMS          float64            // from the commit before (or the start of the round) to this one
	Phases          map[string]float64 // ms by name, of the slowest member
	Time            time.Time          // of its publication; zero when recovered
	Replayed        bool               // run again after going back to a checkpoint: it was recorded before
	Recovered       bool               // read from the log: its coordinator died before recording it
}

// newRecord computes what follows from the commit itself.
func newRecord(commit protocol.Commit) CommitRecord {
	var sum figures.Figures
	for _, g := range commit.Groups {
		sum.Add(g.Figures)
	}
	return CommitRecord{Commit: commit, Figures: sum.Mean(commit.Batch)}
}
