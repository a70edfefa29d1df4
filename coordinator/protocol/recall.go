package protocol

import "fmt"

// Replicas keep the last commits that they applied, so that a coordinator whose log
// has lost its end, or that begins on an empty folder, gets them back.

// KeptCommits is how many commits a replica keeps at most.
const KeptCommits = 1000

// RecallBytes is how large the commits of one Recalled are at most together, encoded,
// unless a single one is larger.
const RecallBytes = 256 << 10

// Head is the end of the history that a replica keeps.
type Head struct {
	First int64  `json:"first"`           // the first step whose commit it keeps
	Step  int64  `json:"step"`            // the last
	Term  uint64 `json:"term,omitempty"`  // of the leader that logged the last
	Chain string `json:"chain,omitempty"` // running digest up to it (Commit.Link)
	Body  string `json:"body,omitempty"`  // digest of all that the last commit says (Commit.Body)
	Seal  string `json:"seal,omitempty"`  // of that commit
}

// Sealed is what a coordinator's seal is of: whoever has it knows that the job came to
// this step, by this history.
func (h Head) Sealed() []byte {
	return fmt.Appendf(nil, "%d %d %s %s", h.Step, h.Term, h.Chain, h.Body)
}

// Recall asks a replica for commits that it keeps.
type Recall struct {
	From int64 `json:"from"` // the first step wanted
}

// Recalled answers a Recall: commits of consecutive steps from the one that was asked
// for, as many as fit a message (RecallBytes); none when it does not keep that one.
type Recalled struct {
	From    int64    `json:"from"`
	Commits []Commit `json:"commits"`
}
