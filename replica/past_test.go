package replica

import (
	"encoding/json"
	"fmt"
	"testing"

	"mochi/coordinator/protocol"
	"mochi/model/figures"
)

// historyOf are commits 1…n of one history, logged in a term.
func historyOf(name string, n int, term uint64, groups int) (list []protocol.Commit) {
	chain := ""
	for step := range int64(n) {
		c := protocol.Commit{Step: step + 1, Term: term, Cursor: 8 * step, Batch: 8, Digest: fmt.Sprint(name, step+1), Chain: chain}
		c.Chain = c.Link(chain)
		chain = c.Chain
		for g := range groups {
			c.Groups = append(c.Groups, protocol.GroupReport{Group: g, Figures: figures.Figures{Loss: 2.123456789, Proxy: 0.123456789}})
		}
		list = append(list, c)
	}
	return list
}

// What is applied is kept without gap: as many commits as a coordinator may have lost,
// and no more than that.
func TestPastIsTheEndOfOneHistory(t *testing.T) {
	var p past
	if p.head() != nil || len(p.recall(1).Commits) != 0 {
		t.Error("nothing is kept at first")
	}
	all := historyOf("g", 1300, 3, 2)
	for _, c := range all {
		c.EndRound, c.Checkpoint, c.Final = true, true, true
		p.add(c)
	}
	if h := *p.head(); h != all[1299].Head(301) || h.Term != 3 || h.Chain != all[1299].Chain {
		t.Errorf("%+v", h)
	}
	if len(p.recall(300).Commits) != 0 || len(p.recall(1301).Commits) != 0 {
		t.Error("commits that are not kept")
	}
	var got []protocol.Commit
	for next := int64(301); next <= 1300; {
		piece := p.recall(next)
		data, err := json.Marshal(piece)
		if err != nil || len(piece.Commits) == 0 || len(data) > protocol.RecallBytes+1000 {
			t.Fatalf("from %d: %d commits in %d bytes, %v", next, len(piece.Commits), len(data), err)
		}
		got, next = append(got, piece.Commits...), next+int64(len(piece.Commits))
	}
	for i, c := range got {
		if c.Step != int64(301+i) || c.Chain != all[300+i].Chain || c.EndRound || c.Checkpoint || c.Final || len(c.Groups) != 2 {
			t.Fatalf("commit %d is not what was logged: %+v", 301+i, c)
		}
	}
}

// Steps that are run again are known, whatever their round; a state from elsewhere
// begins a history; another history takes the place of the one before.
func TestPastWhenTheStateMoves(t *testing.T) {
	all, other := historyOf("g", 20, 3, 1), historyOf("x", 20, 4, 1)
	for i := range 10 { // they part at step 11
		other[i] = all[i]
	}
	for i := 10; i < 20; i++ {
		other[i].Chain = other[i].Link(other[i-1].Chain)
	}
	var p past
	for _, c := range all[:15] {
		p.add(c)
	}
	again := all[4]
	again.Round, again.Groups = 9, nil
	p.add(again)
	if h := p.head(); h.First != 1 || h.Step != 15 || len(p.commits[4].Groups) != 1 {
		t.Errorf("step 5 once more: %+v", h)
	}
	p.add(other[10])
	if h := p.head(); h.First != 1 || h.Step != 11 || h.Term != 4 || h.Chain != other[10].Chain {
		t.Errorf("another step 11: %+v", h)
	}
	p.add(other[18])
	if h := p.head(); h.First != 19 || h.Step != 19 {
		t.Errorf("a state after step 19: %+v", h)
	}
	p.add(all[3]) // an older state of the same leader's: what is known stays
	if h := p.head(); h.First != 19 {
		t.Errorf("back at step 4: %+v", h)
	}
	next := all[4]
	next.Term = 5
	p.add(next) // a later leader goes on from there
	if h := p.head(); h.First != 5 || h.Step != 5 {
		t.Errorf("a later leader's step 5: %+v", h)
	}
}

// Commits of very many groups do not take the memory of the machine.
func TestPastIsBounded(t *testing.T) {
	var p past
	for _, c := range historyOf("g", 600, 1, 512) {
		p.add(c)
	}
	if n := len(p.commits) * commitBytes(p.commits[0]); n > pastBytes || len(p.commits) < 10 {
		t.Errorf("%d commits are kept, about %d bytes", len(p.commits), n)
	}
	if piece := p.recall(600); len(piece.Commits) != 1 {
		t.Errorf("a large commit does not travel alone: %d", len(piece.Commits))
	}
	for step := range int64(9) {
		p.save(protocol.Position{Step: step})
		p.save(protocol.Position{Step: step, Digest: "again"})
	}
	if len(p.saved) != pastSaved || p.saved[pastSaved-1].Step != 8 || p.saved[pastSaved-1].Digest != "again" {
		t.Errorf("%+v", p.saved)
	}
}

// A leader whose time is over is not obeyed, whatever it says, but for its question who
// this is; a commit of an older round is no sign of that.
func TestTerms(t *testing.T) {
	r := New(Config{})
	commit := func(term uint64, round int64) protocol.Message {
		return protocol.Message{Term: term, Commit: &protocol.Commit{Step: 1, Round: round}}
	}
	for i, c := range []struct {
		m    protocol.Message
		want bool
	}{
		{commit(0, 3), true},
		{commit(7, 9), true},
		{commit(7, 2), true},
		{commit(6, 10), false},
		{protocol.Message{Term: 6, Stop: &protocol.Stop{}}, false},
		{protocol.Message{Term: 6, Again: &protocol.Again{}}, true},
		{protocol.Message{Term: 9, Again: &protocol.Again{}}, true},
		{commit(7, 2), true},
		{commit(8, 2), true},
		{commit(7, 11), false},
		{commit(0, 11), false},
	} {
		if got := r.obeys(c.m); got != c.want {
			t.Errorf("message %d of term %d: obeyed %v", i, c.m.Term, got)
		}
	}
	if r.term.Load() != 8 {
		t.Errorf("term %d", r.term.Load())
	}
}
