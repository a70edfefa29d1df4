package replica

import (
	"errors"
	"testing"
	"testing/synctest"

	"mochi/coordinator/protocol"
	"mochi/replica/replicatest"
)

// movable is a link that may lead elsewhere.
type movable struct {
	*replicatest.Script
	moved chan struct{}
}

func (m movable) Moved() <-chan struct{} { return m.moved }

// Another coordinator hears Hello without having asked for it.
func TestGreetsAnotherCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := replicatest.NewScript(smallJob(), 9)
		link := movable{script, make(chan struct{}, 1)}
		hellos := 0
		script.Heard = func(m protocol.Message) bool {
			if m.Hello != nil {
				hellos++
			}
			return true
		}
		r := New(Config{ID: "r", Link: link, Data: replicatest.Pictures{N: 8, Size: 12}.Set()})
		done := make(chan error, 1)
		go func() { done <- r.Run(t.Context()) }()
		synctest.Wait()
		for want := 1; want < 4; want++ {
			if hellos != want {
				t.Fatalf("%d times Hello, want %d", hellos, want)
			}
			link.moved <- struct{}{}
			synctest.Wait()
		}
		script.Say(protocol.Message{Stop: &protocol.Stop{Reason: "lost", Failed: true}})
		if err := <-done; !errors.Is(err, ErrJobFailed) {
			t.Error(err)
		}
	})
}
