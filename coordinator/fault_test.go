package coordinator

import (
	"testing"
	"time"

	"mochi/coordinator/protocol"
)

// What a replica that is not admitted says in a burst is answered once, and once a
// second while it goes on; nothing of that is remembered afterwards.
func TestStrangersAreAskedOnceASecond(t *testing.T) {
	s := newScenario(t)
	core, now := NewCore(s.cfg), s.now
	asked := map[string]int{}
	step := func(in Input) {
		for _, a := range core.Step(now, in).Actions {
			if send, ok := a.(Send); ok && send.Message.Again != nil {
				asked[send.To]++
			}
		}
	}
	for range 3 {
		for range 300 {
			for _, id := range []string{"a", "b"} {
				step(Received{protocol.Message{Version: protocol.Version, From: id, Heartbeat: &protocol.Heartbeat{}}})
			}
		}
		now = now.Add(askAgainEvery)
	}
	if asked["a"] != 3 || asked["b"] != 3 {
		t.Errorf("asked %v times in three seconds, want 3 each", asked)
	}
	now = now.Add(time.Second)
	if step(Tick{}); len(core.asked) != 0 {
		t.Errorf("%d strangers are remembered", len(core.asked))
	}
}
