package replica_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mochi/coordinator/protocol"
	"mochi/model/engine"
	"mochi/replica"
	"mochi/replica/data"
	"mochi/replica/replicatest"
)

// A leaver waits for the coordinator to let it go, which may need its state. It
// is told to leave the moment it has reported a step that ends the round anyway;
// it alone holds the state.
func TestLeaverGivesItsState(t *testing.T) {
	const last = 3
	s := replicatest.NewScript(testConfig(), 100)
	var r *replica.Replica
	s.Heard = func(m protocol.Message) (answered bool) {
		switch {
		case m.Ready != nil && m.Ready.Step == last:
			c := s.Commit(*m.Ready)
			c.EndRound = true
			s.Say(protocol.Message{Commit: &c})
		case m.Applied != nil && m.Applied.Step == last:
			r.Leave("test", 0)
		case m.Leaving != nil:
			s.Say(protocol.Message{Snapshot: &protocol.Snapshot{Step: last}})
			s.Say(protocol.Message{Stop: &protocol.Stop{Reason: "left the job as asked"}})
		default:
			return false
		}
		return true
	}
	r = replica.New(replica.Config{ID: "r", Engine: openTestEngine, Link: s, Ring: alone,
		Data: replicatest.Pictures{N: 30, Size: 12}.Set()})
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.Uploads[last]) == 0 {
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
		r := replica.New(replica.Config{ID: "r", Link: mute{}, Ring: alone, Data: &data.Set{}})
		start := time.Now()
		r.Leave("test", 0)
		if err := r.Run(t.Context()); err != nil {
			t.Error(err)
		}
		if waited := time.Since(start); waited < replica.Farewell || waited > 2*replica.Farewell {
			t.Errorf("left after %v, want %v", waited, replica.Farewell)
		}
	})
}

// One that comes when the job is over is not left waiting.
func TestNoWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := replica.New(replica.Config{ID: "r", Link: mute{}, Ring: alone, Data: &data.Set{}, Wait: time.Minute})
		if err := r.Run(t.Context()); !errors.Is(err, replica.ErrNoWelcome) {
			t.Errorf("got %v", err)
		}
	})
}

// A replica says that it is ready only once it has an engine: until then nobody
// waits for it.
func TestReadyOnceBuilt(t *testing.T) {
	s := replicatest.NewScript(testConfig(), 1)
	var said []string
	s.Heard = func(m protocol.Message) bool {
		if m.Hello != nil {
			said = append(said, "hello "+m.Hello.Config)
		}
		return false
	}
	open := func(p engine.Precision) (engine.Engine, error) {
		said = append(said, "engine")
		return openTestEngine(p)
	}
	r := replica.New(replica.Config{ID: "r", Engine: open, Link: s, Ring: alone, Data: replicatest.Pictures{N: 30, Size: 12}.Set()})
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"hello ", "engine", "hello " + testConfig().Digest()}; !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
}

// One that cannot build says why, and ends with that error.
func TestCannotBuild(t *testing.T) {
	s := replicatest.NewScript(testConfig(), 1)
	var failed *protocol.Failed
	s.Heard = func(m protocol.Message) bool {
		if m.Failed != nil {
			failed = m.Failed
		}
		return m.Failed != nil
	}
	none := errors.New("no such device")
	r := replica.New(replica.Config{ID: "r", Link: s, Ring: alone, Data: replicatest.Pictures{N: 30, Size: 12}.Set(),
		Engine: func(engine.Precision) (engine.Engine, error) { return nil, none }})
	if err := r.Run(t.Context()); !errors.Is(err, none) {
		t.Errorf("ended with %v", err)
	}
	if failed == nil || !failed.Leaves || failed.Fatal {
		t.Errorf("reported %+v", failed)
	}
}
