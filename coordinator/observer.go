package coordinator

import (
	"time"

	"mochi/coordinator/protocol"
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
	Commit      protocol.Commit
	World       int                // members that voted for it
	Members     []string           // their names, by rank; nil for one recovered from the log
	Digest      string             // of the query parameters after it; "" when nobody lived to report it
	StateDigest string             // of the whole state after it
	Loss        float64            // mean over the batch
	ProxyAcc    float64            // share of queries whose key outranks all real negatives
	ProxyHard   float64            // and all synthetic ones
	Health      Health             // means over the batch
	ImagesPS    float64            // global batch / step time; 0 when recovered
	StepMS      float64            // from the commit before (or the start of the round) to this one
	Phases      map[string]float64 // ms by name, of the slowest member
	Time        time.Time          // of its publication; zero when recovered
	Replayed    bool               // run again after going back to a checkpoint: it was recorded before
	Recovered   bool               // read from the log: its coordinator died before recording it
}

// Health is what tells a healthy contrastive loss from a sick one, means over
// the queries of a batch.
type Health struct {
	PosSim  float64 // similarity with the key
	NegSim  float64 // with real negatives
	Hardest float64 // with the hardest real negative
	HardSim float64 // with the N hardest; 0 without mixing
	Spread  float64 // of the embeddings: 1 = as on a whole sphere, 0 = collapsed
}

// newRecord computes what follows from the commit itself.
func newRecord(commit protocol.Commit) CommitRecord {
	r := CommitRecord{Commit: commit}
	h := &r.Health
	for _, g := range commit.Groups {
		r.Loss += g.Loss
		r.ProxyAcc += float64(g.Proxy)
		r.ProxyHard += float64(g.ProxyHard)
		h.PosSim += g.PosSim
		h.NegSim += g.NegSim
		h.Hardest += g.Hardest
		h.HardSim += g.HardSim
		h.Spread += g.Spread
	}
	if n := float64(commit.Batch); n > 0 {
		r.Loss, r.ProxyAcc, r.ProxyHard = r.Loss/n, r.ProxyAcc/n, r.ProxyHard/n
		*h = Health{h.PosSim / n, h.NegSim / n, h.Hardest / n, h.HardSim / n, h.Spread / n}
	}
	return r
}
