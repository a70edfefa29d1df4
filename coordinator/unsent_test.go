package coordinator

import (
	"context"
	"errors"
	"testing"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
)

// deaf is a bus that cannot deliver to one replica.
type deaf struct {
	Bus
	to   string
	sent []string
}

func (b *deaf) Send(to string, _ protocol.Message) error {
	if to == b.to {
		return errors.New("maximum payload exceeded")
	}
	b.sent = append(b.sent, to)
	return nil
}

// told keeps the events.
type told struct {
	Observer
	events []event.Event
}

func (o *told) Event(e event.Event) { o.events = append(o.events, e) }

// Who does not get a message is lost, with the reason; the others are not.
func TestWhoCannotBeToldIsLost(t *testing.T) {
	bus, heard := &deaf{to: "b"}, &told{}
	s := New(Config{Job: "test", Bus: bus, Observer: heard})
	s.core = NewCore(CoreConfig{Training: config.Job{MinReplicas: 3, Batch: 4, BNGroup: 1}})
	for _, id := range []string{"a", "b", "c"} {
		h := protocol.Hello{ID: id, Name: id, Data: protocol.Data{Kind: "idx", Train: 8}}
		if f := s.handle(context.Background(), Received{protocol.Message{Version: protocol.Version, From: id, Hello: &h}}); f != nil {
			t.Fatalf("%s ends the job: %+v", id, f)
		}
	}
	if ids := s.core.roster.IDs(); len(ids) != 2 || !ids["a"] || !ids["c"] {
		t.Errorf("%v are here, want a and c", ids)
	}
	for _, e := range heard.events {
		if lost, ok := e.(event.Lost); ok {
			if lost.ID != "b" || lost.Reason != "a message to it could not be sent: maximum payload exceeded" {
				t.Errorf("%+v", lost)
			}
			return
		}
	}
	t.Errorf("nobody is told that b is lost: %+v", heard.events)
}
