package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
	"mochi/replica/replicatest"
)

// job is a small one, for tests from inside.
func smallJob() config.Job {
	c := config.Default()
	c.Arch, c.Head, c.ImageSize, c.Recipe = "resnet8", "linear", 12, "none"
	c.Batch, c.BNGroup, c.Queue, c.QueueShards, c.Pairs, c.Dim = 4, 4, 8, 2, "shard", 4
	c.MoCHi = config.MoCHi{}
	return c
}

// messages has one of each kind, about step 5.
var messages = [kinds]protocol.Message{
	nothing:  {},
	welcome:  {Welcome: &protocol.Welcome{Instance: "new", Config: smallJob()}},
	refused:  {Refused: &protocol.Refused{Field: "binary"}},
	round:    {Round: &protocol.Round{Round: 3, Step: 5, Members: []protocol.Member{{ID: "another"}}}},
	commit:   {Commit: &protocol.Commit{Step: 5, Digest: "of others"}},
	stop:     {Stop: &protocol.Stop{Reason: "done"}},
	again:    {Again: &protocol.Again{Instance: "new"}},
	snapshot: {Snapshot: &protocol.Snapshot{Step: 4}},
	recall:   {Recall: &protocol.Recall{From: 3}},
}

// replicaIn makes a replica that is in a state, after four steps, and a link that
// keeps what it says.
func replicaIn(t *testing.T, s state) (*Replica, *replicatest.Script, *[]protocol.Message) {
	t.Helper()
	script := replicatest.NewScript(smallJob(), 9)
	heard := new([]protocol.Message)
	script.Heard = func(m protocol.Message) bool { *heard = append(*heard, m); return true }
	r := New(Config{
		ID: "r", Link: script, Data: replicatest.Pictures{N: 8, Size: 12}.Set(),
		Engine: func(p engine.Precision) (engine.Engine, error) {
			return gorgonia.New(engine.Config{Precision: p, Threads: 1})
		},
	})
	r.instance = "old"
	if s == joining {
		return r, script, heard
	}
	session, err := newSession(r.cfg, smallJob())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.close() })
	r.session = session
	session.queue.Hold([]int{0, 1})
	session.initialise()
	session.at.step = 4
	if s == undecided || s == voted {
		session.vote = &vote{round: 2, step: 5, digest: "own"}
	}
	return r, script, heard
}

// Every message has an entry in every state, and what the entry says is what
// happens.
func TestEveryMessageInEveryState(t *testing.T) {
	for s := range states {
		for k := range kinds {
			want := table[s][k]
			t.Run(fmt.Sprintf("state %d, message %d", s, k), func(t *testing.T) {
				if kindOf(messages[k]) != k {
					t.Fatalf("the message is of kind %d", kindOf(messages[k]))
				}
				var got action
				switch s {
				case busy:
					got = arrives(t, messages[k])
				case voted:
					got = whileVoted(t, messages[k])
				default:
					got = handled(t, s, messages[k])
				}
				if want == missing || got != want {
					t.Errorf("action %d, the table says %d", got, want)
				}
			})
		}
	}
}

// arrives is what a message does that comes while the replica does not read.
func arrives(t *testing.T, m protocol.Message) action {
	b := newInbox()
	attempt, end := b.attempt(t.Context())
	defer end()
	b.put(m)
	if kept, err := b.next(t.Context()); err != nil || kindOf(kept) != kindOf(m) {
		t.Errorf("the message was lost: %+v, %v", kept, err)
	}
	if attempt.Err() != nil {
		return interrupt
	}
	return keep
}

// whileVoted is what a message does before the commit that is waited for.
func whileVoted(t *testing.T, m protocol.Message) action {
	r, _, heard := replicaIn(t, voted)
	r.inbox.put(m)
	r.inbox.put(protocol.Message{Commit: &protocol.Commit{Step: 5, Digest: "the one after it"}})
	c, err := r.awaitCommit(t.Context(), 5)
	switch {
	case errors.Is(err, errSuperseded):
		if kept, err := r.inbox.next(t.Context()); err != nil || kindOf(kept) != kindOf(m) {
			t.Errorf("the message was lost: %+v, %v", kept, err)
		}
		return interrupt
	case err != nil:
		t.Fatal(err)
	case m.Commit != nil && c.Digest == m.Commit.Digest:
		return apply
	case len(*heard) == 1 && (*heard)[0].Hello != nil:
		return introduce
	case len(*heard) == 1 && (*heard)[0].Recalled != nil:
		return recount
	case r.instance != "old":
		return adopt
	}
	return drop
}

// handled is what a message does outside a round.
func handled(t *testing.T, s state, m protocol.Message) action {
	r, script, heard := replicaIn(t, s)
	if r.state() != s {
		t.Fatalf("the replica is in state %d", r.state())
	}
	done, err := r.handle(t.Context(), m)
	if r.uploads.wait(context.Background()); s == joining && r.session != nil {
		t.Cleanup(func() { r.session.close() })
	}
	switch {
	case errors.Is(err, ErrRefused):
		return fail
	case err != nil:
		t.Fatal(err)
	case done:
		return end
	case s == joining && r.session != nil:
		return join
	case r.progress.now().Phase == protocol.PhaseWaiting:
		return takePart
	case len(script.Uploads[4]) > 0:
		return upload
	case len(*heard) == 1 && (*heard)[0].Hello != nil:
		if s == undecided && r.session.vote == nil { // a commit of other gradients: it needs a state, and says so
			return apply
		}
		return introduce
	case len(*heard) == 1 && (*heard)[0].Recalled != nil:
		return recount
	case r.instance != "old":
		return adopt
	}
	return drop
}
