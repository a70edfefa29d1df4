package round

import (
	"time"

	"mochi/coordinator/protocol"
	"mochi/model/figures"
)

// Record is one committed step, as the observer of a job hears of it.
type Record struct {
	Commit          protocol.Commit
	World           int                // members that voted for it
	Members         []string           // their names, by rank; nil for one recovered from the log
	Digest          string             // of the query parameters after it; "" when nobody lived to report it
	StateDigest     string             // of the whole state after it
	Shards          []string           // digests of the queue's shards after it, "" where its members differ or did not say
	figures.Figures                    // means over the batch
	ImagesPS        float64            // global batch / step time; 0 when recovered
	StepMS          float64            // from the commit before (or the start of the round) to this one
	Phases          map[string]float64 // ms by name, of the slowest member; of the commit, of the member that voted last
	CPU             map[string]float64 // processor time in ms of what makes a step a transaction, by phase, of all members
	Time            time.Time          // of its publication; zero when recovered
	Replayed        bool               // run again after going back to a checkpoint: it was recorded before
	Recovered       bool               // read from the log: its coordinator died before recording it
}

// RecordOf is what follows from a commit itself.
func RecordOf(commit protocol.Commit) Record {
	var sum figures.Figures
	for _, g := range commit.Groups {
		sum.Add(g.Figures)
	}
	return Record{Commit: commit, Figures: sum.Mean(commit.Batch)}
}

// Measure is the record of a commit that is published now, but for the digests
// that its members will report. replayed: it was recorded before.
func (r *Round) Measure(commit protocol.Commit, replayed bool, now time.Time) Record {
	rec := RecordOf(commit)
	rec.World, rec.Time, rec.Replayed = r.World(), now, replayed
	rec.Phases, rec.CPU = map[string]float64{}, map[string]float64{}
	for _, m := range r.members {
		rec.Members = append(rec.Members, m.Name())
		if v := r.votes[m.ID()]; v != nil {
			rec.measured(v.Phases, v.CPU)
		}
	}
	if d := now.Sub(r.since); d > 0 {
		rec.StepMS = d.Seconds() * 1e3
		rec.ImagesPS = float64(commit.Batch) / d.Seconds()
	}
	return rec
}

// measured adds what a member measured of the step. All members wait for the
// commit until the last one has voted: what that one waits is what the commit
// costs, the rest is how long the others' steps took.
func (rec *Record) measured(phases, cpu map[string]float64) {
	for name, ms := range phases {
		if was, ok := rec.Phases[name]; ok && name == protocol.MeasureCommit {
			rec.Phases[name] = min(was, ms)
		} else {
			rec.Phases[name] = max(was, ms)
		}
	}
	for name, ms := range cpu {
		rec.CPU[name] += ms
	}
}
