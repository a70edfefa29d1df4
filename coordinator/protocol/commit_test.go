package protocol_test

import (
	"testing"

	"mochi/coordinator/protocol"
	"mochi/model/figures"
)

// What a seal is of is all that a commit says, as the wire and the log give it back; what is
// said to single replicas is no part of it.
func TestBodyIsAllThatACommitSays(t *testing.T) {
	c := protocol.Commit{
		Step: 7, Round: 3, Term: 2, Chain: "c", Epoch: 1, Cursor: 48, Batch: 8, QueueStart: 5, LR: 0.1 / 3, Momentum: 0.999, Digest: "d",
		Groups: []protocol.GroupReport{{Group: 1, Figures: figures.Figures{Loss: 2.0 / 3}}},
	}
	body := c.Body()
	data, err := protocol.Encode(protocol.Message{Commit: &c})
	if err != nil {
		t.Fatal(err)
	}
	var m protocol.Message
	if err := protocol.Decode(data, &m); err != nil || m.Commit.Body() != body {
		t.Errorf("on its way the body %s becomes %s (%v)", body, m.Commit.Body(), err)
	}
	same := c
	same.Seal, same.EndRound, same.Checkpoint, same.Final = "s", true, true, true
	if same.Body() != body {
		t.Error("what is said to single replicas changes it")
	}
	for name, change := range map[string]func(*protocol.Commit){
		"step": func(c *protocol.Commit) { c.Step++ }, "round": func(c *protocol.Commit) { c.Round++ },
		"term": func(c *protocol.Commit) { c.Term++ }, "chain": func(c *protocol.Commit) { c.Chain += "x" },
		"epoch": func(c *protocol.Commit) { c.Epoch++ }, "cursor": func(c *protocol.Commit) { c.Cursor++ },
		"batch": func(c *protocol.Commit) { c.Batch++ }, "slot": func(c *protocol.Commit) { c.QueueStart++ },
		"lr": func(c *protocol.Commit) { c.LR *= 2 }, "momentum": func(c *protocol.Commit) { c.Momentum /= 2 },
		"digest": func(c *protocol.Commit) { c.Digest = "e" }, "groups": func(c *protocol.Commit) { c.Groups = nil },
	} {
		other := c
		if change(&other); other.Body() == body {
			t.Errorf("another %s changes nothing", name)
		}
	}
}
