package protocol

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
)

// Link is the running digest of a history that ends with this commit, given that of
// the history before it ("" at its beginning): two logs that have the same at a step
// have the same steps up to there.
func (c Commit) Link(before string) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d %s", before, c.Step, c.Cursor, c.Batch, c.Digest))
	return fmt.Sprintf("%x", h[:16])
}

// Bare is a commit without what is said with it to single replicas, which no log has.
func (c Commit) Bare() Commit {
	c.EndRound, c.Checkpoint, c.Final = false, false, false
	return c
}

// Body is the digest of all that a commit says but its seal, and what is said of it to
// single replicas.
func (c Commit) Body() string {
	c = c.Bare()
	c.Seal = ""
	if len(c.Groups) == 0 {
		c.Groups = nil
	}
	text, err := json.Marshal(c)
	if err != nil {
		return "" // a number that no message can say: nobody has it
	}
	h := sha256.Sum256(text)
	return fmt.Sprintf("%x", h[:16])
}

// Head is the end of a history that ends with this commit and is kept from a step on.
func (c Commit) Head(first int64) Head {
	return Head{First: first, Step: c.Step, Term: c.Term, Chain: c.Chain, Body: c.Body(), Seal: c.Seal}
}

// Follows says whether a commit can be the next one of a history that ends with
// another; the error says why not.
func (c Commit) Follows(before Commit) error {
	switch end := before.Cursor + int64(before.Batch); {
	case c.Step != before.Step+1:
		return fmt.Errorf("commit %d does not follow commit %d", c.Step, before.Step)
	case c.Cursor != end:
		return fmt.Errorf("commit %d begins with sample %d, but commit %d ends with %d", c.Step, c.Cursor, before.Step, end)
	case c.Chain == "" && before.Chain == "":
		return nil // of a job of an earlier build, or of a test
	case c.Chain != c.Link(before.Chain):
		return fmt.Errorf("commit %d is of another history than commit %d: its running digest differs", c.Step, before.Step)
	}
	return nil
}
