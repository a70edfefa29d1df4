package coordinator

import (
	"testing"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
)

// What is out of bounds does not get as far as the core (this server has none).
func TestServerDropsWhatIsOutOfBounds(t *testing.T) {
	s := New(Config{Training: config.Default()})
	for _, m := range []protocol.Message{
		{From: "a", Failed: &protocol.Failed{Damaged: []int{-1}}},
		{From: "a b", Heartbeat: &protocol.Heartbeat{}},
		{From: "a", Ready: &protocol.Ready{Groups: make([]protocol.GroupReport, 5)}},
	} {
		if f := s.handle(t.Context(), Received{m}); f != nil {
			t.Errorf("%+v ended the job: %+v", m, f)
		}
	}
}
