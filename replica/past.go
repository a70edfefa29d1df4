package replica

import (
	"encoding/json"
	"slices"

	"mochi/coordinator/protocol"
)

const (
	pastBytes = 8 << 20 // of commits are kept at most, about
	pastSaved = 4       // positions of checkpoints are kept
)

// past is the end of the history that this replica applied. Its coordinator's log is
// the original; this is the copy from which a log that has lost its end is mended.
// It outlives the session's state: what happened stays so when the state goes back.
type past struct {
	commits []protocol.Commit   // of consecutive steps, each the next one of one history
	saved   []protocol.Position // states that became checkpoints, the newest last
}

// add takes a commit that was applied, or that a round goes on from. One that is known
// changes nothing; one that is another than the known of its step takes its place, and
// that of all later ones.
func (p *past) add(c protocol.Commit) {
	c = c.Bare()
	if i, known := p.find(c.Step); known {
		if have := p.commits[i]; have.Chain == c.Chain && have.Digest == c.Digest {
			return
		}
		p.commits = p.commits[:i:i]
	}
	if n := len(p.commits); n > 0 && c.Follows(p.commits[n-1]) != nil {
		if c.Step < p.commits[0].Step && c.Term <= p.commits[n-1].Term {
			return // run again: what came after is known, and will come again
		}
		p.commits = nil
	}
	p.commits = append(p.commits, c)
	if most := max(2, min(protocol.KeptCommits, pastBytes/commitBytes(c))); len(p.commits) > most {
		p.commits = slices.Delete(p.commits, 0, len(p.commits)-most)
	}
}

// commitBytes is about what a commit takes: its groups are most of it.
func commitBytes(c protocol.Commit) int { return 400 + 160*len(c.Groups) }

// find is where the commit of a step is.
func (p *past) find(step int64) (i int, known bool) {
	if len(p.commits) == 0 {
		return 0, false
	}
	i = int(step - p.commits[0].Step)
	return i, i >= 0 && i < len(p.commits)
}

// head is its end, nil when nothing is kept.
func (p *past) head() *protocol.Head {
	if len(p.commits) == 0 {
		return nil
	}
	last := p.commits[len(p.commits)-1]
	h := last.Head(p.commits[0].Step)
	return &h
}

// recall is the answer to a Recall.
func (p *past) recall(from int64) *protocol.Recalled {
	answer := &protocol.Recalled{From: from, Commits: []protocol.Commit{}}
	i, known := p.find(from)
	if !known {
		return answer
	}
	size := 0
	for _, c := range p.commits[i:] {
		data, err := json.Marshal(c)
		if err != nil {
			break // it came as JSON
		}
		if size += len(data) + 1; size > protocol.RecallBytes && len(answer.Commits) > 0 {
			break
		}
		answer.Commits = append(answer.Commits, c)
	}
	return answer
}

// save notes what the state was that became a checkpoint.
func (p *past) save(at protocol.Position) {
	p.saved = slices.DeleteFunc(p.saved, func(o protocol.Position) bool { return o.Step == at.Step })
	if p.saved = append(p.saved, at); len(p.saved) > pastSaved {
		p.saved = slices.Delete(p.saved, 0, len(p.saved)-pastSaved)
	}
}
