package replica

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"mochi/coordinator/protocol"
	"mochi/replica/data"
)

// leaver is a script in which the replica is told to leave the moment it has
// reported a step that ends the round anyway; it alone holds the state.
type leaver struct {
	*script
	replica *Replica
	at      int64
}

func (l *leaver) Send(ctx context.Context, m protocol.Message) error {
	switch {
	case m.Ready != nil && m.Ready.Step == l.at:
		l.messages <- protocol.Message{Commit: &protocol.Commit{
			Step: l.at, Round: 1, Cursor: (l.at - 1) * int64(l.cfg.Batch), Batch: l.cfg.Batch,
			LR: l.cfg.LR, Momentum: l.cfg.Momentum, Digest: m.Ready.Digest, EndRound: true,
		}}
		return nil
	case m.Applied != nil && m.Applied.Step == l.at:
		l.replica.Leave("test")
		return nil
	case m.Leaving != nil:
		l.messages <- protocol.Message{Snapshot: &protocol.Snapshot{Step: l.at}}
		l.messages <- protocol.Message{Stop: &protocol.Stop{Reason: "left the job as asked"}}
		return nil
	}
	return l.script.Send(ctx, m)
}

// A leaver waits for the coordinator to let it go, which may need its state.
func TestLeaverGivesItsState(t *testing.T) {
	ds := pictures{n: 30, size: 12}
	l := &leaver{script: newScript(t, testConfig(), 100), at: 3}
	l.replica = New(Config{ID: "r", Engine: openTestEngine, Link: l, Ring: alone,
		Data: &data.Set{Train: ds, Info: protocol.Data{Kind: "test", Train: ds.Len()}}})
	if err := l.replica.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(l.uploads[3]) == 0 {
		t.Error("the state after step 3 was asked for and is lost")
	}
}

// mute is a coordinator that says nothing.
type mute struct{}

func (mute) Send(context.Context, protocol.Message) error     { return nil }
func (mute) Messages() <-chan protocol.Message                { return nil }
func (mute) Upload(context.Context, int64, []byte) error      { return nil }
func (mute) Download(context.Context, string) ([]byte, error) { return nil, nil }

// A leaver does not wait for ever for a coordinator that is gone.
func TestLeaverGoesWithoutCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{ID: "r", Link: mute{}, Ring: alone, Data: &data.Set{}})
		start := time.Now()
		r.Leave("test")
		if err := r.Run(t.Context()); err != nil {
			t.Error(err)
		}
		if waited := time.Since(start); waited < farewell || waited > 2*farewell {
			t.Errorf("left after %v, want %v", waited, farewell)
		}
	})
}

// One that comes when the job is over is not left waiting.
func TestNoWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{ID: "r", Link: mute{}, Ring: alone, Data: &data.Set{}, Wait: time.Minute})
		if err := r.Run(t.Context()); !errors.Is(err, ErrNoWelcome) {
			t.Errorf("got %v", err)
		}
	})
}
